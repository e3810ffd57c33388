# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a domain and its workers promise about jobs, with real processes and a real client (faults 1, 2, 3, 9, 11)."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.runtime import (
    Client,
    Node,
    allow,
    free_port,
    make_domain,
    make_worker,
    runtime_environment,
    syft_python,
    wait_for,
)

ROGUE = """
import sys, zmq
url, mode, server_key = sys.argv[1:]
socket = zmq.Context().socket(zmq.DEALER)
if mode == "own key":
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = server_key.encode()
socket.linger = 0
socket.connect(url)
uid = "0" * 31 + "1"
for _ in range(4):
    try:
        socket.send_multipart([b"", b"MDPW01", b"0x01", b"default-pool", uid.encode(), b"{}"], zmq.NOBLOCK)
    except zmq.Again:
        pass  # refused: the connection is gone
    if socket.poll(1000):
        print(len(socket.recv_multipart()))
print("silence")
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A domain with two workers, and a client that is logged in; functions `fast` (0 s) and `slow` (4 s)."""
    root = tmp_path_factory.mktemp("grid")
    domain = make_domain(root)
    workers = [make_worker(root, domain, f"alice-w{number}") for number in (1, 2)]
    client = Client(domain)
    nodes = [domain, *workers]
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        client.login()
        client("submit", name="fast", seconds=0)
        client("submit", name="slow", seconds=4)
        yield SimpleNamespace(root=root, domain=domain, workers=workers, client=client)
    finally:
        client.close()
        for node in reversed(nodes):
            if node.process is not None:
                node.stop(signal.SIGKILL)


def attached(domain: Node) -> list[str]:
    return domain.get().get("workers", {}).get("names", [])


def wait_attached(grid: SimpleNamespace, *names: str, seconds: float = 30) -> None:
    wait_for(f"attached: {names}", lambda: attached(grid.domain) == sorted(names), seconds)


def completed(states: dict[str, dict[str, str]]) -> bool:
    return bool(states) and all(state == {"status": "completed", "result": "42"} for state in states.values())


@pytest.fixture(autouse=True)
def whole(grid: SimpleNamespace) -> Iterator[None]:
    """After a test all nodes run and are listed, so that a failure stays one failure."""
    yield
    grid.domain.write("workers.json", {worker.name: worker.public["queue_public_key"] for worker in grid.workers})
    for node in (grid.domain, *grid.workers):
        if node.process is None or node.process.poll() is not None:
            node.start()
            node.wait_ready()
    wait_attached(grid, *(worker.name for worker in grid.workers))


def worker_of(grid: SimpleNamespace, job: str) -> Node:
    """The worker that runs a job now."""
    return wait_for(
        "a worker is busy with the job",
        lambda: next((worker for worker in grid.workers if worker.get("/status").get("job") == job), None),
        15,
    )


def test_a_job_takes_little_longer_than_its_function(grid: SimpleNamespace) -> None:
    """Upstream keeps a worker for 5 to 8 seconds per job, whatever it does."""
    begin = time.monotonic()
    for _unused in range(4):
        assert completed(grid.client("wait", jobs=[grid.client("start", name="fast")], seconds=20))
    assert time.monotonic() - begin < 12


def test_two_workers_and_a_busy_api_share_sqlite(grid: SimpleNamespace) -> None:
    report = grid.client("busy_api", clients=4, name="fast", jobs=10)
    print(report)
    assert report["statuses"] == ["completed"] * 10
    assert report["errors"] == []
    assert report["slowest"] < 10
    assert "locked" not in "".join(node.log() for node in (grid.domain, *grid.workers))


def test_user_code_finds_no_secret_in_its_environment(grid: SimpleNamespace) -> None:
    grid.client("submit", name="look", seconds=0, result="sorted(os.environ.items())")
    (state,) = grid.client("wait", jobs=[grid.client("start", name="look")], seconds=20).values()
    assert state["status"] == "completed"
    for secret in ("private_key", "root_password", "queue_secret_key"):
        assert grid.domain.identity[secret] not in state["result"]
    for worker in grid.workers:
        assert worker.identity["queue_secret_key"] not in state["result"]


@pytest.mark.parametrize("mode", ["no key", "own key"])
def test_a_stranger_gets_nothing_from_the_queue(grid: SimpleNamespace, mode: str) -> None:
    """Fault 2: every message of the queue carries the domain's private key."""
    url = f"tcp://127.0.0.1:{grid.domain.settings['queue']['port']}"
    key = grid.domain.public["queue_public_key"]
    rogue = subprocess.Popen(
        [syft_python(), "-c", ROGUE, url, mode, key], stdout=subprocess.PIPE, text=True, env=runtime_environment()
    )
    jobs = [grid.client("start", name="fast") for _unused in range(3)]
    assert rogue.communicate(timeout=30)[0] == "silence\n"
    assert completed(grid.client("wait", jobs=jobs, seconds=20))


def test_the_list_of_workers_is_read_again(grid: SimpleNamespace) -> None:
    first, second = grid.workers
    grid.domain.write("workers.json", {first.name: first.public["queue_public_key"]})
    wait_attached(grid, first.name, seconds=10)
    jobs = [grid.client("start", name="fast") for _unused in range(3)]
    assert completed(grid.client("wait", jobs=jobs, seconds=20))
    wait_for("the second hears nothing more", lambda: second.get().get("attached") is False, 20)
    allow(grid.domain, second)
    wait_attached(grid, first.name, second.name, seconds=20)


