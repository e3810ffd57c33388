# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain and a worker that runs several jobs at a time, on a real PostgreSQL over verified TLS."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from support.postgresql import PASSWORD, Postgresql, binaries
from support.runtime import Client, Node, make_domain, make_worker, runtime_environment, syft_python, wait_for

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="no PostgreSQL server is installed here"),
    pytest.mark.thorough,
]

DOMAIN_CONNECTIONS, WORKER_CONNECTIONS, PROCESSES = 20, 10, 3
# Takes the worker down with it: the job's parent is the launcher, whose parent is the worker.
KILLER = "os.kill(int(open(f'/proc/{os.getppid()}/stat').read().split()[3]), 9) or time.sleep(60)"

CONNECT = """
import sys, psycopg2
from pygrid_node import environment, identity, settings
read = settings.load_settings(sys.argv[1])
environment.prepare(read, identity.load_identity(read.identity_file, read.kind))
try:
    psycopg2.connect(read.database_url)
    print("connected")
except psycopg2.OperationalError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Postgresql]:
    cluster = Postgresql()
    try:
        yield cluster
    finally:
        cluster.close()


def database(postgresql: Postgresql, root: Path, user: str, name: str, connections: int) -> dict[str, Any]:
    """The settings of a node that connects to a database over TLS, with its URL in a file."""
    file = root / f"{user}.url"
    file.touch(0o600)
    file.write_text(postgresql.url(user, name))
    return {
        "database_url": None, "database_url_file": str(file), "database_tls": True,
        "trust_file": str(postgresql.authority), "database_connections": connections,
    }  # fmt: skip


def set_up(node: Node, **settings: Any) -> None:
    node.settings.update(settings)
    node.write("settings.json", node.settings)


@pytest.fixture(scope="module")
def grid(postgresql: Postgresql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A domain, and a worker with three slots; functions `fast` (0 s) and `slow` (8 s)."""
    root = tmp_path_factory.mktemp("grid")
    postgresql.make_database("alice", DOMAIN_CONNECTIONS)
    postgresql.make_member("alice-w1", "alice", WORKER_CONNECTIONS)
    domain = make_domain(root)
    set_up(domain, **database(postgresql, root, "alice", "alice", DOMAIN_CONNECTIONS))
    worker = make_worker(root, domain, "alice-w1", processes=PROCESSES)
    set_up(worker, **database(postgresql, root, "alice-w1", "alice", WORKER_CONNECTIONS))
    client = Client(domain)
    try:
        worker.start()
        domain.start()
        domain.wait_ready()
        worker.wait_ready()
        client.login()
        client("submit", name="fast", seconds=0)
        client("submit", name="slow", seconds=8)
        yield SimpleNamespace(root=root, domain=domain, worker=worker, client=client)
    finally:
        client.close()
        for node in (worker, domain):
            if node.process is not None:
                node.stop(signal.SIGKILL)


def slots(grid: SimpleNamespace) -> list[dict[str, Any]]:
    return grid.worker.get("/status").get("slots", [])


def seen_by_domain(grid: SimpleNamespace) -> list[tuple[Any, ...]]:
    workers = grid.domain.get("/status").get("workers", [])
    return [(worker["name"], worker["state"], worker["task"]) for worker in workers]


def metrics(node: Node) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def completed(states: dict[str, dict[str, str]]) -> bool:
    return bool(states) and all(state == {"status": "completed", "result": "42"} for state in states.values())


def test_everybody_speaks_tls_and_all_tables_are_the_domains(grid: SimpleNamespace, postgresql: Postgresql) -> None:
    assert completed(grid.client("wait", jobs=[grid.client("start", name="fast")], seconds=30))
    over_tls = postgresql.sql(
        "select usename, bool_and(ssl), bool_and(application_name = 'pygrid-' || usename) "
        "from pg_stat_activity join pg_stat_ssl using (pid) where client_addr is not null group by 1 order by 1"
    )
    assert over_tls == [["alice", "t", "t"], ["alice-w1", "t", "t"]]
    owners = postgresql.sql("select distinct tableowner from pg_tables where schemaname = 'public'", "alice")
    assert owners == [["alice"]]


