# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running network or domain knows about itself: the source of ready, status and metrics.

Counts are made by the database, and no stored object is decoded for them: jobs may hold large results.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from syft.service.job.job_stash import JobStatus
from syft.store.db.schema import PostgresBase, SQLiteBase
from syft.types.uid import UID

from .peers import PeerMonitor, PeerState, uid_text
from .settings import Settings

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
    """

    def __init__(self, server: Any, settings: Settings, monitor: PeerMonitor) -> None:
        self._server = server
        self._settings = settings
        self._monitor = monitor
        self._worker_names: dict[str, str] = {}
        base = SQLiteBase if server.db.engine.dialect.name == "sqlite" else PostgresBase
        self._tables = base.metadata.tables
        self.stopping = False

    def ready(self) -> dict[str, Any]:
        """The part of /healthz/ready that networks and domains share; costs one `select 1`."""
        reasons = ["stopping"] if self.stopping else []
        reachable = self.database_reachable()
        if not reachable:
            reasons.append("the database does not answer")
        document: dict[str, Any] = {"reasons": reasons, "database": {"reachable": reachable}}
        if self._settings.kind == "network":
            document["peers"] = [state.brief() for state in self._monitor.states()]
        else:
            names = self.attached_workers() if reachable else []
            document["workers"] = {"attached": len(names), "names": names}
        return document

    def status(self) -> dict[str, Any]:
        """The part of /status beyond ready; empty while the database does not answer."""
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

    def peers(self) -> list[PeerState]:
        """The peers as last seen."""
        return self._monitor.states()

    def database_reachable(self) -> bool:
        """Whether the database answers."""
        try:
            with self._server.db.engine.connect() as connection:
                connection.execute(sqlalchemy.text("select 1"))
        except SQLAlchemyError:
            return False
        return True

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
        """Names of the workers that are connected to the queue now."""
        identifiers = sorted(
            {
                uid_text(worker.syft_worker_id)
                for producer in list(self._server.queue_manager.producers.values())
                for worker in list(producer.workers.values())
                if worker.syft_worker_id is not None
            }
        )
        if any(uid not in self._worker_names for uid in identifiers):
            table = self._tables["SyftWorker"]
            rows = self._rows(sqlalchemy.select(table.c.id, table.c.fields["name"].as_string()))
            self._worker_names = {uid_text(uid): name for uid, name in rows}
        return sorted(self._worker_names.get(uid, uid) for uid in identifiers)

    def workers(self) -> list[WorkerState]:
        """The registered workers, and what each does."""
        attached = set(self.attached_workers())
        running = self._running_jobs()
        states = []
        for worker in self._server.worker_stash.get_all(self._server.verify_key).unwrap():
            uid = uid_text(worker.id)
            job = running.get(uid)
            state = "busy" if job is not None else "idle" if worker.name in attached else "detached"
            states.append(
                WorkerState(
                    name=worker.name,
                    uid=uid,
                    pool=worker.worker_pool_name,
                    state=state,
                    job=uid_text(job.id) if job is not None else None,
                    task=self._task_name(job) if job is not None else None,
                    busy_seconds=_seconds_since(job) if job is not None else None,
                )
            )
        return sorted(states, key=lambda state: state.name)

    def _running_jobs(self) -> dict[str, Any]:
        """Jobs in progress by the uid of their worker."""
        table = self._tables["JobItem"]
        statement = sqlalchemy.select(table.c.id).where(
            table.c.fields["status"].as_string() == JobStatus.PROCESSING.name
        )
        jobs = {}
        for (uid,) in self._rows(statement):
            result = self._server.job_stash.get_by_uid(self._server.verify_key, UID(uid_text(uid)))
            if result.is_ok() and result.ok().job_worker_id is not None:
                jobs[uid_text(result.ok().job_worker_id)] = result.ok()
        return jobs

    def _task_name(self, job: Any) -> str | None:
        code_id = job.user_code_id or getattr(job.action, "user_code_id", None)
        if code_id is None:
            return job.endpoint
        result = self._server.user_code_stash.get_by_uid(self._server.verify_key, code_id)
        return result.ok().service_func_name if result.is_ok() else None

    def _rows(self, statement: Any) -> list[Any]:
        with self._server.db.engine.connect() as connection:
            return list(connection.execute(statement).fetchall())


def _seconds_since(job: Any) -> float | None:
    """Seconds since the job was taken (updated_at is set then), else since it was created."""
    if job.updated_at is None:
        return None
    return round(max(0.0, time.time() - job.updated_at.utc_timestamp), 1)
