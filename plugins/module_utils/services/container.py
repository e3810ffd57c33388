# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes kept running by a container engine: one container for each, of the image that the node's release is."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import CALL_SECONDS, Engine
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text
from ansible_collections.openmined.pygrid.plugins.module_utils.images import (
    CONFINED,
    HOME_LABEL,
    container_name,
    mount,
    user_words,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import read_manifest
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import (
    ServiceSpec,
    ServiceState,
    tell_of_stopping,
)

# The digest of everything that a container was made from.
SPEC_LABEL = "org.openmined.pygrid.spec"

# The engine's words -> ours. A container that the engine itself does not start again was stopped.
STATES = {
    "created": "stopped",
    "running": "running",
    "restarting": "failing",
    "paused": "stopped",
    "exited": "stopped",
    "removing": "stopped",
    "stopped": "stopped",
    "configured": "stopped",
    "initialized": "stopped",
    "stopping": "running",
    "dead": "failed",
}
# A node that ended and runs again for less than this has not shown yet that it can.
PROVEN_SECONDS = 10.0
LOG_MB, LOG_FILES = 10, 5


class Containers:
    """The nodes of one home as its engine keeps them."""

    def __init__(self, home: Home, engine: Engine) -> None:
        self._home = home
        self._engine = engine

    # -- definitions -------------------------------------------------------------------------------------

    def _words(self, spec: ServiceSpec) -> list[str]:
        """Everything after ``run`` that the container is made from; secrets are files below its mounts."""
        node = self._home.node(spec.name)
        release = node.active_release()
        image = (read_manifest(self._home.root, release) or {}).get("image") if release else None
        if not image:
            raise PygridError(f"{spec.name}: its release {release} is no image")
        labels = {
            HOME_LABEL: str(self._home.root),
            "pygrid_grid": self._home.root.name,
            "pygrid_role": spec.kind,
            "pygrid_name": spec.name,
            "pygrid_domain": spec.domain,
        }
        environment = {
            **spec.environment,
            "HOME": str(node.state / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYGRID_RELEASE": str(release),
            "PYGRID_CONTROL_SOCKET": str(node.control_socket),
        }
        words = ["--name", container_name(spec.name), "--restart", "unless-stopped", "--network", "host"]
        words += ["--stop-timeout", str(spec.stop_seconds), "--user", f"{os.geteuid()}:{os.getegid()}"]
        words += [*user_words(self._engine), *CONFINED, "--ulimit", "nofile=16384:16384", *self._log_words()]
        for name, value in labels.items():
            words += ["--label", f"{name}={value}"] if value else []
        for name, value in sorted(environment.items()):
            words += ["--env", f"{name}={value}"]
        # What the node is stays as it is, whatever runs in there; what it knows is its own to write.
        words += ["--mount", mount(node.root, read_only=True)]
        for folder in spec.writes:
            words += ["--mount", mount(folder)]
        words += self._limit_words(spec)
        # The first word of the command is the interpreter of the release on the host.
        words += ["--workdir", spec.directory, "--entrypoint", image["python"], image["id"], *spec.command[1:]]
        return words

    def _limit_words(self, spec: ServiceSpec) -> list[str]:
        limits, words = spec.limits, []
        if limits.cpu_percent:
            words += ["--cpus", f"{limits.cpu_percent / 100:g}"]
        if limits.memory_mb:
            words += ["--memory", f"{limits.memory_mb}m", "--memory-swap", f"{limits.memory_mb}m"]
        if limits.tasks:
            words += ["--pids-limit", str(limits.tasks)]
        return words

    def _log_words(self) -> list[str]:
        words = ["--log-driver", "json-file", "--log-opt", f"max-size={LOG_MB}m"]
        return [*words, "--log-opt", f"max-file={LOG_FILES}"] if self._engine.name == "docker" else words

    def is_defined(self, spec: ServiceSpec) -> bool:
        found = self._find(spec.name)
        if found is None:
            return False
        try:
            return _labels(found).get(SPEC_LABEL) == _digest(self._words(spec))
        except PygridError:  # it is to become one of this release
            return False

    def is_known(self, name: str) -> bool:
        return self._find(name) is not None

    def _find(self, name: str) -> dict[str, Any] | None:
        """The container of a node of this home; one of the same name that is somebody else's is none."""
        found = self._engine.inspect("container", container_name(name))
        return found if found and _labels(found).get(HOME_LABEL) == str(self._home.root) else None

    # -- one node ----------------------------------------------------------------------------------------

    def state(self, name: str) -> ServiceState:
        found = self._find(name)
        if found is None:
            return ServiceState("absent")
        told = found["State"]
        state = STATES.get(told["Status"], "failed")
        up = state == "running"
        uptime = max(0.0, time.time() - _seconds(told["StartedAt"])) if up else None
        detail = told["Status"] if up else f"{told['Status']}, exit code {told.get('ExitCode')}"
        if uptime is not None and found.get("RestartCount", 0) > 0 and uptime < PROVEN_SECONDS:
            state, detail = "failing", f"running again, ended {found['RestartCount']} times"
        pid = _process_of(int(told.get("Pid") or 0)) if up else None
        return ServiceState(state=state, pid=pid, uptime_seconds=uptime, detail=detail)

    def run(self, spec: ServiceSpec) -> None:
        name = container_name(spec.name)
        self.stop(spec.name, spec.stop_seconds)
        words = self._words(spec)
        digest = _digest(words)
        found = self._find(spec.name)
        if found is not None and _labels(found).get(SPEC_LABEL) == digest:
            self._engine.call("start", name, complaint=f"cannot start the container {name}")
            return
        if found is not None:
            self._remove_container(name)
        elif self._engine.inspect("container", name) is not None:
            raise PygridError(
                f"a container {name} is there and of no node of {self._home.root}; set another pygrid_name"
            )
        self._engine.call(
            "run", "--detach", "--label", f"{SPEC_LABEL}={digest}", *words,
            complaint=f"cannot start the container {name}",
        )  # fmt: skip

    def stop(self, name: str, stop_seconds: int) -> None:
        found = self._find(name)
        # One that the engine is about to start again is stopped, too.
        if found is None or STATES.get(found["State"]["Status"]) in ("stopped", "failed"):
            return
        self._engine.call(
            "stop", "--time", str(stop_seconds), container_name(name),
            complaint=f"cannot stop the container {container_name(name)}",
            seconds=stop_seconds + CALL_SECONDS,
            tick=lambda: tell_of_stopping(self._home.node(name), stop_seconds),
        )  # fmt: skip

    @contextlib.contextmanager
    def held(self, name: str, stop_seconds: int) -> Iterator[None]:
        self.stop(name, stop_seconds)  # the engine does not start by itself what it was told to stop
        yield

    def remove(self, name: str, stop_seconds: int) -> None:
        if self._find(name) is not None:
            self.stop(name, stop_seconds)
            self._remove_container(container_name(name))

    def _remove_container(self, name: str) -> None:
        self._engine.call("rm", "--force", "--volumes", name, complaint=f"cannot remove the container {name}")

    def shutdown(self) -> None:
        """Nothing is shared: the engine stays."""

    def log_place(self, name: str) -> str:
        return f"({self._engine.name} logs {container_name(name)})"

    def last_lines(self, name: str, count: int) -> str:
        if self._find(name) is None:
            return ""
        _code, answer, problem = self._engine.ask("logs", "--tail", str(count), container_name(name))
        return (answer + problem).strip()


def _labels(container: dict[str, Any]) -> dict[str, str]:
    return (container.get("Config") or {}).get("Labels") or {}


def _digest(words: list[str]) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _seconds(moment: str) -> float:
    """Seconds since the epoch of ``2026-11-22T22:29:19.638425991Z``, or of podman's ``... +0100``."""
    found = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,6})?\d*\s*(Z|[+-]\d\d:?\d\d)?", moment)
    if found is None:
        return time.time()
    day, clock, fraction, zone = found.groups()
    text = f"{day}T{clock}{(fraction or '.0').ljust(7, '0')}{'+0000' if zone in (None, 'Z') else zone.replace(':', '')}"
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


def _process_of(pid: int) -> int | None:
    """The node's own process on the host: what the engine names is its init."""
    if not pid:
        return None
    children = read_text(Path(f"/proc/{pid}/task/{pid}/children")) or ""
    return int(children.split()[0]) if children.split() else pid
