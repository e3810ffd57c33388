# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening for a short while on the ports that a grid will use, so that others can try whether they get through."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import ipaddress
import json
import os
import selectors
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_rules import Network
from ansible_collections.openmined.pygrid.plugins.module_utils.listeners import holders, listening_ports

TOKEN_BYTES = 32
# How long one visitor may take to say who he is.
GREETING_SECONDS = 2.0


@dataclass
class Port:
    """One port, the networks that the firewall will let in there, and how many visitors are expected."""

    number: int
    networks: tuple[Network, ...]
    expected: int
    server: socket.socket | None = field(default=None, repr=False)


def answer_to(token: str) -> str:
    """What only a listener that knows ``token`` can say."""
    return hashlib.sha256(f"pygrid reachability {token}".encode()).hexdigest()


def listen(ports: Iterable[Port]) -> dict[int, str]:
    """Listen on every port that is free; returns who holds the others."""
    taken = {}
    for port in ports:
        try:
            port.server = _server(port.number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PygridError(f"port {port.number} cannot be opened: {os.strerror(error.errno or 0)}") from None
            found = holders(listening_ports().get(port.number, set()))
            taken[port.number] = found[0].text if found else "another program"
    return taken


def _server(port: int) -> socket.socket:
    """On all addresses of both families, where the kernel has both."""
    with contextlib.suppress(OSError):
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def serve(ports: Iterable[Port], token: str, seconds: float) -> None:
    """Answer visitors until all that are expected have come, ``end`` is called, or the time is over."""
    with _open_door(token) as door:
        _serve(ports, token, seconds, door)


def _serve(ports: Iterable[Port], token: str, seconds: float, door: socket.socket) -> None:
    over = time.monotonic() + seconds
    waiting = 0
    with selectors.DefaultSelector() as selector:
        selector.register(door, selectors.EVENT_READ)
        for port in ports:
            if port.server:
                selector.register(port.server, selectors.EVENT_READ, port)
                waiting += 1
        while waiting and time.monotonic() < over:
            for key, _events in selector.select(max(0.0, over - time.monotonic())):
                port = key.data
                if port is None:
                    return
                port.expected -= _welcome(port, token)
                if port.expected <= 0:
                    selector.unregister(port.server)
                    port.server.close()
                    waiting -= 1


def end(token: str) -> None:
    """End the listener of this machine; one that is gone already need not hear it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(_door(token))


def _open_door(token: str) -> socket.socket:
    door = socket.socket(socket.AF_UNIX)
    door.bind(_door(token))
    door.listen()
    return door


def _door(token: str) -> str:
    """A socket without a file, that no firewall is in front of; only who knows the token can name it."""
    return f"\0pygrid-reachability-{answer_to(token + ' end')}"


def _welcome(port: Port, token: str) -> bool:
    """Answer one visitor; True when it was one of ours."""
    with contextlib.suppress(OSError):
        connection, address = port.server.accept()
        with connection:
            connection.settimeout(GREETING_SECONDS)
            greeting = _read_line(connection, TOKEN_BYTES * 2 + 1)
            if not hmac.compare_digest(greeting, token.encode()):
                return False
            seen = ipaddress.ip_address(str(address[0]).partition("%")[0])
            seen = getattr(seen, "ipv4_mapped", None) or seen
            let_in = any(seen.version == network.version and seen in network for network in port.networks)
            said = {"answer": answer_to(token), "seen_from": str(seen), "let_in": let_in}
            connection.sendall(json.dumps(said).encode() + b"\n")
            return True
    return False


def _read_line(connection: socket.socket, most: int) -> bytes:
    text = b""
    while len(text) < most and not text.endswith(b"\n"):
        part = connection.recv(most - len(text))
        if not part:
            break
        text += part
    return text.rstrip(b"\n")


def in_background(ports: list[Port], token: str, seconds: float) -> None:
    """Serve in a process of its own, which the end of the caller and of its SSH session leaves alone."""
    door = _open_door(token)  # from now on, so that nobody can call ``end`` too early
    middle = os.fork()
    if middle:
        door.close()
        os.waitpid(middle, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            _serve(ports, token, seconds, door)
    finally:
        # nothing of Ansible's wrapper may run a second time
        os._exit(0)
