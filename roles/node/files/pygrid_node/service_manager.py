# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node and systemd say to each other: sd_notify(3), the watchdog, and the sockets that systemd passes.

The variables of this protocol are taken out of the environment, so that no job finds them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Collection

from .errors import NodeError

logger = logging.getLogger(__name__)

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
_VARIABLES = (
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
)  # fmt: skip


class ServiceManager:
    """systemd as the node sees it; every method does nothing when there is none, or the node is not to speak with it.

    Args:
        enabled: the setting `notify`.
        parts: names of the threads that must all be going on for the watchdog to be fed, see `alive`.
    """

    def __init__(self, enabled: bool, parts: Collection[str]) -> None:
        variables = {name: os.environ.pop(name, "") for name in _VARIABLES}
        self._lock = threading.Lock()
        self._parts, self._heard = frozenset(parts), set[str]()
        self._socket: socket.socket | None = None
        self._interval, self._next_ping, self._status = 0.0, 0.0, ""
        self.passed: list[socket.socket] = []
        if enabled:
            self._socket = _connect(variables["NOTIFY_SOCKET"])
            self._interval = _watchdog_seconds(variables) / 2
            self.passed = _passed_sockets(variables)

    def ready(self) -> None:
        """The node answers."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The node was told to stop. May be called in a signal handler: it takes no lock."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows; sent when it changes."""
        if text != self._status:
            self._status = text
            self._send("STATUS=" + " ".join(text.split()))

    def alive(self, part: str) -> None:
        """A part of the node says that it goes on. The watchdog is fed only once all parts have said so again."""
        if not self._interval:
            return
        with self._lock:
            self._heard.add(part)
            now = time.monotonic()
            if not self._heard >= self._parts or now < self._next_ping:
                return
            self._heard.clear()
            self._next_ping = now + self._interval
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(message.encode())
        except OSError as error:
            logger.debug("systemd does not take messages now: %s", error)


def _connect(address: str) -> socket.socket | None:
    if not address:
        return None
    if address[0] not in "/@":
        raise NodeError(f"NOTIFY_SOCKET {address!r} is neither a path nor an abstract socket")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        connection.connect("\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        connection.close()
        raise NodeError(f"NOTIFY_SOCKET {address}: {error.strerror}") from None
    connection.setblocking(False)
    return connection


def _watchdog_seconds(variables: dict[str, str]) -> float:
    if variables["WATCHDOG_PID"] not in ("", str(os.getpid())):
        return 0.0
    with contextlib.suppress(ValueError):
        return int(variables["WATCHDOG_USEC"] or 0) / 1e6
    return 0.0


def _passed_sockets(variables: dict[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd passes.

    Raises:
        NodeError: one of them does not listen for TCP connections.
    """
    if variables["LISTEN_PID"] != str(os.getpid()):
        return []
    return [_listener(_FIRST_DESCRIPTOR + number) for number in range(int(variables["LISTEN_FDS"] or 0))]


def _listener(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    listens = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not listens or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise NodeError("systemd passes a socket that does not listen for TCP connections: use ListenStream=")
    listener.setblocking(False)
    return listener
