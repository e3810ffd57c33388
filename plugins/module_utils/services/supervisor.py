# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes kept running by supervisor (the PyPI package): no root and no systemd needed.

One ``supervisord`` for each home folder. It is asked over XML-RPC on its unix socket, which only its own account
can open; starting Python for ``supervisorctl`` would cost a quarter of a second each time.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import subprocess
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.control import UnixConnection
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import locked, read_text, write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import TICK_SECONDS
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import (
    ServiceSpec,
    ServiceState,
    tell_of_stopping,
)

# supervisor.xmlrpc.Faults (supervisor 4.3)
FAULT_BAD_NAME = 10
FAULT_ALREADY_STARTED = 60
FAULT_NOT_RUNNING = 70
FAULT_ALREADY_ADDED = 90

# supervisor.states.ProcessStates -> our words
STATES = {
    "STOPPED": "stopped",
    "STARTING": "starting",
    "RUNNING": "running",
    "BACKOFF": "failing",
    "STOPPING": "running",
    "EXITED": "stopped",
    "FATAL": "failed",
    "UNKNOWN": "failed",
}

# What a node may inherit from the account that starts supervisord: places and trust, nothing else.
INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TZ", "USER", "SSL_CERT_FILE", "SSL_CERT_DIR")

SUPERVISORD = """\
; Written by openmined.pygrid. One file for each node lies in conf.d.
[supervisord]
directory = {root}
logfile = {root}/supervisord.log
logfile_maxbytes = 5MB
logfile_backups = 2
pidfile = {root}/supervisord.pid
childlogdir = {root}
umask = 077
minfds = 1024
nocleanup = true

[unix_http_server]
file = {socket}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[include]
files = conf.d/*.ini
"""

PROGRAM = """\
; Written by openmined.pygrid.
[program:{name}]
command = {command}
directory = {directory}
environment = {environment}
umask = 077
autostart = true
autorestart = true
; A node that ends within three seconds did not start: after ten tries (55 s) it is left alone as FATAL.
startsecs = 3
startretries = 10
stopsignal = TERM
stopwaitsecs = {stop_seconds}
; A job runs in a child of its Worker: what is left after a hard stop must not live on alone.
killasgroup = true
stdout_logfile = {log_file}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 5
redirect_stderr = true
"""


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over supervisord's unix socket."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_seconds = timeout_seconds

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return UnixConnection(self._path, self._timeout_seconds)


