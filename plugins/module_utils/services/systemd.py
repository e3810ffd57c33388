# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes kept running by systemd: template units, one drop-in for each node, and sockets that systemd holds."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import locked, read_text, write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import communicate
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import (
    ServiceSpec,
    ServiceState,
    tell_of_stopping,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.services.systemd_units import (
    LISTENING,
    TITLES,
    service_drop_in,
    service_template,
    socket_drop_in,
    socket_template,
)

UNITS = Path("/etc/systemd/system")
SYSTEMCTL = "/usr/bin/systemctl"
DROP_IN = "10-pygrid.conf"
LOCK = Path("/run/pygrid-units.lock")
# Nodes that share a host reload systemd at the same time; each reload takes a while on a busy machine.
CALL_SECONDS = 120

SHOWN = "ActiveState,SubState,Result,MainPID,ExecMainStartTimestampMonotonic,ExecMainStatus"
# (ActiveState, SubState or any) -> our words
STATES = {
    ("active", ""): "running",
    ("reloading", ""): "running",
    ("deactivating", ""): "running",
    ("activating", "auto-restart"): "failing",
    ("activating", ""): "starting",
    ("failed", ""): "failed",
    ("inactive", ""): "stopped",
}


class Systemd:
    """The nodes of this host as systemd keeps them."""

    def __init__(self, home: Home) -> None:
        self._home = home

    # -- definitions -------------------------------------------------------------------------------------

    def is_defined(self, spec: ServiceSpec) -> bool:
        files = self._files(spec)
        enabled = all((self._wants(unit) / unit).is_symlink() for unit in self._units(spec.kind, spec.name))
        return enabled and all(read_text(path) == text for path, text in files.items())

    def _files(self, spec: ServiceSpec) -> dict[Path, str]:
        """Every file of a node's definition; the templates are shared with the other nodes of its kind."""
        service = f"pygrid-{spec.kind}@{spec.name}.service"
        files = {
            UNITS / f"pygrid-{spec.kind}@.service": service_template(spec.kind),
            UNITS / f"{service}.d" / DROP_IN: service_drop_in(spec),
        }
        if spec.kind in LISTENING:
            files[UNITS / f"pygrid-{spec.kind}@.socket"] = socket_template(spec.kind)
            files[UNITS / f"pygrid-{spec.kind}@{spec.name}.socket.d" / DROP_IN] = socket_drop_in(spec)
        return files

    def _units(self, kind: str, name: str) -> list[str]:
        units = [f"pygrid-{kind}@{name}.service"]
        return [f"pygrid-{kind}@{name}.socket", *units] if kind in LISTENING else units

    @staticmethod
    def _wants(unit: str) -> Path:
        return UNITS / ("sockets.target.wants" if unit.endswith(".socket") else "multi-user.target.wants")

    def _define(self, spec: ServiceSpec) -> bool:
        """Write and enable; returns whether the place where the node listens has changed."""
        moved = False
        with locked(LOCK):
            for path, text in self._files(spec).items():
                path.parent.mkdir(mode=0o755, exist_ok=True)
                if write_if_different(path, text, 0o644):
                    moved = moved or path.parent.name.endswith(".socket.d")
            systemctl("daemon-reload")
            systemctl("enable", *self._units(spec.kind, spec.name))
        return moved

    def _kind_of(self, name: str) -> str | None:
        """What kind of node has a definition under this name."""
        return next((kind for kind in TITLES if _definition(kind, name).exists()), None)

    def is_known(self, name: str) -> bool:
        return self._kind_of(name) is not None

    # -- one node ----------------------------------------------------------------------------------------

    def state(self, name: str) -> ServiceState:
        kind = self._kind_of(name)
        if kind is None:
            return ServiceState("absent")
        shown = _show(f"pygrid-{kind}@{name}.service")
        active, sub = shown.get("ActiveState", ""), shown.get("SubState", "")
        state = STATES.get((active, sub)) or STATES.get((active, ""), "failed")
        pid = int(shown.get("MainPID") or 0) or None
        started = int(shown.get("ExecMainStartTimestampMonotonic") or 0) / 1_000_000
        up = state in ("running", "starting") and pid is not None
        return ServiceState(
            state=state,
            pid=pid,
            uptime_seconds=time.clock_gettime(time.CLOCK_MONOTONIC) - started if up else None,
            detail=_detail(shown),
            holds=_held(f"pygrid-{kind}@{name}.socket") if kind in LISTENING else "",
        )

    def run(self, spec: ServiceSpec) -> None:
        moved = self._define(spec)
        *sockets, service = self._units(spec.kind, spec.name)
        # Its socket goes on listening meanwhile: who connects now is served by the next process.
        systemctl("stop", *(sockets if moved else []), service, seconds=spec.stop_seconds + CALL_SECONDS)
        systemctl("reset-failed", service, tolerant=True)
        if sockets:
            systemctl("start", *sockets)
        systemctl("start", "--no-block", service)

    def stop(self, name: str, stop_seconds: int) -> None:
        kind = self._kind_of(name)
        if kind is not None:
            self._stop(name, stop_seconds, *self._units(kind, name))

    @contextlib.contextmanager
    def held(self, name: str, stop_seconds: int) -> Iterator[None]:
        kind = self._kind_of(name)
        if kind is None:
            yield
            return
        # The socket goes on listening: whom it lets in makes systemd start the service, and that waits for the lock.
        with locked(self._home.node(name).hold):
            self._stop(name, stop_seconds, f"pygrid-{kind}@{name}.service")
            yield

    def _stop(self, name: str, stop_seconds: int, *units: str) -> None:
        ends = time.monotonic() + stop_seconds

        def tick() -> None:
            if time.monotonic() < ends:
                tell_of_stopping(self._home.node(name), stop_seconds)
            else:  # the unit may give it more time than this stop does
                systemctl("kill", "--signal=SIGKILL", *units, tolerant=True)

        systemctl("stop", *units, seconds=stop_seconds + CALL_SECONDS, tick=tick)

    def remove(self, name: str, stop_seconds: int) -> None:
        kind = self._kind_of(name)
        if kind is None:
            return
        self.stop(name, stop_seconds)
        with locked(LOCK):
            units = self._units(kind, name)
            systemctl("disable", *units)
            if not set(UNITS.glob(f"pygrid-{kind}@*.service.d/{DROP_IN}")) - {_definition(kind, name)}:
                for suffix in ("service", "socket"):
                    (UNITS / f"pygrid-{kind}@.{suffix}").unlink(missing_ok=True)
            # That of the service goes last: it tells a run after a kill that there is something left to remove.
            for unit in units:
                self._remove_drop_in(unit)
            systemctl("daemon-reload")
            systemctl("reset-failed", *units, tolerant=True)
        self._home.node(name).hold.unlink(missing_ok=True)

    @staticmethod
    def _remove_drop_in(unit: str) -> None:
        folder = UNITS / f"{unit}.d"
        (folder / DROP_IN).unlink(missing_ok=True)
        # An administrator's own drop-in stays where it is.
        with contextlib.suppress(OSError):
            folder.rmdir()

    def shutdown(self) -> None:
        """Nothing is shared: systemd stays."""

    def log_place(self, name: str) -> str:
        return f"(journalctl -u pygrid-{self._kind_of(name)}@{name})"

    def last_lines(self, name: str, count: int) -> str:
        command = [
            "/usr/bin/journalctl",
            "-u",
            f"pygrid-{self._kind_of(name)}@{name}",
            "-n",
            str(count),
            "-o",
            "cat",
            "-q",
        ]
        result = subprocess.run(
            [*command, "--no-pager"], capture_output=True, text=True, timeout=CALL_SECONDS, check=False
        )
        return result.stdout.strip()


def _definition(kind: str, name: str) -> Path:
    return UNITS / f"pygrid-{kind}@{name}.service.d" / DROP_IN


def systemctl(
    *words: str, tolerant: bool = False, seconds: float = CALL_SECONDS, tick: Callable[[], None] = lambda: None
) -> None:
    """Run systemctl; a failure is a PygridError with its own words unless it is to be tolerated.

    tick: is called every now and then while it runs.
    """
    command = [SYSTEMCTL, "--no-ask-password", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        try:
            _answer, problem = communicate(child, tick, seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            raise PygridError(f"systemctl {' '.join(words)} has not ended after {seconds:.0f} s") from None
    if child.returncode != 0 and not tolerant:
        raise PygridError(f"systemctl {' '.join(words)}: {problem.strip()[-500:]}")


def _show(unit: str, names: str = SHOWN) -> dict[str, str]:
    result = subprocess.run(
        [SYSTEMCTL, "show", "-p", names, unit], capture_output=True, text=True, timeout=CALL_SECONDS, check=False
    )
    # Of what is there several times (Listen), the first counts.
    return dict(line.split("=", 1) for line in reversed(result.stdout.splitlines()) if "=" in line)


def _held(socket: str) -> str:
    """Where systemd listens for a node: ``127.0.0.1:5000 (Stream)`` is how it shows that."""
    shown = _show(socket, "ActiveState,Listen")
    return shown.get("Listen", "").partition(" ")[0] if shown.get("ActiveState") == "active" else ""


def _detail(shown: dict[str, str]) -> str:
    """systemd's own words, and the exit code of a process that ended."""
    words = [shown.get("ActiveState", "unknown"), shown.get("SubState", "")]
    if shown.get("Result", "success") != "success":
        words.append(f"{shown['Result']} {shown.get('ExecMainStatus', '')}".strip())
    return "/".join(word for word in words if word)
