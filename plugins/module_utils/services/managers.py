# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which service manager keeps the nodes of a home running; one file for each lies beside this one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import recorded_engine
from ansible_collections.openmined.pygrid.plugins.module_utils.images import image_of
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import (
    ServiceManager,
    ServiceSpec,
    ServiceState,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.services.container import Containers
from ansible_collections.openmined.pygrid.plugins.module_utils.services.supervisor import Supervisor
from ansible_collections.openmined.pygrid.plugins.module_utils.services.systemd import Systemd


def manager_for(home: Home) -> ServiceManager:
    """Supervisor in scope user, systemd in scope system; for nodes whose release is an image the container engine."""
    on_host: ServiceManager = Systemd(home) if home.scope == "system" else Supervisor(home)
    engine = recorded_engine(home)
    return on_host if engine is None else ByRelease(home, on_host, Containers(home, engine))


class ByRelease:
    """A home that has images: the node's release decides, and a node that gets one of the other sort changes hands."""

    def __init__(self, home: Home, on_host: ServiceManager, containers: Containers) -> None:
        self._home = home
        self._on_host = on_host
        self._containers = containers

    def _wanted(self, name: str) -> tuple[ServiceManager, ServiceManager]:
        """Who is to run the node, and who is not."""
        if image_of(self._home, self._home.node(name).active_release()) is None:
            return self._on_host, self._containers
        return self._containers, self._on_host

    def _present(self, name: str) -> ServiceManager:
        """Who has the node now."""
        return self._containers if self._containers.is_known(name) else self._on_host

    def is_defined(self, spec: ServiceSpec) -> bool:
        wanted, other = self._wanted(spec.name)
        return wanted.is_defined(spec) and not other.is_known(spec.name)

    def is_known(self, name: str) -> bool:
        return self._containers.is_known(name) or self._on_host.is_known(name)

    def state(self, name: str) -> ServiceState:
        state = self._containers.state(name)
        return self._on_host.state(name) if state.state == "absent" else state

    def run(self, spec: ServiceSpec) -> None:
        wanted, other = self._wanted(spec.name)
        if other.is_known(spec.name):
            other.remove(spec.name, spec.stop_seconds)
        wanted.run(spec)

    def stop(self, name: str, stop_seconds: int) -> None:
        for manager in (self._containers, self._on_host):
            manager.stop(name, stop_seconds)

    @contextlib.contextmanager
    def held(self, name: str, stop_seconds: int) -> Iterator[None]:
        with self._containers.held(name, stop_seconds), self._on_host.held(name, stop_seconds):
            yield

    def remove(self, name: str, stop_seconds: int) -> None:
        for manager in (self._containers, self._on_host):
            manager.remove(name, stop_seconds)

    def shutdown(self) -> None:
        self._containers.shutdown()
        self._on_host.shutdown()

    def log_place(self, name: str) -> str:
        return self._present(name).log_place(name)

    def last_lines(self, name: str, count: int) -> str:
        return self._present(name).last_lines(name, count)
