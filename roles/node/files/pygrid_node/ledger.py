# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who works on which job, as the domain's database has it: claim, give back, finish.

A job has two rows: the Job, which people see, and its QueueItem, which the queue goes by. Every change here is made
under the lock that the domain and its workers share, so that no job is run by two workers and none by nobody.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import Any

from .attempts import MOST_ATTEMPTS, Attempts
from .database import DatabaseLock

log = logging.getLogger("pygrid_node.jobs")

_GIVEN_UP = (
    f"This job was begun {MOST_ATTEMPTS} times, and each time its Worker went down with it or lost it: it is not begun "
    "again. If the job itself ends its Worker, by the memory it needs for example, change it and submit it anew."
)


class Ledger:
    """The rows of jobs and queue items in a domain's database.

    Args:
        database: upstream's DBManager, the domain's own or one from `registry.open_database`.
    """

    def __init__(self, database: Any) -> None:
        from syft.service.job.job_stash import JobStash
        from syft.service.queue.queue_stash import QueueStash
        from syft.service.user.user_stash import UserStash

        self._verify_key = database.root_verify_key
        UserStash(store=database)  # the others look up the role of the caller in its table
        self._jobs = JobStash(store=database)
        self._items = QueueStash(store=database)
        self._lock = DatabaseLock(database.engine)
        self._attempts = Attempts(database.engine)

    def prepare(self) -> None:
        """Make what the ledger keeps beside upstream's tables; the domain calls it, its workers find it."""
        with self._lock():
            self._attempts.create()

    def job(self, job_id: Any) -> Any:
        """The job's row, or None when somebody deleted it."""
        from syft.store.document_store_errors import NotFoundException

        try:
            return self._jobs.get_by_uid(self._verify_key, job_id).unwrap()
        except NotFoundException:
            return None

    def waiting(self) -> list[Any]:
        """Queue items that nobody has taken yet, oldest first."""
        return self._items_with("created")

    def take(self, item: Any) -> None:
        """Note that the queue is about to hand this item to a worker."""
        self._set_item(item, "processing")

    def give_back(self, item_id: str) -> bool:
        """Undo `take` for an item that reached no worker; returns whether there was anything to undo."""
        with self._lock():
            for item in self._items_with("processing"):
                if item.id.no_dash == item_id:
                    return self._requeue_if_unclaimed(item)
        return False

    def claim(self, job_id: Any, worker_uid: Any) -> Any:
        """Make the job this worker's own and return its row; None when it is no longer to be run."""
        from syft.service.job.job_stash import JobStatus
        from syft.types.datetime import DateTime

        with self._lock():
            job = self.job(job_id)
            if job is None or job.status != JobStatus.CREATED:
                return None
            job.status, job.job_worker_id, job.updated_at = JobStatus.PROCESSING, worker_uid, DateTime.now()
            self._attempts.begin(job.id.no_dash)
            job.job_pid = os.getpid()  # upstream refuses to kill a job without one; which one is of no matter here
            return self._jobs.update(self._verify_key, job).unwrap()

    def is_terminating(self, job_id: Any) -> bool:
        """Whether somebody asked to kill the job (or deleted it)."""
        job = self.job(job_id)
        return job is None or job.status.value == "terminating"

    def finish(self, job_id: Any, failure: str) -> str:
        """Bring both rows to an end once the job's process has ended, whatever it left behind.

        Args:
            job_id: UID of the job.
            failure: what to tell the user if the process ended without a result.

        Returns:
            the job's final status.
        """
        from syft.service.response import SyftError

        with self._lock():
            job = self.job(job_id)
            status = "interrupted" if job is None else job.status.value
            if job is not None and status in ("terminating", "processing"):
                status = "interrupted" if status == "terminating" else "errored"
                if status == "errored":
                    job.result = SyftError(message=failure)
                self._set_job(job, status)
            self._attempts.forget(job_id.no_dash)
            for item in self._items_with("processing"):
                if item.job_id == job_id:
                    item.resolved = True
                    self._set_item(item, status if status in ("completed", "errored") else "interrupted")
            return status

    def release_worker(self, worker_uid: Any, policy: str) -> int:
        """Take back the jobs that a worker left behind unfinished.

        Args:
            worker_uid: UID of the worker that is gone.
            policy: "requeue" runs them again, "interrupt" ends them.

        Returns:
            how many jobs there were.
        """
        with self._lock():
            jobs = [job for job in self._running() if job.job_worker_id == worker_uid]
            for job in jobs:
                self._release(job, policy)
            return len(jobs)

    def release_job(self, job_id: Any, policy: str) -> str:
        """Take back one job whose process was lost, though not its worker; returns the job's new status."""
        with self._lock():
            job = self.job(job_id)
            if job is None or job.status.value not in ("processing", "terminating"):
                return "interrupted" if job is None else job.status.value
            self._release(job, policy)
            return job.status.value

    def running_workers(self) -> set[Any]:
        """UIDs of the workers that some unfinished job names."""
        return {job.job_worker_id for job in self._running() if job.job_worker_id is not None}

    def requeue_undelivered(self, delivered: Collection[str] = ()) -> int:
        """Queue again what a queue had taken but handed to no worker, and close the items of jobs that have ended.

        Args:
            delivered: ids (hex) of items that are on their way to a worker right now.

        Returns:
            how many items wait again.
        """
        with self._lock():
            items = [item for item in self._items_with("processing") if item.id.no_dash not in delivered]
            return sum(self._requeue_if_unclaimed(item) for item in items)

    def _requeue_if_unclaimed(self, item: Any) -> bool:
        job = self.job(item.job_id)
        if job is None or job.resolved or job.status.value == "interrupted":
            item.resolved = True
            self._set_item(item, "interrupted" if job is None else _item_status(job.status.value))
            return False
        if job.status.value != "created":
            return False
        self._set_item(item, "created")
        return True

    def _release(self, job: Any, policy: str) -> None:
        from syft.service.response import SyftError

        again = policy == "requeue" and job.status.value == "processing"
        if again and self._attempts.number(job.id.no_dash) >= MOST_ATTEMPTS:
            again, job.result = False, SyftError(message=_GIVEN_UP)
        if again:
            job.job_worker_id, job.job_pid = None, None
        else:
            self._attempts.forget(job.id.no_dash)
        item_status = "created" if again else "interrupted"
        self._set_job(job, item_status)
        log.warning("job %s lost its worker and is now %s", job.id.no_dash, job.status.value)
        for item in self._items_with("processing"):
            if item.job_id == job.id:
                item.resolved = item_status == "interrupted"
                self._set_item(item, item_status)

    def _running(self) -> list[Any]:
        from syft.service.job.job_stash import JobStatus

        found = []
        for status in (JobStatus.PROCESSING, JobStatus.TERMINATING):
            found += self._jobs.get_all(self._verify_key, filters={"status": status}).unwrap()
        return found

    def _items_with(self, status: str) -> list[Any]:
        from syft.service.queue.queue_stash import Status

        return self._items.get_by_status(self._verify_key, status=Status(status)).unwrap() or []

    def _set_item(self, item: Any, status: str) -> None:
        from syft.service.queue.queue_stash import Status

        item.status = Status(status)
        self._items.update(self._verify_key, item).unwrap()

    def _set_job(self, job: Any, status: str) -> None:
        from syft.service.job.job_stash import JobStatus

        job.status = JobStatus(status)
        job.resolved = status in ("errored", "interrupted")
        self._jobs.update(self._verify_key, job).unwrap()


def _item_status(job_status: str) -> str:
    return job_status if job_status in ("completed", "errored", "interrupted") else "interrupted"
