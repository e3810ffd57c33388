# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every service manager does for a node; one file per manager beside this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class ServiceState:
    """A node as its service manager sees it.

    ``state``: ``absent`` (not defined or the manager is down), ``stopped``, ``starting``, ``running``, ``failing``
    (it ended too soon and will be tried again) or ``failed`` (it will not be tried again).
    ``uptime_seconds`` and ``pid`` are only set while it runs; ``detail`` is the manager's own word.
    """

    state: str
    pid: int | None = None
    uptime_seconds: float | None = None
    detail: str = ""

    @property
    def is_up(self) -> bool:
        return self.state in ("running", "starting", "failing")


@dataclass(frozen=True)
class ServiceSpec:
    """What is to be kept running. ``stop_seconds``: how long a clean stop (for a Worker: its drain) may take."""

    name: str
    command: list[str]
    directory: str
    log_file: str
    stop_seconds: int
    environment: dict[str, str] = field(default_factory=dict)


class ServiceManager(Protocol):
    """The seam between a node and the thing that keeps it running (supervisor now, systemd on real servers)."""

    def is_defined(self, spec: ServiceSpec) -> bool:
        """Whether the definition on disk is exactly ``spec``."""

    def define(self, spec: ServiceSpec) -> None:
        """Write the definition; takes effect with the next start or restart."""

    def state(self, name: str) -> ServiceState:
        """The state as the manager sees it now."""

    def start(self, spec: ServiceSpec) -> None:
        """Start with the definition on disk; returns when the process was started, not when it is healthy."""

    def stop(self, name: str, stop_seconds: int) -> None:
        """Stop cleanly and return when the process is gone."""

    def remove(self, name: str, stop_seconds: int) -> None:
        """Stop and forget the service; harmless when it is not there."""
