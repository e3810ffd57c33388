# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node does under systemd: its messages, its socket, its credentials, its journal. The test is systemd here."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.runtime import Node, make_domain, make_worker, runtime_environment, syft_python, wait_for

pytestmark = pytest.mark.thorough
# Passes descriptor 3 as systemd does, and lets the test hang the main thread for good by SIGUSR1.
LAUNCHER = """
import os, runpy, signal, sys, time
descriptor = int(sys.argv.pop(1))
if descriptor >= 0:
    os.dup2(descriptor, 3)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = "1"
os.environ["WATCHDOG_PID"] = str(os.getpid())
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
runpy.run_module("pygrid_node", run_name="__main__", alter_sys=True)
"""
WATCHDOG_SECONDS = 4.0


class Systemd:
    """What systemd does for one service."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.address = f"@pygrid-test-{os.getpid()}-{node.name}"
        self._messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._messages.bind(self.address.replace("@", "\0", 1))
        self._messages.setblocking(False)
        self.heard: list[tuple[float, str]] = []
        self.listener: socket.socket | None = None
        self.credentials = node.folder / "credentials"
        self.credentials.mkdir()
        identity = Path(node.settings["identity_file"])
        identity.rename(self.credentials / identity.name)

    def listen(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.node.port), backlog=1024)

    def start(self) -> None:
        log = (self.node.folder / "journal").open("ab")
        status = os.fstat(log.fileno())
        descriptor = self.listener.fileno() if self.listener else -1
        environment = {
            **runtime_environment(), "NOTIFY_SOCKET": self.address, "CREDENTIALS_DIRECTORY": str(self.credentials),
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6)), "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
        }  # fmt: skip
        command = [syft_python(), "-c", LAUNCHER, str(descriptor), "run", str(self.node.folder / "settings.json")]
        passed = () if self.listener is None else (descriptor,)
        with log:
            self.node.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, pass_fds=passed)

    def listen_to(self) -> list[str]:
        """Everything the node has said since its start."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append((time.monotonic(), self._messages.recv(4096).decode()))
        return [text for _time, text in self.heard]

    def wait_for(self, message: str, seconds: float = 90) -> None:
        wait_for(
            f"{self.node.name} says {message}, {self.journal()[-500:]}", lambda: message in self.listen_to(), seconds
        )

    def watchdog_is_fed_for(self, seconds: float) -> int:
        """How often the watchdog is fed in a time from now on."""
        before = self.listen_to().count("WATCHDOG=1")
        time.sleep(seconds)
        return self.listen_to().count("WATCHDOG=1") - before

    def journal(self) -> str:
        return (self.node.folder / "journal").read_text()

    def close(self) -> None:
        if self.node.process is not None:
            self.node.process.kill()
            self.node.process.wait()
            self.node.process = None
        self._messages.close()
        if self.listener is not None:
            self.listener.close()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """A network that is being started, with a request that came before it."""
    root = tmp_path_factory.mktemp("systemd")
    node = Node(root, "network", "net", notify=True, stop_with_parent=False, run_directory=str(root / "run"))
    systemd = Systemd(node)
    systemd.listen()
    systemd.start()
    yield systemd
    systemd.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """A worker that is being started, and whose domain is not."""
    root = tmp_path_factory.mktemp("worker")
    node = make_worker(root, make_domain(root), "alice-w1", notify=True, stop_with_parent=False, processes=2)
    systemd = Systemd(node)
    systemd.start()
    yield systemd
    systemd.close()


def ask(port: int, timeout: float) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("GET", "/api/v2/metadata")
        return connection.getresponse().status


def test_a_request_that_came_before_the_node_is_answered(network: Systemd, worker: Systemd) -> None:
    assert "READY=1" not in network.listen_to()
    assert ask(network.node.port, 90) == 200
    network.wait_for("READY=1")
    assert f"STATUS=serving on 127.0.0.1:{network.node.port}" in network.listen_to()
    assert (Path(network.node.settings["run_directory"]) / "control.sock").is_socket()


def test_a_worker_whose_domain_is_down_is_ready_and_says_what_it_waits_for(worker: Systemd) -> None:
    worker.wait_for("READY=1")
    wait_for("status", lambda: any("has not created" in text for text in worker.listen_to()), 15)
    assert worker.node.get()["status"] == "not ready"


def test_the_journal_gets_levels_and_nothing_twice(network: Systemd) -> None:
    lines = network.journal().splitlines()
    assert [line for line in lines if not re.match(r"<[2-7]>\S+: ", line)] == []
    assert any(line.startswith("<6>pygrid_node.server: ready to serve") for line in lines)
    assert not any(re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d", line) for line in lines)


def test_jobs_inherit_no_port(worker: Systemd) -> None:
    """A job that outlived its worker would keep the port from the next one."""
    launchers = _children(worker.node.process.pid)
    assert len(launchers) == 2
    listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line}
    held = {str(entry.readlink()) for pid in launchers for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert not held & {f"socket:[{inode}]" for inode in listening}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_clients_lose_no_request_over_restarts(network: Systemd) -> None:
    """Half of the clients keep their connection, as a proxy does; the others come anew each time."""
    stop = threading.Event()
    answered, failures, slowest = [0] * 8, [], [0.0] * 8

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", network.node.port, timeout=60)
        while not stop.is_set():
            begin = time.monotonic()
            try:
                connection.request("GET", "/api/v2/metadata")
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if (answer.status, body["name"]) != (200, "net"):
                    failures.append(f"{answer.status} {body}")
                if number % 2:
                    connection.close()
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")
                connection.close()
            answered[number] += 1
            slowest[number] = max(slowest[number], time.monotonic() - begin)
            time.sleep(0.02)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    try:
        for _unused in range(2):
            time.sleep(1)
            network.heard.clear()
            process: Any = network.node.process
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
            assert "STOPPING=1" in network.listen_to()
            network.start()
            network.wait_for("READY=1")
        time.sleep(1)
    finally:
        stop.set()
        for thread in clients:
            thread.join()
    print(f"{sum(answered)} requests, {len(failures)} failed, slowest {max(slowest):.1f} s")
    assert failures == []
    assert sum(answered) > 50


def test_a_node_whose_loop_hangs_feeds_no_watchdog(network: Systemd, worker: Systemd) -> None:
    for systemd in (network, worker):
        assert systemd.listen_to().count("WATCHDOG=1") > 0
    assert network.watchdog_is_fed_for(2 * WATCHDOG_SECONDS) in (3, 4, 5)  # at half of the time
    for systemd in (network, worker):
        systemd.node.process.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    for systemd in (network, worker):
        systemd.listen_to()
    assert network.watchdog_is_fed_for(WATCHDOG_SECONDS) == 0
    assert worker.watchdog_is_fed_for(0.1) == 0
    # The worker's other threads go on meanwhile, so it would look alive from outside.
    assert worker.node.get("/healthz/live") == {"status": "alive"}


def test_another_address_than_the_sockets_is_one_clear_line(tmp_path: Path) -> None:
    node = Node(tmp_path, "network", "elsewhere", notify=True)
    systemd = Systemd(node)
    try:
        with socket.create_server(("127.0.0.1", 0)) as other:
            systemd.listener = other
            port = other.getsockname()[1]
            systemd.start()
            assert node.process.wait(30) == 78
        assert systemd.journal() == (
            f"<3>pygrid_node: systemd's socket listens on 127.0.0.1:{port}, the settings say "
            f"127.0.0.1:{node.port}: make them equal\n"
        )
    finally:
        node.process = None
        systemd.close()