def test_three_jobs_run_at_the_same_time_and_everybody_sees_it(grid: SimpleNamespace) -> None:
    names = ["alice-w1", "alice-w1-2", "alice-w1-3"]
    assert grid.domain.get()["workers"]["names"] == grid.client("workers") == names
    begin = time.monotonic()
    jobs = [grid.client("start", name="slow") for _unused in range(3)]
    wait_for("all slots are busy", lambda: all(slot["job"] for slot in slots(grid)), 15)
    assert sorted(slot["job"] for slot in slots(grid)) == sorted(jobs)
    assert {slot["task"] for slot in slots(grid)} == {"slow"}
    expected = [(name, "busy", "slow") for name in names]
    wait_for("the domain has heard of it", lambda: seen_by_domain(grid) == expected, 5)
    assert 'pygrid_worker_slots{state="busy"} 3.0' in metrics(grid.worker)
    assert 'pygrid_worker{pool="default-pool",state="busy",worker="alice-w1-3"} 1.0' in metrics(grid.domain)
    assert completed(grid.client("wait", jobs=jobs, seconds=30))
    assert time.monotonic() - begin < 20


def test_no_node_has_more_connections_than_it_may(grid: SimpleNamespace, postgresql: Postgresql) -> None:
    """The roles' own limits would make a node that wants more fail."""
    most: dict[str, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for name, number in postgresql.connections().items():
                most[name] = max(number, most.get(name, 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        report = grid.client("busy_api", clients=8, name="fast", jobs=6)
    finally:
        done.set()
        watcher.join()
    print(report, most)
    assert report["statuses"] == ["completed"] * 6
    assert report["errors"] == []
    assert 3 < most["alice"] <= DOMAIN_CONNECTIONS
    assert 3 < most["alice-w1"] <= WORKER_CONNECTIONS
    for node in (grid.domain, grid.worker):
        assert "too many connections" not in node.log()
        assert "QueuePool limit" not in node.log()


def test_a_restart_of_postgresql_loses_no_job(grid: SimpleNamespace, postgresql: Postgresql) -> None:
    jobs = [grid.client("start", name="slow") for _unused in range(3)]
    wait_for("all slots are busy", lambda: all(slot["job"] for slot in slots(grid)), 15)
    waiting = [grid.client("start", name="fast") for _unused in range(3)]
    postgresql.stop()
    try:
        for node in (grid.domain, grid.worker):
            reasons = wait_for(f"{node.name} notices", lambda node=node: node.get().get("reasons"), 10)
            assert reasons[0].startswith("database: connection to server"), reasons
            assert PASSWORD not in str(reasons)
        assert grid.domain.get()["status"] == "not ready"
        assert "pygrid_up 0.0" in metrics(grid.domain)
        time.sleep(6)  # all three jobs come to their end in this time
    finally:
        postgresql.start()
    begin = time.monotonic()
    assert completed(grid.client("wait", jobs=[*jobs, *waiting], seconds=60))
    grid.domain.wait_ready(15)
    grid.worker.wait_ready(15)
    print(f"recovered after {time.monotonic() - begin:.1f} s")


def test_an_api_call_waits_for_a_postgresql_that_is_being_restarted(
    grid: SimpleNamespace, postgresql: Postgresql
) -> None:
    restart = threading.Thread(target=postgresql.restart, args=(2.0,))
    restart.start()
    try:
        time.sleep(1.0)
        assert grid.client("workers") == ["alice-w1", "alice-w1-2", "alice-w1-3"]
    finally:
        restart.join()


def test_a_job_that_kills_its_worker_each_time_is_given_up(grid: SimpleNamespace) -> None:
    """Upstream would leave it `processing`; without a limit it would go round for ever."""
    grid.client("submit", name="killer", seconds=0, result=KILLER)
    job = grid.client("start", name="killer")
    for number in (1, 2, 3):
        assert grid.worker.process.wait(90) == -signal.SIGKILL, f"life {number}"
        grid.worker.start()
    state = grid.client("wait", jobs=[job], seconds=90)[job]
    assert state["status"] == "interrupted"
    assert "begun 3 times" in state["result"]


def test_fewer_processes_deregister_the_surplus_and_the_rest_works(grid: SimpleNamespace) -> None:
    grid.worker.wait_ready()
    grid.worker.stop(signal.SIGKILL)
    assert grid.client("workers") == ["alice-w1", "alice-w1-2", "alice-w1-3"]
    set_up(grid.worker, processes=1)
    grid.worker.start()
    grid.worker.wait_ready()
    assert grid.client("workers") == ["alice-w1"]
    wait_for("one is attached", lambda: grid.domain.get()["workers"]["names"] == ["alice-w1"], 30)
    assert completed(grid.client("wait", jobs=[grid.client("start", name="fast")], seconds=30))


def test_a_drain_waits_for_every_slot(grid: SimpleNamespace) -> None:
    assert grid.worker.stop() == 0
    set_up(grid.worker, processes=2)
    grid.worker.start()
    grid.worker.wait_ready()
    jobs = [grid.client("start", name="slow") for _unused in range(2)]
    wait_for("both are busy", lambda: all(slot["job"] for slot in slots(grid)), 15)
    assert grid.worker.stop() == 0
    assert completed({job: grid.client("status", job=job) for job in jobs})
    assert grid.client("workers") == []


def test_a_node_does_not_start_on_the_wrong_database(
    grid: SimpleNamespace, postgresql: Postgresql, tmp_path: Path
) -> None:
    """Whose certificate is from nobody it trusts is refused, and tried again: 75. Another identity's data: 78."""
    stranger, mallory = make_domain(tmp_path, "stranger"), make_domain(tmp_path, "mallory")
    for node in (stranger, mallory):
        set_up(node, **database(postgresql, tmp_path, "alice", "alice", DOMAIN_CONNECTIONS))
    set_up(stranger, trust_file=str(postgresql.stranger))
    expected = ((stranger, 75, "certificate verify failed"), (mallory, 78, "not usable with this identity"))
    try:
        for node in (stranger, mallory):
            node.start()
        for node, code, reason in expected:
            assert node.process is not None
            assert (node.process.wait(180), reason in node.log()) == (code, True), node.log_tail()
            node.process = None
            assert "Traceback" not in node.log()
            for form in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD, safe=" +")):
                assert form not in node.log()
    finally:
        for node in (stranger, mallory):
            if node.process is not None:
                node.stop(signal.SIGKILL)


def test_what_libpq_is_told(grid: SimpleNamespace, postgresql: Postgresql) -> None:
    """The same settings as a node's, without the seconds that importing syft takes."""
    right = {**grid.domain.settings, "database_url_file": None, "database_url": postgresql.url("alice", "alice")}
    by_number = {**right, "database_url": postgresql.url("alice", "alice", "127.0.0.1")}
    away = {**right, "database_url": right["database_url"].replace(f":{postgresql.port}/", ":1/")}
    answers = []
    for settings in (right, by_number, {**by_number, "database_tls": False}, away):
        grid.domain.write("other.json", settings)
        command = [syft_python(), "-c", CONNECT, str(grid.domain.folder / "other.json")]
        done = subprocess.run(command, env=runtime_environment(), capture_output=True, text=True, check=True)
        answers.append(done.stdout)
    assert answers[0] == "connected\n"
    assert 'does not match host name "127.0.0.1"' in answers[1]
    assert "no encryption" in answers[2]
    assert "Connection refused" in answers[3]