def test_a_job_given_out_just_after_a_workers_death_is_done_by_another(grid: SimpleNamespace) -> None:
    """Fault 3: upstream hands it to the dead worker, for a minute after its death."""
    first, second = grid.workers
    first.stop(signal.SIGKILL)
    begin = time.monotonic()
    jobs = [grid.client("start", name="fast") for _unused in range(2)]
    assert completed(grid.client("wait", jobs=jobs, seconds=20))
    assert time.monotonic() - begin < 20
    first.start()
    first.wait_ready()
    wait_attached(grid, first.name, second.name)


def test_the_job_of_a_killed_worker_is_done_after_its_restart(grid: SimpleNamespace) -> None:
    """Fault 3: upstream leaves it `processing` for ever."""
    job = grid.client("start", name="slow")
    worker = worker_of(grid, job)
    worker.stop(signal.SIGKILL)
    worker.start()
    assert completed(grid.client("wait", jobs=[job], seconds=45))
    worker.wait_ready()


def test_the_job_of_a_lost_worker_is_done_by_another(grid: SimpleNamespace) -> None:
    job = grid.client("start", name="slow")
    worker = worker_of(grid, job)
    worker.stop(signal.SIGKILL)
    assert completed(grid.client("wait", jobs=[job], seconds=45))
    worker.start()
    worker.wait_ready()
    wait_attached(grid, *(worker.name for worker in grid.workers))


def test_jobs_survive_a_restart_of_their_domain(grid: SimpleNamespace) -> None:
    """Fault 1: upstream's jobs stay `created`; here one runs and three wait while the domain is killed."""
    jobs = [grid.client("start", name="slow") for _unused in range(4)]
    worker_of(grid, jobs[0])
    grid.domain.stop(signal.SIGKILL)
    grid.domain.start()
    grid.domain.wait_ready()
    assert completed(grid.client("wait", jobs=jobs, seconds=45))
    wait_attached(grid, *(worker.name for worker in grid.workers))


def test_job_calls_of_the_api_work(grid: SimpleNamespace) -> None:
    """Fault 11: `get_active` and `kill` raise on stock servers."""
    grid.client("submit", name="endless", seconds=600)
    job = grid.client("start", name="endless")
    worker_of(grid, job)
    assert job in grid.client("active")
    begin = time.monotonic()
    assert "killed" in grid.client("kill", job=job)
    assert time.monotonic() - begin < 10
    assert grid.client("status", job=job)["status"] == "interrupted"
    assert job not in grid.client("active")
    assert completed(grid.client("wait", jobs=[grid.client("start", name="fast")], seconds=20))


@pytest.mark.parametrize("force", [False, True])
def test_a_worker_is_not_deleted_behind_its_back(grid: SimpleNamespace, force: bool) -> None:
    """Fault 11: on stock servers the row goes and the process comes back as a ghost."""
    with pytest.raises(RuntimeError, match="scale playbook"):
        grid.client("delete_worker", name="alice-w1", force=force)
    time.sleep(3)
    assert grid.client("workers") == ["alice-w1", "alice-w2"]
    assert attached(grid.domain) == ["alice-w1", "alice-w2"]


def test_a_worker_stops_though_its_domain_never_answered(grid: SimpleNamespace) -> None:
    """Fault 9: upstream ignores SIGTERM for more than ten seconds."""
    worker = make_worker(grid.root, grid.domain, "alice-w9", listed=False)
    reference = {**worker.settings["domain"], "queue_url": f"tcp://127.0.0.1:{free_port()}"}
    worker.write("settings.json", {**worker.settings, "domain": reference})
    worker.start()
    try:
        wait_for("registered", lambda: "alice-w9" in grid.client("workers"), 30)
        assert worker.get()["reasons"] == ["the domain's queue does not answer"]
        begin = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - begin < 3
        assert "alice-w9" not in grid.client("workers")
    finally:
        if worker.process is not None:
            worker.stop(signal.SIGKILL)


def test_a_drained_worker_finishes_its_job_and_leaves(grid: SimpleNamespace) -> None:
    job = grid.client("start", name="slow")
    worker = worker_of(grid, job)
    assert worker.control("/control/drain")["status"] == "draining"
    wait_for("draining", lambda: worker.get()["state"] == "draining", 3)
    other = [grid.client("start", name="fast") for _unused in range(2)]
    assert worker.process is not None
    assert worker.process.wait(15) == 0
    worker.process = None
    assert grid.client("status", job=job) == {"status": "completed", "result": "42"}
    assert worker.name not in grid.client("workers")
    assert completed(grid.client("wait", jobs=other, seconds=20))


def test_a_worker_waits_for_its_domain_and_creates_no_database(tmp_path: Path) -> None:
    domain = make_domain(tmp_path)
    worker = make_worker(tmp_path, domain, "alice-w1")
    worker.start()
    try:
        wait_for("waiting", lambda: "has not created" in str(worker.get().get("reasons")), 30)
        assert not (domain.folder / "data").exists()
        begin = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - begin < 3
    finally:
        if worker.process is not None:
            worker.stop(signal.SIGKILL)
