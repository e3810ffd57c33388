# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node processes without Ansible, for tests of the runtime alone: a domain, its workers and a client."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
RUNTIME = CHECKOUT / "roles" / "node" / "files"


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def syft_python() -> str:
    """The interpreter of the environment that has syft."""
    python = os.environ.get("PYGRID_TEST_PYTHON")
    if not python:
        raise RuntimeError("PYGRID_TEST_PYTHON must name the Python of an environment with syft; `make e2e` sets it")
    return python


def runtime_environment() -> dict[str, str]:
    """The environment in which syft_python() finds the runtime."""
    return {**os.environ, "PYTHONPATH": str(RUNTIME), "PYTHONUNBUFFERED": "1"}


def wait_for(what: str, condition: Any, seconds: float) -> Any:
    """Wait until `condition()` is true and return what it gave; fails with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class Node:
    """One node: its folder, and its process when it runs."""

    def __init__(self, root: Path, kind: str, name: str, **settings: Any) -> None:
        self.name, self.folder = name, root / name
        self.folder.mkdir(mode=0o700)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        file = self.folder / "identity.json"
        self.public = json.loads(run_node("identity", "create", "--kind", kind, "--file", file).stdout)
        self.identity = json.loads(file.read_text())
        self.settings = {
            "schema": 1, "kind": kind, "name": name, "identity_file": str(file), "node_directory": str(self.folder),
            "listen": {"host": "127.0.0.1", "port": self.port}, **settings,
        }  # fmt: skip
        self.write("settings.json", self.settings)

    def write(self, name: str, document: Any) -> None:
        """Replace a file of the node, so that nobody reads half of it."""
        new = self.folder / f"{name}.new"
        new.write_text(json.dumps(document))
        new.chmod(0o600)
        new.replace(self.folder / name)

    def start(self) -> None:
        with (self.folder / "output.log").open("ab") as output:
            command = [syft_python(), "-m", "pygrid_node", "run", str(self.folder / "settings.json")]
            self.process = subprocess.Popen(command, env=runtime_environment(), stdout=output, stderr=output)

    def get(self, path: str = "/healthz/ready") -> dict[str, Any]:
        """What the node answers; {} when it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)
        except (OSError, ValueError):
            return {}

    def control(self, path: str, document: Any = None, method: str = "POST") -> dict[str, Any]:
        """Ask on the control socket; {} when it is not there."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.folder / "run" / "control.sock"))
        except OSError:
            return {}
        body = json.dumps({} if document is None else document)
        connection.request(method, path, body=body, headers={"Content-Type": "application/json"})
        return json.load(connection.getresponse())

    def wait_ready(self, seconds: float = 120) -> None:
        wait_for(f"{self.name} ready, {self.log_tail()}", lambda: self.get().get("status") == "ready", seconds)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Signal the node and wait for its end; returns its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def log(self) -> str:
        return (self.folder / "output.log").read_text() if (self.folder / "output.log").exists() else ""

    def log_tail(self) -> str:
        return "log: " + " | ".join(self.log().splitlines()[-5:])


def run_node(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command of the runtime to its end."""
    command = [syft_python(), "-m", "pygrid_node", *map(str, arguments)]
    return subprocess.run(command, env=runtime_environment(), capture_output=True, text=True, check=True, **options)


def make_domain(root: Path, name: str = "alice") -> Node:
    """A domain without workers, not started."""
    queue = {"host": "127.0.0.1", "port": free_port(), "workers_file": str(root / name / "workers.json")}
    domain = Node(root, "domain", name, queue=queue)
    domain.write("workers.json", {})
    return domain


def make_worker(root: Path, domain: Node, name: str, listed: bool = True, **settings: Any) -> Node:
    """A worker of the domain, not started; on the domain's list unless told otherwise."""
    queue_url = f"tcp://127.0.0.1:{domain.settings['queue']['port']}"
    reference = {
        "name": domain.name, "uid": domain.public["uid"], "verify_key": domain.public["verify_key"],
        "queue_url": queue_url, "queue_public_key": domain.public["queue_public_key"],
    }  # fmt: skip
    defaults = {
        "database_url": f"sqlite:///{domain.folder}/data/node.db", "blob_directory": f"{domain.folder}/data/blobs",
        "domain": reference, "pool": "default-pool", "orphaned_jobs": "requeue",
    }  # fmt: skip
    worker = Node(root, "worker", name, **{**defaults, **settings})
    if listed:
        allow(domain, worker)
    return worker


def allow(domain: Node, *workers: Node) -> None:
    """Add workers to the domain's list."""
    known = json.loads((domain.folder / "workers.json").read_text())
    domain.write("workers.json", {**known, **{worker.name: worker.public["queue_public_key"] for worker in workers}})


class Client:
    """A data owner's client of a domain, in a process that has syft."""

    def __init__(self, domain: Node) -> None:
        script = Path(__file__).with_name("syft_client.py")
        self._log = (domain.folder / "client.log").open("ab")
        self._process = subprocess.Popen(
            [syft_python(), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._domain = domain

    def login(self) -> None:
        identity = self._domain.identity
        self("login", port=self._domain.port, email=identity["root_email"], password=identity["root_password"])

    def __call__(self, command: str, **options: Any) -> Any:
        """Run a command of syft_client.py; raises RuntimeError with what went wrong there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, options]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
