# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real listeners and real visitors on loopback."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils.listeners import holders, listening_ports
from ansible_collections.openmined.pygrid.plugins.module_utils.reachability_listener import (
    Port,
    end,
    in_background,
    listen,
    serve,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.reachability_visitor import (
    _result_of,
    visit,
    visit_all,
)

TOKEN = "0" * 64
HERE = (ipaddress.ip_network("127.0.0.0/8"),)
ELSEWHERE = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def gone(port: int) -> bool:
    """Whether nothing listens any more, waited for."""
    until = time.monotonic() + 5
    while port in listening_ports() and time.monotonic() < until:
        time.sleep(0.02)
    return port not in listening_ports()


@pytest.fixture
def stranger() -> Iterator[int]:
    """A port on which another program answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _address = server.accept()
                except OSError:
                    return
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_visitors_are_told_where_they_come_from_and_the_listener_ends() -> None:
    ports = [Port(free_port(), HERE, 2), Port(free_port(), ELSEWHERE, 1)]
    assert listen(ports) == {}
    in_background(ports, TOKEN, 20)
    targets = [{"address": "127.0.0.1", "port": port.number, "token": TOKEN} for port in (*ports, ports[0])]
    for port in ports:
        port.server.close()
    visits = visit_all(targets, 3)
    assert [(one["result"], one["seen_from"], one["let_in"]) for one in visits] == [
        ("ok", "127.0.0.1", True),
        ("ok", "127.0.0.1", False),
        ("ok", "127.0.0.1", True),
    ]
    assert gone(ports[0].number)
    assert gone(ports[1].number)


def test_a_listener_ends_when_its_time_is_over() -> None:
    ports = [Port(free_port(), HERE, 1)]
    listen(ports)
    started = time.monotonic()
    serve(ports, TOKEN, 0.3)
    assert time.monotonic() - started < 3


def test_a_listener_ends_when_it_is_told_to() -> None:
    ports = [Port(free_port(), HERE, 1)]
    listen(ports)
    in_background(ports, TOKEN, 60)
    ports[0].server.close()
    end("1" * 64)
    assert visit("127.0.0.1", ports[0].number, None, 3).result == "open"
    end(TOKEN)
    assert gone(ports[0].number)
    end(TOKEN)


def test_only_who_knows_the_token_counts_as_a_visitor() -> None:
    ports = [Port(free_port(), HERE, 1)]
    listen(ports)
    in_background(ports, TOKEN, 20)
    ports[0].server.close()
    assert visit("127.0.0.1", ports[0].number, "1" * 64, 3).result == "other"
    assert visit("127.0.0.1", ports[0].number, TOKEN, 3).result == "ok"
    assert gone(ports[0].number)


def test_a_port_in_use_is_left_alone_and_its_holder_named(stranger: int) -> None:
    ports = [Port(stranger, HERE, 1)]
    taken = listen(ports)
    assert ports[0].server is None
    assert f"(process {os.getpid()}" in taken[stranger]
    assert [holder.pid for holder in holders(listening_ports()[stranger])] == [os.getpid()]


def test_another_program_is_told_apart(stranger: int) -> None:
    assert visit("127.0.0.1", stranger, TOKEN, 3).result == "other"
    assert visit("127.0.0.1", stranger, None, 3).result == "open"


def test_nothing_listens() -> None:
    assert visit("127.0.0.1", free_port(), TOKEN, 3).result == "refused"


def test_a_name_without_address() -> None:
    assert visit("no-such-name.invalid", 443, None, 3).result == "no address"


def test_a_listener_that_never_takes_connections_is_filtered() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        # a full queue drops what comes next, as a firewall does
        fillers = [socket.socket() for _unused in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        assert visit(*address, None, 0.5).result == "filtered"
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize(
    ("code", "at_once", "result"),
    [
        (errno.EHOSTUNREACH, True, "rejected"),
        (errno.EHOSTUNREACH, False, "no route"),
        (errno.EACCES, True, "rejected"),
        (errno.ENETUNREACH, True, "no route"),
        (errno.ETIMEDOUT, False, "filtered"),
    ],
)
def test_ways_not_to_get_through(code: int, at_once: bool, result: str) -> None:
    assert _result_of(OSError(code, ""), at_once) == result


def test_nothing_to_visit() -> None:
    assert visit_all([], 3) == []
