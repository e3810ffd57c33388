# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening sockets of a node: its TCP ports, its own or systemd's, and the control socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import EXIT_TEMPORARY, NodeError
from .settings import Listen, Settings

CONTROL_SOCKET = "control.sock"
_BACKLOG = 1024


class Sockets:
    """The listening sockets of a node. Taken before anything slow, so that a taken port is known at once.

    Args:
        settings: the node's settings.
        passed: the sockets that systemd listens on for the node; clients that come while the node restarts wait there.

    Attributes:
        tcp: where everybody comes in.
        door: where nodes of the grid get in though nobody else does, if there is such a place.

    Raises:
        NodeError: a port is taken, or systemd's sockets are others than the settings say.
    """

    def __init__(self, settings: Settings, passed: Sequence[socket.socket] = ()) -> None:
        self._settings = settings
        places = [place for place in (settings.listen, settings.listen_nodes) if place is not None]
        listeners = _checked(places, passed) if passed else [_listen_tcp(place) for place in places]
        self.tcp = listeners[0]
        self.door = listeners[1] if len(listeners) > 1 else None
        self.control: socket.socket | None = None
        # A job's forked child would otherwise keep the port when its worker is killed.
        os.register_at_fork(after_in_child=self.close)

    def listen_control(self) -> socket.socket:
        """Create control.sock, mode 0600; only when the node is about to answer on it."""
        self.control = _listen_unix(self._settings.run_directory)
        return self.control

    def close(self) -> None:
        """Close this process's copies of the sockets."""
        for listener in (self.tcp, self.door, self.control):
            if listener is not None:
                listener.close()


def _address(place: Listen) -> tuple[Any, ...]:
    """What getaddrinfo says of an address in the settings; raises OSError."""
    return socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]


def _checked(places: Sequence[Listen], passed: Sequence[socket.socket]) -> list[socket.socket]:
    """The passed sockets in the order of the places; each has to be there."""
    found = {listener.getsockname()[:2]: listener for listener in passed}
    wanted = []
    for place in places:
        try:
            wanted.append(_address(place)[4][:2])
        except OSError as error:
            raise NodeError(f"cannot listen on {_text(place)}: {error.strerror}", EXIT_TEMPORARY) from None
    if set(wanted) != set(found):
        listens = " and ".join(f"{host}:{port}" for host, port in found)
        says = " and ".join(_text(place) for place in places)
        raise NodeError(f"systemd's socket listens on {listens}, the settings say {says}: make them equal")
    return [found[address] for address in wanted]


def _listen_tcp(place: Listen) -> socket.socket:
    try:
        family, kind, protocol, _name, address = _address(place)
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise NodeError(f"cannot listen on {_text(place)}: {error.strerror}", EXIT_TEMPORARY) from None
    listener.setblocking(False)
    return listener


def _text(place: Listen) -> str:
    return f"{place.host}:{place.port}"


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
