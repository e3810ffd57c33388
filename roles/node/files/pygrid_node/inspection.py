# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running network or domain knows about itself: the source of ready, status and metrics.

Counts are made by the database, and no stored object is decoded for them: jobs may hold large results.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from syft.service.job.job_stash import JobStatus
from syft.store.db.schema import PostgresBase, SQLiteBase
from syft.types.uid import UID

from . import queue_producer
from .database import Health
from .peers import PeerMonitor, PeerState, uid_text
from .settings import MOST_PROCESSES, Settings
from .slots import slot_uid
from .trial import Trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerState:
    """One registered worker of a domain; `task` is the name of the function it runs, `busy_seconds` since when."""

    name: str
    uid: str
    pool: str
    state: str
    job: str | None = None
    task: str | None = None
    busy_seconds: float | None = None


class Inspection:
    """Reads a running server.

    Args:
        server: the running network or domain.
        settings: its settings.
        monitor: its peer monitor.
        trial: whether it lets nobody in yet.
    """

    def __init__(self, server: Any, settings: Settings, monitor: PeerMonitor, trial: Trial) -> None:
        self._server = server
        self._settings = settings
        self._monitor, self._trial = monitor, trial
        base = SQLiteBase if server.db.engine.dialect.name == "sqlite" else PostgresBase
        self._tables = base.metadata.tables
        self._health = Health(server.db.engine)
        self.stopping = False

    def ready(self) -> dict[str, Any]:
        """The part of /healthz/ready that networks and domains share; costs one `select 1`."""
        reasons = ["stopping"] if self.stopping else []
        problem = self.database_problem()
        if problem:
            reasons.append(problem)
        document: dict[str, Any] = {"reasons": reasons, "database": {"reachable": not problem}, "trial": self._trial.on}
        if self._settings.kind == "network":
            document["peers"] = [state.brief() for state in self._monitor.states()]
        else:
            names = self.attached_workers()
            document["workers"] = {"attached": len(names), "names": names}
        return document

    def status(self) -> dict[str, Any]:
        """The part of /status beyond ready; empty while the database does not answer."""
        if self.database_problem():
            return {}
        try:
            jobs = self.jobs_by_status()
            document: dict[str, Any] = {
                "jobs": jobs,
                "queue": {"backlog": jobs["created"]},
                "datasets": self.count("Dataset"),
                "users": self.count("User"),
                "peers": [state.full() for state in self._monitor.states()],
            }
            if self._settings.kind == "domain":
                document["workers"] = [vars(state) for state in self.workers()]
        except SQLAlchemyError as error:
            logger.warning("status: %s", type(error).__name__)
            return {}
        return document

    def members(self) -> dict[str, Any]:
        """The node itself, and who belongs to it: a Network's Domains, a Domain's Workers. Empty without a database."""
        if self.database_problem():
            return {}
        if self._settings.kind == "network":
            found = [state.full() for state in self._monitor.states() if state.kind == "domain"]
        else:
            workers = self.workers()
            # A worker of several processes is registered as often; it is one node.
            further = {slot_uid(one.uid, number) for one in workers for number in range(2, MOST_PROCESSES + 1)}
            found = [
                {"name": worker.name, "uid": worker.uid, "kind": "worker", "url": "", "status": worker.state}
                for worker in workers
                if worker.uid not in further
            ]
        return {"kind": self._settings.kind, "name": self._settings.name, "members": found}

    def peers(self) -> list[PeerState]:
        """The peers as last seen."""
        return self._monitor.states()

    def database_problem(self) -> str:
        """Why the database cannot be used now, "" when it can; never waits for long."""
        return self._health.problem()

    def count(self, table: str) -> int:
        """Number of rows of a table."""
        return self._rows(sqlalchemy.select(sqlalchemy.func.count()).select_from(self._tables[table]))[0][0]

    def jobs_by_status(self) -> dict[str, int]:
        """Number of jobs in each status, zeros included."""
        column = self._tables["JobItem"].c.fields["status"].as_string()
        rows = self._rows(sqlalchemy.select(column, sqlalchemy.func.count()).group_by(column))
        counts = {status.value: 0 for status in JobStatus}
        for name, number in rows:
            counts[JobStatus[name].value] = number
        return counts

    def attached_workers(self) -> list[str]:
        """Names of the workers that are connected to the queue now; no database."""
        return sorted(worker["name"] for worker in queue_producer.attached_workers(self._server))

    def workers(self) -> list[WorkerState]:
        """The workers that are connected, and what each does, and those that are registered but not connected."""
        states = {
            worker["uid"]: WorkerState(
                name=worker["name"],
                uid=worker["uid"],
                pool=worker["pool"],
                state=worker["state"],
                job=worker["job"],
                task=self._task_name(worker["job"]) if worker["job"] else None,
                busy_seconds=worker["busy_seconds"] if worker["job"] else None,
            )
            for worker in queue_producer.attached_workers(self._server)
        }
        for worker in self._server.worker_stash.get_all(self._server.verify_key).unwrap():
            uid = uid_text(worker.id)
            if uid not in states:
                states[uid] = WorkerState(worker.name, uid, worker.worker_pool_name, "detached")
        return sorted(states.values(), key=lambda state: state.name)

    def _task_name(self, job_uid: str) -> str | None:
        """Name of the function that a job runs; None when the job has been deleted meanwhile."""
        found = self._server.job_stash.get_by_uid(self._server.verify_key, UID(job_uid))
        if found.is_err():
            return None
        job = found.ok()
        code_id = job.user_code_id or getattr(job.action, "user_code_id", None)
        if code_id is None:
            return job.endpoint
        code = self._server.user_code_stash.get_by_uid(self._server.verify_key, code_id)
        return code.ok().service_func_name if code.is_ok() else None

    def _rows(self, statement: Any) -> list[Any]:
        with self._server.db.engine.connect() as connection:
            return list(connection.execute(statement).fetchall())
