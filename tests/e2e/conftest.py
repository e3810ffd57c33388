# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real nodes and a real syft client for the end-to-end tests.

PYGRID_TEST_PYTHON names a Python that has syft and prometheus_client (a release's env/bin/python); pytest itself needs
neither. Every process started here is stopped by the fixture that started it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
RUNTIME = REPOSITORY / "roles" / "node" / "files"
START_SECONDS = 120
STOP_SECONDS = 15


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("node", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Node:
    """One node in a folder of its own; `start` runs it, `stop` ends it, and its data stay for the next start."""

    def __init__(self, home: Path, python: str, kind: str, name: str, **more: Any) -> None:
        self.home, self.python, self.kind, self.name = home / name, python, kind, name
        self.home.mkdir(mode=0o700)
        self.port = free_port()
        self.log_file = self.home / "node.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.identity_file = self.home / "identity.json"
        created = self.command("identity", "create", "--kind", kind, "--file", str(self.identity_file))
        self.public = json.loads(created.stdout)
        self.settings: dict[str, Any] = {
            "schema": 1, "kind": kind, "name": name, "identity_file": str(self.identity_file),
            "node_directory": str(self.home), "listen": {"host": "127.0.0.1", "port": self.port}, "log_level": "INFO",
        }  # fmt: skip
        if kind == "domain":
            workers_file = self.home / "workers.json"
            workers_file.touch(0o600)
            workers_file.write_text("{}")
            self.settings["queue"] = {"host": "127.0.0.1", "port": free_port(), "workers_file": str(workers_file)}
        self.settings.update(more)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def uid(self) -> str:
        return self.public["uid"]

    @property
    def secrets(self) -> dict[str, str]:
        return json.loads(self.identity_file.read_text())

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def command(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the runtime's command line to its end."""
        return subprocess.run(
            [self.python, "-m", "pygrid_node", *arguments],
            env=_environment(), cwd="/", text=True, capture_output=True, timeout=60, check=False, **options,
        )  # fmt: skip

    def start(self, wait: bool = True, environment: dict[str, str] | None = None) -> Node:
        """Start the node and wait until it is ready."""
        settings_file = self.home / "settings.json"
        settings_file.write_text(json.dumps(self.settings))
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "pygrid_node", "run", str(settings_file)],
                env={**_environment(), **(environment or {})}, cwd="/", stdout=log, stderr=log,
            )  # fmt: skip
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> dict[str, Any]:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.log[-4000:]}"
            with contextlib.suppress(OSError):
                status, document = self.control("GET", "/healthz/ready")
                if status == 200:
                    return document
            time.sleep(0.05)
        raise AssertionError(f"{self.name} is not ready after {START_SECONDS} s:\n{self.log[-4000:]}")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal and wait; returns the exit code and how long it took in seconds."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS)
        self.process = None
        return code, time.monotonic() - began

    def discard(self) -> None:
        """Make sure the process is gone, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)

    def control(self, method: str, path: str, body: Any = None, timeout: float = 30) -> tuple[int, Any]:
        """A request over the control socket."""
        return _request(_UnixConnection(self.home / "run" / "control.sock", timeout), method, path, body)

    def http(self, method: str, path: str, body: Any = None, timeout: float = 30) -> tuple[int, Any]:
        """A request over TCP."""
        return _request(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout), method, path, body)


def _request(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> tuple[int, Any]:
    with contextlib.closing(connection):
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read().decode()
    try:
        return response.status, json.loads(content)
    except ValueError:
        return response.status, content


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    return {**kept, "PYTHONPATH": str(RUNTIME)}


# Reads one JSON request a line, runs its code, answers with the JSON of what the code assigned to `result`.
_SHELL = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
requests = os.fdopen(os.dup(0)); sys.stdin = open(os.devnull); os.dup2(sys.stdin.fileno(), 0)
import syft as sy
names = {"sy": sy}
print(json.dumps({"result": sy.__version__}), file=answers, flush=True)
for line in requests:
    request = json.loads(line)
    names.update(request["values"]); names["result"] = None
    try:
        exec(request["code"], names)
        answer = {"result": names["result"]}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    print(json.dumps(answer, default=str), file=answers, flush=True)
"""


class ClientError(Exception):
    """An exception inside the client's code."""


class Client:
    """A process with the real syft client, kept for the whole session: importing syft takes seconds."""

    def __init__(self, python: str, home: Path) -> None:
        self._process = subprocess.Popen(
            [python, "-c", _SHELL],
            env={**_environment(), "HOME": str(home), "TMPDIR": str(home)}, cwd=home, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(home / "client.log").open("w"),
        )  # fmt: skip
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.syft_version: str | None = None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)

    def run(self, code: str, timeout: float = 120, **values: Any) -> Any:
        """Run Python code with `sy` and `values` as names; returns what it assigned to `result`, by way of JSON."""
        if self.syft_version is None:
            self.syft_version = json.loads(self._answers.get(timeout=120))["result"]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"code": code, "values": values}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._answers.get(timeout=timeout))
        if "error" in answer:
            raise ClientError(f"{answer['error']}\n{answer['trace']}")
        return answer["result"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait(STOP_SECONDS)


class Grid:
    """Makes nodes, and discards them all at the end."""

    def __init__(self, home: Path, python: str) -> None:
        self.home, self.python = home, python
        self.nodes: list[Node] = []

    def node(self, kind: str, name: str, **more: Any) -> Node:
        """A node of that kind that is not started yet; `more` are further settings."""
        node = Node(self.home, self.python, kind, name, **more)
        self.nodes.append(node)
        return node

    def worker(self, domain: Node, name: str, **more: Any) -> Node:
        """A worker of a domain, entered in the domain's allow-list, not started yet."""
        queue_settings = domain.settings["queue"]
        reference = {
            "name": domain.name, "uid": domain.uid, "verify_key": domain.public["verify_key"],
            "queue_url": f"tcp://127.0.0.1:{queue_settings['port']}",
            "queue_public_key": domain.public["queue_public_key"],
        }  # fmt: skip
        worker = self.node(
            "worker", name, domain=reference, pool=more.pop("pool", "default-pool"),
            database_url=f"sqlite:///{domain.home / 'data' / 'node.db'}",
            blob_directory=str(domain.home / "data" / "blobs"), **more,
        )  # fmt: skip
        allowed_file = Path(queue_settings["workers_file"])
        allowed = json.loads(allowed_file.read_text())
        allowed[name] = worker.public["queue_public_key"]
        replacement = allowed_file.with_suffix(".new")
        replacement.touch(0o600)
        replacement.write_text(json.dumps(allowed))
        replacement.replace(allowed_file)
        return worker

    def close(self) -> None:
        for node in self.nodes:
            node.discard()


@pytest.fixture(scope="session")
def syft_python() -> str:
    """The Python to run nodes and clients with."""
    python = os.environ.get("PYGRID_TEST_PYTHON")
    if not python:
        pytest.skip("PYGRID_TEST_PYTHON names no Python with syft")
    return python


@pytest.fixture(scope="session")
def client(syft_python: str) -> Iterator[Client]:
    """The session's syft client process."""
    home = Path(tempfile.mkdtemp(prefix="pygrid-client-"))
    client = Client(syft_python, home)
    yield client
    client.close()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def grid(syft_python: str) -> Iterator[Grid]:
    """A place for nodes; one for each test file."""
    home = Path(tempfile.mkdtemp(prefix="pygrid-nodes-"))
    grid = Grid(home, syft_python)
    yield grid
    grid.close()
    shutil.rmtree(home, ignore_errors=True)
