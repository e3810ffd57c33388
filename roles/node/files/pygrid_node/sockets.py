# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening sockets of a node: a TCP port, its own or systemd's, and the control socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from .errors import EXIT_TEMPORARY, NodeError
from .settings import Settings

CONTROL_SOCKET = "control.sock"
_BACKLOG = 1024


class Sockets:
    """The listening sockets of a node. Taken before anything slow, so that a taken port is known at once.

    Args:
        settings: the node's settings.
        passed: the socket that systemd listens on for the node; clients that come while the node restarts wait there.

    Raises:
        NodeError: the port is taken, or systemd's socket is another one than the settings say.
    """

    def __init__(self, settings: Settings, passed: socket.socket | None = None) -> None:
        self._settings = settings
        self.tcp = _checked(settings, passed) if passed is not None else _listen_tcp(settings)
        self.control: socket.socket | None = None
        # A job's forked child would otherwise keep the port when its worker is killed.
        os.register_at_fork(after_in_child=self.close)

    def listen_control(self) -> socket.socket:
        """Create control.sock, mode 0600; only when the node is about to answer on it."""
        self.control = _listen_unix(self._settings.run_directory)
        return self.control

    def close(self) -> None:
        """Close this process's copies of the sockets."""
        for listener in (self.tcp, self.control):
            if listener is not None:
                listener.close()


def _address(settings: Settings) -> tuple[Any, ...]:
    """What getaddrinfo says of the address in the settings; raises OSError."""
    return socket.getaddrinfo(settings.listen.host, settings.listen.port, type=socket.SOCK_STREAM)[0]


def _checked(settings: Settings, passed: socket.socket) -> socket.socket:
    wanted = f"{settings.listen.host}:{settings.listen.port}"
    try:
        address = _address(settings)[4]
    except OSError as error:
        raise NodeError(f"cannot listen on {wanted}: {error.strerror}", EXIT_TEMPORARY) from None
    if passed.getsockname()[:2] != address[:2]:
        host, port = passed.getsockname()[:2]
        raise NodeError(f"systemd's socket listens on {host}:{port}, the settings say {wanted}: make them equal")
    return passed


def _listen_tcp(settings: Settings) -> socket.socket:
    try:
        family, kind, protocol, _name, address = _address(settings)
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        place = f"{settings.listen.host}:{settings.listen.port}"
        raise NodeError(f"cannot listen on {place}: {error.strerror}", EXIT_TEMPORARY) from None
    listener.setblocking(False)
    return listener


def _listen_unix(directory: Path) -> socket.socket:
    """Bind below /proc/self/fd, because the address of a Unix socket is limited to 107 bytes and a home may be deep."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = Path(f"/proc/self/fd/{descriptor}") / CONTROL_SOCKET
        if not path.parent.exists():  # no /proc: the plain path then has to be short enough
            path = directory / CONTROL_SOCKET
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
    except OSError as error:
        raise NodeError(f"cannot listen on {directory / CONTROL_SOCKET}: {error}", EXIT_TEMPORARY) from None
    finally:
        os.close(descriptor)
    listener.setblocking(False)
    return listener