class Supervisor:
    """The service manager of one home folder."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._root = home.supervisor
        self._socket = self._root / "supervisord.sock"

    # -- definitions -------------------------------------------------------------------------------------

    def _program_file(self, name: str) -> Path:
        return self._root / "conf.d" / f"{name}.ini"

    def _program_text(self, spec: ServiceSpec) -> str:
        environment = ",".join(f'{key}="{value}"' for key, value in sorted(spec.environment.items()))
        values = {
            "name": spec.name,
            "command": shlex.join(spec.command),
            "directory": spec.directory,
            "environment": environment,
            "stop_seconds": spec.stop_seconds,
            # supervisor expands the names of log files twice (4.3.0)
            "log_file": _escape(spec.log_file),
        }
        return PROGRAM.format(**{key: _escape(value) for key, value in values.items()})

    def is_defined(self, spec: ServiceSpec) -> bool:
        return read_text(self._program_file(spec.name)) == self._program_text(spec)

    def is_known(self, name: str) -> bool:
        return self._program_file(name).exists()

    def _define(self, spec: ServiceSpec) -> None:
        (self._root / "conf.d").mkdir(mode=0o700, parents=True, exist_ok=True)
        write_if_different(self._program_file(spec.name), self._program_text(spec))

    # -- the daemon --------------------------------------------------------------------------------------

    def _rpc(self, timeout_seconds: float = 10.0) -> Any:
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self._socket, timeout_seconds))
        return proxy.supervisor

    def is_up(self) -> bool:
        try:
            return self._rpc().getState()["statename"] == "RUNNING"
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False

    def _ensure_up(self) -> None:
        """Start supervisord; it starts every node that has a definition."""
        with locked(self._home.locks / "supervisord.lock"):
            if self.is_up():
                return
            executable = self._executable()
            (self._root / "conf.d").mkdir(mode=0o700, parents=True, exist_ok=True)
            config = self._root / "supervisord.conf"
            text = SUPERVISORD.format(root=_escape(self._root), socket=_escape(self._socket))
            write_if_different(config, text)
            environment = {key: os.environ[key] for key in INHERITED if key in os.environ}
            result = subprocess.run(
                [str(executable), "-m", "supervisor.supervisord", "-c", str(config)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                start_new_session=True,
                check=False,
                text=True,
                timeout=60,
            )
            if result.returncode != 0:
                raise PygridError(f"supervisord did not start: {result.stdout.strip()[-500:]}")
            self._wait_for(self.is_up, 15, "supervisord did not answer on its socket")

    def _executable(self) -> Path:
        candidates = sorted(self._home.tools.glob("supervisor-*/bin/python"))
        if not candidates:
            raise PygridError(f"supervisor is not staged in {self._home.tools}; run playbooks/deploy.yml")
        return candidates[-1]

    def shutdown(self) -> None:
        """End supervisord together with whatever it still runs."""
        with locked(self._home.locks / "supervisord.lock"):
            if not self.is_up():
                return
            pid = self._rpc().getPID()
            self._rpc().shutdown()
            self._wait_for(lambda: not _is_alive(pid), 60, "supervisord did not end")

    # -- one node ----------------------------------------------------------------------------------------

    def state(self, name: str) -> ServiceState:
        try:
            info = self._rpc().getProcessInfo(name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == FAULT_BAD_NAME:
                return ServiceState("absent")
            raise PygridError(f"supervisord: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException):
            return ServiceState("absent", detail="supervisord is not running")
        state = STATES.get(info["statename"], "failed")
        running = state == "running"
        return ServiceState(
            state=state,
            pid=info["pid"] or None,
            uptime_seconds=float(info["now"] - info["start"]) if running else None,
            detail=info["spawnerr"] or info["statename"],
        )

    def run(self, spec: ServiceSpec) -> None:
        self.stop(spec.name, spec.stop_seconds)
        self._define(spec)
        self._ensure_up()
        rpc = self._rpc()
        (_added, changed, _removed) = rpc.reloadConfig()[0]
        if spec.name in changed:
            self._forget(spec.name, spec.stop_seconds)
        # Adding a group starts its program (autostart); a group that is there already has to be told.
        if not self._tolerating(FAULT_ALREADY_ADDED, rpc.addProcessGroup, spec.name):
            self._tolerating(FAULT_ALREADY_STARTED, rpc.startProcess, spec.name, False)

    def stop(self, name: str, stop_seconds: int) -> None:
        if not self.state(name).is_up:
            return
        ends = time.monotonic() + stop_seconds

        def tick() -> None:
            if time.monotonic() < ends:
                tell_of_stopping(self._home.node(name), stop_seconds)
            else:  # its program may give it more time than this stop does
                self._tolerating(FAULT_NOT_RUNNING, self._rpc().signalProcess, name, "KILL")

        self._tolerating(FAULT_NOT_RUNNING, self._rpc().stopProcess, name, False)
        self._wait_for(
            lambda: self.state(name).state in ("stopped", "failed", "absent"),
            stop_seconds + 30,
            f"{name} did not stop",
            tick,
        )

    @contextlib.contextmanager
    def held(self, name: str, stop_seconds: int) -> Iterator[None]:
        self.stop(name, stop_seconds)  # supervisord does not start by itself what it was told to stop
        yield

    def remove(self, name: str, stop_seconds: int) -> None:
        self._forget(name, stop_seconds)
        self._program_file(name).unlink(missing_ok=True)

    def _forget(self, name: str, stop_seconds: int) -> None:
        if self.state(name).state == "absent":
            return
        self.stop(name, stop_seconds)
        self._tolerating(FAULT_BAD_NAME, self._rpc().removeProcessGroup, name)

    def log_place(self, name: str) -> str:
        return str(self._home.node(name).log_file)

    def last_lines(self, name: str, count: int) -> str:
        text = read_text(self._home.node(name).log_file) or ""
        return "\n".join(text.splitlines()[-count:])

    @staticmethod
    def _tolerating(code: int, method: Any, *arguments: Any) -> bool:
        """Call; False instead of an error when supervisord answers with the fault ``code``."""
        try:
            method(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == code:
                return False
            raise PygridError(f"supervisord: {fault.faultString}") from fault
        return True

    @staticmethod
    def _wait_for(condition: Any, seconds: float, message: str, tick: Callable[[], None] = lambda: None) -> None:
        end = time.monotonic() + seconds
        tick_at = time.monotonic() + TICK_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise PygridError(f"{message} within {seconds:.0f} s")
            if time.monotonic() > tick_at:
                tick()
                tick_at = time.monotonic() + TICK_SECONDS
            time.sleep(0.05)


def _escape(value: Any) -> str:
    """supervisor expands %(...)s in every value."""
    return str(value).replace("%", "%%")


def _is_alive(pid: int) -> bool:
    """False for a zombie too: in a container nobody may reap what supervisord leaves."""
    text = read_text(Path(f"/proc/{pid}/stat"))
    return text is not None and text.rpartition(")")[2].split()[0] != "Z"
