# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of workers, pools and jobs in a real SQLite database that several connections use at once (faults 3 and 5)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("syft", reason="runs in the environment of a node: see tests/e2e/test_runtime_units.py")

from syft.server.credentials import SyftSigningKey
from syft.service.job.job_stash import Job, JobStash, JobStatus
from syft.service.queue.queue_stash import QueueItem, QueueStash, Status
from syft.service.worker.utils import create_default_image
from syft.service.worker.worker_image_stash import SyftWorkerImageStash
from syft.service.worker.worker_pool_service import SyftWorkerPoolService
from syft.store.db.sqlite import SQLiteDBConfig, SQLiteDBManager
from syft.store.linked_obj import LinkedObject
from syft.types.uid import UID

from pygrid_node.attempts import MOST_ATTEMPTS, Attempts
from pygrid_node.database import missing_schema, tune
from pygrid_node.ledger import Ledger
from pygrid_node.registry import Registry

KEY = SyftSigningKey.generate().verify_key
SERVER = UID()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Opens the same database anew, as another process would; its tables and the default image are there."""
    tune()
    opened = []

    def open_again() -> Any:
        config = SQLiteDBConfig(path=tmp_path, filename="node.db")
        opened.append(SQLiteDBManager(config=config, server_uid=SERVER, root_verify_key=KEY))
        return opened[-1]

    database = open_again()
    Registry(database)
    Ledger(database)
    database.init_tables()
    create_default_image(KEY, SyftWorkerImageStash(store=database), tag="0.9").unwrap()
    yield open_again
    for database in opened:
        database.engine.dispose()


@pytest.fixture
def jobs(connect: Callable[[], Any]) -> SimpleNamespace:
    """A ledger, and `add(job status, item status)` that makes a job and gives its id and its item's id."""
    database = connect()
    registry = Registry(database)
    registry.register("w0", UID(), "default-pool")
    pool = LinkedObject.from_obj(registry.pools()[0], service_type=SyftWorkerPoolService, server_uid=SERVER)
    job_stash, item_stash = JobStash(store=database), QueueStash(store=database)

    def add(job_status: str = "created", item_status: str = "created", worker: UID | None = None) -> Any:
        job = Job(
            id=UID(), server_uid=SERVER, syft_client_verify_key=KEY, syft_server_location=SERVER,
            status=JobStatus(job_status), job_worker_id=worker, resolved=job_status in ("completed", "errored"),
        )  # fmt: skip
        item = QueueItem(
            id=UID(), server_uid=SERVER, syft_client_verify_key=KEY, syft_server_location=SERVER, method="m",
            service="s", args=[], kwargs={}, job_id=job.id, worker_pool=pool, status=Status(item_status),
        )  # fmt: skip
        job_stash.set(KEY, job).unwrap()
        item_stash.set(KEY, item).unwrap()
        return SimpleNamespace(job=job.id, item=item.id)

    def state(made: Any) -> tuple[str, str]:
        job = job_stash.get_by_uid(KEY, made.job).unwrap()
        return job.status.value, item_stash.get_by_uid(KEY, made.item).unwrap().status.value

    def item_of(made: Any) -> Any:
        return item_stash.get_by_uid(KEY, made.item).unwrap()

    ledger = Ledger(database)
    ledger.prepare()
    return SimpleNamespace(ledger=ledger, add=add, state=state, item_of=item_of)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run all at the same moment, each in a thread; returns what they returned, and fails if one raised."""
    barrier, results = threading.Barrier(len(calls)), [None] * len(calls)
    errors: list[Exception] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = calls[number]()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return results


def members(registry: Registry) -> dict[str, int]:
    pools = registry.pools()
    assert all(pool.max_count == len(pool.worker_list) for pool in pools)
    return {pool.name: len(pool.worker_list) for pool in pools}


def test_workers_that_register_at_the_same_moment_are_all_in_the_pool(connect: Callable[[], Any]) -> None:
    """Fault 5: without the lock each reads the pool before the others have written it."""
    registries = [Registry(connect()) for _unused in range(6)]
    together(
        *(
            lambda registry=registry, number=number: registry.register(f"w{number}", UID(), "default-pool")
            for number, registry in enumerate(registries)
        )
    )
    assert members(registries[0]) == {"default-pool": 6}
    assert sorted(worker.name for worker in registries[0].workers()) == [f"w{number}" for number in range(6)]


def test_registering_again_changes_nothing(connect: Callable[[], Any]) -> None:
    registry, uid = Registry(connect()), UID()
    for _unused in range(3):
        registry.register("w1", uid, "default-pool")
    assert members(registry) == {"default-pool": 1}
    assert registry.name_of(uid) == "w1"


def test_a_worker_moves_to_another_pool(connect: Callable[[], Any]) -> None:
    registry, uid = Registry(connect()), UID()
    registry.register("w1", uid, "default-pool")
    registry.register("w1", uid, "gpu")
    assert members(registry) == {"default-pool": 0, "gpu": 1}


def test_a_new_identity_replaces_the_former_one_of_that_name(connect: Callable[[], Any]) -> None:
    registry, former, new = Registry(connect()), UID(), UID()
    registry.register("w1", former, "default-pool")
    registry.register("w1", new, "default-pool")
    assert members(registry) == {"default-pool": 1}
    assert [worker.id for worker in registry.workers()] == [new]


def test_deregistering_is_complete_and_may_be_repeated(connect: Callable[[], Any]) -> None:
    registry, uid = Registry(connect()), UID()
    registry.register("w1", uid, "default-pool")
    registry.deregister(uid)
    registry.deregister(uid)
    assert members(registry) == {"default-pool": 0}
    assert registry.workers() == []


def test_looking_for_a_database_creates_none(tmp_path: Path) -> None:
    file = tmp_path / "data" / "node.db"
    assert "has not created" in str(missing_schema(file))
    assert not file.parent.exists()
    file.parent.mkdir()
    sqlite3.connect(file).close()
    assert "tables" in str(missing_schema(file))


def test_a_made_database_is_recognised(connect: Callable[[], Any], tmp_path: Path) -> None:
    assert missing_schema(tmp_path / "node.db") is None


def test_every_connection_waits_for_a_lock_and_none_for_a_pool(connect: Callable[[], Any]) -> None:
    """Upstream sets this on its first connection only, and has 15 of them for 40 threads."""
    engine = connect().engine
    connections = [engine.connect() for _unused in range(30)]
    for connection in connections:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        connection.close()


def test_a_job_is_claimed_by_one_worker_only(connect: Callable[[], Any], jobs: SimpleNamespace) -> None:
    made, ledgers = jobs.add(item_status="processing"), [Ledger(connect()) for _unused in range(5)]
    claims = together(*(lambda ledger=ledger: ledger.claim(made.job, UID()) for ledger in ledgers))
    assert len([claim for claim in claims if claim is not None]) == 1
    assert jobs.state(made) == ("processing", "processing")


@pytest.mark.parametrize(("policy", "state"), [("requeue", "created"), ("interrupt", "interrupted")])
def test_a_lost_worker_releases_its_jobs_and_no_others(jobs: SimpleNamespace, policy: str, state: str) -> None:
    lost, other = UID(), UID()
    mine, killed = jobs.add("processing", "processing", lost), jobs.add("terminating", "processing", lost)
    theirs, done = jobs.add("processing", "processing", other), jobs.add("completed", "completed", lost)
    assert jobs.ledger.release_worker(lost, policy) == 2
    assert jobs.state(mine) == (state, state)
    assert jobs.state(killed) == ("interrupted", "interrupted")
    assert jobs.state(theirs) == ("processing", "processing")
    assert jobs.state(done) == ("completed", "completed")


def test_a_job_that_takes_its_worker_down_each_time_is_given_up(
    jobs: SimpleNamespace, connect: Callable[[], Any]
) -> None:
    made, other = jobs.add(item_status="processing"), jobs.add(item_status="processing")
    for number in range(1, MOST_ATTEMPTS + 1):
        worker, ledger = UID(), Ledger(connect())  # as the next process would: the number is in the database
        assert ledger.claim(made.job, worker) is not None
        jobs.ledger.take(jobs.item_of(made))
        assert ledger.release_worker(worker, "requeue") == 1
        assert jobs.state(made)[0] == ("created" if number < MOST_ATTEMPTS else "interrupted")
    assert jobs.state(made)[1] == "interrupted"
    assert "begun 3 times" in jobs.ledger.job(made.job).result.message
    worker = UID()
    jobs.ledger.claim(other.job, worker)
    jobs.ledger.release_worker(worker, "requeue")
    assert jobs.state(other) == ("created", "created")


def test_a_job_that_lost_its_database_is_run_again_and_its_worker_goes_on(jobs: SimpleNamespace) -> None:
    made, killed = jobs.add(item_status="processing"), jobs.add("terminating", "processing", UID())
    jobs.ledger.claim(made.job, UID())
    assert jobs.ledger.release_job(made.job, "requeue") == "created"
    assert jobs.state(made) == ("created", "created")
    assert jobs.ledger.release_job(killed.job, "requeue") == "interrupted"
    assert jobs.ledger.release_job(killed.job, "requeue") == "interrupted"


def test_a_worker_runs_jobs_where_a_domain_of_a_former_release_counts_nothing(connect: Callable[[], Any]) -> None:
    attempts = Attempts(connect().engine)
    assert (attempts.begin("a" * 32), attempts.number("a" * 32)) == (0, 0)
    attempts.forget("a" * 32)
    attempts.create()
    assert [attempts.begin("a" * 32), attempts.begin("a" * 32), attempts.begin("b" * 32)] == [1, 2, 1]
    attempts.forget("a" * 32)
    assert (attempts.number("a" * 32), attempts.number("b" * 32)) == (0, 1)


def test_what_reached_no_worker_waits_again(jobs: SimpleNamespace) -> None:
    """Fault 3: upstream never looks at these again after a restart."""
    undelivered, on_its_way = jobs.add("created", "processing"), jobs.add("created", "processing")
    running, done = jobs.add("processing", "processing", UID()), jobs.add("completed", "processing")
    assert jobs.ledger.requeue_undelivered({on_its_way.item.no_dash}) == 1
    assert jobs.state(undelivered) == ("created", "created")
    assert jobs.state(on_its_way) == ("created", "processing")
    assert jobs.state(running) == ("processing", "processing")
    assert jobs.state(done) == ("completed", "completed")


@pytest.mark.parametrize(
    ("left", "status"),
    [("processing", "errored"), ("terminating", "interrupted"), ("completed", "completed"), ("errored", "errored")],
)
def test_a_job_comes_to_an_end_whatever_its_process_left(jobs: SimpleNamespace, left: str, status: str) -> None:
    made = jobs.add(left, "processing", UID())
    assert jobs.ledger.finish(made.job, "ended by SIGKILL") == status
    assert jobs.state(made) == (status, status)
    if left == "processing":
        assert jobs.ledger.job(made.job).result.message == "ended by SIGKILL"
