# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every service manager does for a node; one file per manager beside this one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.openmined.pygrid.plugins.module_utils.control import NodeUnavailable, request
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import NodePaths
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import say


@dataclass(frozen=True)
class ServiceState:
    """A node as its service manager sees it.

    ``state``: ``absent`` (not defined or the manager is down), ``stopped``, ``starting``, ``running``, ``failing``
    (it ended too soon and will be tried again) or ``failed`` (it will not be tried again).
    ``uptime_seconds`` and ``pid`` are only set while it runs; ``detail`` is the manager's own word. ``holds`` is the
    address:port on which the manager itself listens for the node.
    """

    state: str
    pid: int | None = None
    uptime_seconds: float | None = None
    detail: str = ""
    holds: str = ""

    @property
    def is_up(self) -> bool:
        return self.state in ("running", "starting", "failing")


@dataclass(frozen=True)
class Limits:
    """What a node may use at most; 0 stands for no limit. ``cpu_percent``: 100 is one processor."""

    cpu_percent: int = 0
    memory_mb: int = 0
    tasks: int = 0


@dataclass(frozen=True)
class ServiceSpec:
    """What is to be kept running.

    ``stop_seconds``: how long a clean stop (for a Worker: its drain) may take.
    The rest matters where a service manager can give it - ``account`` to run as, ``listen`` (each an address:port) to
    hold for it, secret files to hand over by name as ``credentials``, the only numeric addresses it may talk to (None:
    any), ``hold_file``, whose lock keeps it from being started, and the folders that it ``writes`` to.
    ``domain``: whose Worker it is.
    """

    name: str
    kind: str
    command: list[str]
    directory: str
    log_file: str
    stop_seconds: int
    environment: dict[str, str] = field(default_factory=dict)
    account: str = ""
    listen: tuple[str, ...] = ()
    credentials: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    talks_to: tuple[str, ...] | None = None
    hold_file: str = ""
    writes: tuple[str, ...] = ()
    domain: str = ""


class ServiceManager(Protocol):
    """The seam between a node and the thing that keeps it running: supervisor, systemd, a container engine."""

    def is_defined(self, spec: ServiceSpec) -> bool:
        """Whether the definition on disk is exactly ``spec``."""

    def is_known(self, name: str) -> bool:
        """Whether there is any definition of this name."""

    def state(self, name: str) -> ServiceState:
        """The state as the manager sees it now."""

    def run(self, spec: ServiceSpec) -> None:
        """Write the definition and start, or cleanly restart, with it.

        Returns when the process was started, not when it is healthy.
        """

    def stop(self, name: str, stop_seconds: int) -> None:
        """Stop cleanly and return when the process is gone."""

    def held(self, name: str, stop_seconds: int) -> AbstractContextManager[None]:
        """Stop cleanly, and let nothing start the node before the block ends; who connects meanwhile may wait."""

    def remove(self, name: str, stop_seconds: int) -> None:
        """Stop and forget the service; harmless when it is not there."""

    def shutdown(self) -> None:
        """End what all nodes of the home shared, once no node is left."""

    def log_place(self, name: str) -> str:
        """Where a person finds the node's log."""

    def last_lines(self, name: str, count: int) -> str:
        """The end of the node's log (the runtime never writes secrets into it)."""


def tell_of_stopping(node: NodePaths, stop_seconds: int) -> None:
    """Report what a node that is told to stop is still at; a Worker first ends its jobs."""
    health = read_status(node) or {}
    jobs = [slot["busy_seconds"] for slot in health.get("slots") or [] if slot.get("job")]
    if jobs:
        what = "its job" if len(jobs) == 1 else f"{len(jobs)} jobs"
        say(f"ends {what}, {max(jobs):.0f} s so far; it is given {stop_seconds} s")
    else:
        say(f"stops; it is given {stop_seconds} s")


def read_status(node: NodePaths) -> dict[str, Any] | None:
    """What the node says of itself, None when it does not."""
    if not node.control_socket.exists():
        return None
    try:
        return request(node.control_socket, "GET", "/status", timeout_seconds=2)[1]
    except NodeUnavailable:
        return None
