# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running jobs in processes of their own, started by a small process without threads.

Upstream forks each job from the worker itself, whose threads may hold locks at that moment: the child then hangs for
ever. The launcher is forked once, before the worker has any thread, and forks every job from there. When the worker
is killed the kernel takes the launcher along, and with it the job.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import pickle
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from . import database

log = logging.getLogger("pygrid_node.jobs")

_LENGTH = struct.Struct("!Q")
_WATCH_SECONDS = 0.5
_TERMINATE_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0  # how long a job waits for a PostgreSQL that is being restarted


@dataclass(frozen=True)
class Ended:
    """How a job's process ended: `text` for people, "" when by itself; `lost` when its database went away under it."""

    text: str
    lost: bool = False


class JobLauncher:
    """Starts and watches one job at a time. Must be made in the main thread, before any other thread.

    Args:
        run_job: what a job's process does with its payload; its return ends the process with 0, an exception with 1.
        others: the launchers made before, for workers that run several jobs at a time.
    """

    def __init__(self, run_job: Callable[[bytes], None], others: Iterable[JobLauncher] = ()) -> None:
        parent = os.getpid()
        self._socket, other = socket.socketpair()
        gc.freeze()  # what is loaded now is shared by all jobs; a collection would copy its pages
        self.pid = os.fork()
        if self.pid == 0:
            for launcher in (self, *others):
                launcher._socket.close()  # each ends when the worker's side of its own is closed everywhere
            with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
                _die_with_parent(parent)
                os.setsid()  # a supervisor that signals the whole group must reach the worker only: it drains
                _launch_jobs(other, run_job)
            os._exit(0)
        other.close()

    def run(self, payload: bytes, should_stop: Callable[[], bool]) -> Ended:
        """Run one job to its end.

        Args:
            payload: what `run_job` receives.
            should_stop: asked twice a second; True ends the job.

        Raises:
            RuntimeError: the launcher is gone; the worker must be started again.
        """
        try:
            _send(self._socket, payload)
            pid = pickle.loads(_receive(self._socket))  # noqa: S301 - from our own child, over a private socket pair
            self._watch(pid, should_stop)
            return _describe(pickle.loads(_receive(self._socket)))  # noqa: S301 - as above
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the job launcher is gone: {error}") from error

    def _watch(self, pid: int, should_stop: Callable[[], bool]) -> None:
        """Wait until the launcher reports the end; a job that is to stop gets SIGTERM, then SIGKILL."""
        killed_at: float | None = None
        while not _readable(self._socket, _WATCH_SECONDS):
            if killed_at is None and should_stop():
                killed_at = time.monotonic()
                _kill(pid, signal.SIGTERM)
            elif killed_at is not None and time.monotonic() - killed_at > _TERMINATE_SECONDS:
                _kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the launcher, which has no job by now."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def run_upstream_job(payload: bytes, connections: int | None = None) -> None:
    """What a job's process does: upstream's own function, without its two waits.

    Upstream sleeps 0.5 s so that the worker can write the process id into the job (here nobody needs it), and its
    monitor thread holds every finished process for up to 5 s (here the worker itself watches for a kill).

    Args:
        payload: the queue item.
        connections: the most connections to the database that this job may hold.
    """
    from syft.serde.deserialize import _deserialize
    from syft.server import server
    from syft.service.notification.notification_service import NotificationService
    from syft.service.queue import queue

    database.tune(connections)
    database.be_patient(_PATIENCE_SECONDS)
    database.leave_when_lost()
    queue.time = SimpleNamespace(sleep=lambda _seconds: None)  # type: ignore[attr-defined]
    queue.MonitorThread = _NoMonitor  # type: ignore[misc, assignment]
    server.print = lambda *_arguments, **_options: None  # type: ignore[attr-defined] # prints the database's password
    item = _deserialize(payload, from_bytes=True)
    if item.syft_client_verify_key == item.worker_settings.signing_key.verify_key:
        # The Domain's own job, a probe, which the Domain may forget while it runs: nobody is told that it failed, for
        # the notification would outlive it.
        NotificationService.send = lambda *_arguments, **_options: None  # type: ignore[method-assign]
    queue.handle_message_multiprocessing(item.worker_settings, item, item.syft_client_verify_key)


class _NoMonitor:
    """Takes the place of upstream's MonitorThread."""

    def __init__(self, *_arguments: Any, **_options: Any) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


def _launch_jobs(worker: socket.socket, run_job: Callable[[bytes], None]) -> None:
    """The launcher's life: payload in, process id out, wait status out."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it ends with its worker
    while True:
        payload = _receive(worker)
        launcher = os.getpid()
        pid = os.fork()
        if pid == 0:
            worker.close()
            _be_a_job(launcher, payload, run_job)
        _send(worker, pickle.dumps(pid))
        _send(worker, pickle.dumps(os.waitpid(pid, 0)[1]))


def _be_a_job(launcher: int, payload: bytes, run_job: Callable[[bytes], None]) -> None:
    """Never returns."""
    status = 1
    try:
        _die_with_parent(launcher)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # job.kill goes by it
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # the job shall go first, not its worker
        run_job(payload)
        status = 0
    except BaseException:
        log.exception("the job's process failed")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            logging.shutdown()
        os._exit(status)


def _die_with_parent(parent: int) -> None:
    """PR_SET_PDEATHSIG: no job survives its worker and none is run twice at the same time; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _describe(status: int) -> Ended:
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Ended(f"the job's process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else ""))
    code = os.WEXITSTATUS(status)
    if code == database.LOST_EXIT_CODE:
        return Ended("the job's process lost its database", lost=True)
    return Ended(f"the job's process ended with exit code {code}" if code else "")


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _readable(connection: socket.socket, timeout_seconds: float) -> bool:
    connection.settimeout(timeout_seconds)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return False
    finally:
        connection.settimeout(None)
    return True


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket) -> bytes:
    return _receive_exactly(connection, _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))[0])


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 20))
        if not part:
            raise EOFError("the other side is closed")
        data += part
    return bytes(data)
