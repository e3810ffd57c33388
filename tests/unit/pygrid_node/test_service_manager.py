# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd is told, over real sockets; what it passes is tested with real processes, test_runtime_systemd.py."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pygrid_node.errors import NodeError
from pygrid_node.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The other end of NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@pygrid-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    """Everything that arrived by now."""
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_life_of_a_node(systemd: socket.socket) -> None:
    manager = ServiceManager(True, parts=("http",))
    assert "NOTIFY_SOCKET" not in os.environ
    for _unused in range(2):
        manager.status("waiting for\nits domain")
    manager.ready()
    manager.alive("http")
    manager.stopping()
    assert heard(systemd) == ["STATUS=waiting for its domain", "READY=1", "STOPPING=1"]


def test_the_watchdog_is_fed_when_all_parts_go_on(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    manager = ServiceManager(True, parts=("http", "main"))
    for _unused in range(3):
        manager.alive("http")
    assert heard(systemd) == []
    manager.alive("main")
    assert heard(systemd) == ["WATCHDOG=1"]
    manager.alive("http")
    manager.alive("main")
    assert heard(systemd) == []  # not before half of the time
    time.sleep(0.21)
    manager.alive("main")
    assert heard(systemd) == ["WATCHDOG=1"]
    time.sleep(0.21)
    manager.alive("main")
    assert heard(systemd) == []  # http hangs


def test_the_watchdog_of_another_process(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    ServiceManager(True, parts=("main",)).alive("main")
    assert heard(systemd) == []


def test_a_node_that_is_not_to_speak_is_silent(systemd: socket.socket) -> None:
    manager = ServiceManager(False, parts=("main",))
    manager.ready()
    manager.alive("main")
    manager.stopping()
    assert heard(systemd) == []
    assert "NOTIFY_SOCKET" not in os.environ


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    manager = ServiceManager(True, parts=("main",))
    manager.ready()
    manager.stopping()
    assert manager.passed == []


def test_a_systemd_that_went_away_stops_nobody(systemd: socket.socket) -> None:
    manager = ServiceManager(True, parts=("main",))
    systemd.close()
    manager.ready()
    manager.stopping()


@pytest.mark.parametrize("address", ["vsock:2:1", "relative"])
def test_an_address_of_another_kind(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(NodeError, match="neither a path nor an abstract socket"):
        ServiceManager(True, parts=())


def test_sockets_for_another_process_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert ServiceManager(True, parts=()).passed == []
