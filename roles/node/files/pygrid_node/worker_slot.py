# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of the jobs that a worker can run at a time: a registered worker of its own, with its own queue connection.

Cures fault 3 on the worker's side: it claims a job in the database before it runs it, and writes its end whatever
became of the job's process.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .database import one_line
from .identity import Identity
from .job_process import Ended, JobLauncher
from .queue_client import QueueClient
from .settings import Settings
from .slots import slot_name, slot_uid
from .worker_state import SlotState

if TYPE_CHECKING:
    from .ledger import Ledger
    from .registry import Registry

log = logging.getLogger("pygrid_node.worker")

_RETRY_SECONDS = 2.0
_GOODBYE_SECONDS = 1.0
_DEREGISTER_SECONDS = 1.5


class Access:
    """The domain's database as the slots share it; None in all three until the domain has made it."""

    database: Any = None
    registry: Registry | None = None
    ledger: Ledger | None = None


class Slot:
    """Takes one job after the other.

    Args:
        settings: of the worker.
        identity: of the worker, whose queue key all slots use.
        number: from 1.
        launcher: starts this slot's jobs.
        access: the domain's database.
    """

    def __init__(
        self, settings: Settings, identity: Identity, number: int, launcher: JobLauncher, access: Access
    ) -> None:
        from syft.types.uid import UID

        assert settings.domain is not None  # noqa: S101 - worker.run() has checked it
        self._settings, self.launcher, self._access = settings, launcher, access
        self.uid = UID(slot_uid(identity.uid, number))
        self.state = SlotState(slot_name(settings.name, number), self.uid.no_dash)
        self.failure: BaseException | None = None
        self._registered = False
        self._requests: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._runner = threading.Thread(target=self._run_jobs, name=f"jobs-{number}", daemon=True)
        self._busy = threading.Event()
        self.client = QueueClient(
            settings.domain.queue_url,
            settings.domain.queue_public_key,
            str(identity.queue_public_key),
            str(identity.queue_secret_key),
            uid=self.uid.no_dash,
            pool=settings.pool,
            policy=settings.orphaned_jobs,
            on_request=self._accept,
        )

    def start(self) -> None:
        self.client.start()
        self._runner.start()

    @property
    def broken(self) -> bool:
        """Whether this slot can run no job any more, and only a new process can."""
        return self.failure is not None or not (self._runner.is_alive() or self.state.draining)

    @property
    def busy(self) -> bool:
        return self._busy.is_set() and self.failure is None

    def register(self) -> None:
        """Bring this slot's rows about and tell the domain; raises whatever the database raises."""
        assert self._access.registry is not None  # noqa: S101 - the worker opens the database first
        assert self._access.ledger is not None  # noqa: S101
        if not self._registered:
            released = self._access.ledger.release_worker(self.uid, self._settings.orphaned_jobs)
            if released:
                log.warning("%s %d job(s) of my former process", self._settings.orphaned_jobs, released)
        self._access.registry.register(self.state.name, self.uid, self._settings.pool)
        self._registered = True
        self.client.introduce()

    def drain(self) -> None:
        """Take no further job; returns at once."""
        self.state.draining = True
        self.client.drain()

    def leave(self) -> None:
        """Leave the queue and the database, once nothing runs; bounded."""
        self._requests.put(None)
        self.client.leave(_GOODBYE_SECONDS)
        self.state.attached = False
        if self._registered and self.failure is None:
            leaving = threading.Thread(target=self._deregister, daemon=True)
            leaving.start()
            leaving.join(_DEREGISTER_SECONDS)

    def _deregister(self) -> None:
        try:
            if self._access.registry is not None:
                self._access.registry.deregister(self.uid)
        except Exception as error:
            log.warning("could not deregister, the domain will: %s", one_line(error))

    def _accept(self, request: str, payload: bytes) -> None:
        self._busy.set()
        self._requests.put((request, payload))

    def _run_jobs(self) -> None:
        while True:
            entry = self._requests.get()
            if entry is None:
                return
            request, payload = entry
            try:
                self._run_job(payload)
            except RuntimeError as error:  # the launcher is gone
                log.error("%s", error)
                self.failure = error
            except Exception:
                log.exception("request %s could not be run", request)
            finally:
                self.client.done(request)
                self._busy.clear()

    def _run_job(self, payload: bytes) -> None:
        from syft.serde.deserialize import _deserialize

        ledger = self._access.ledger
        assert ledger is not None  # noqa: S101 - requests come only after the registration
        item = _deserialize(payload, from_bytes=True)
        if ledger.claim(item.job_id, self.uid) is None:
            log.warning("job %s is not to be run any more", item.job_id)
            if ledger.is_terminating(item.job_id):
                ledger.finish(item.job_id, "")
            return
        self._use_own_view(item)
        name = item.job_id.no_dash
        self.client.working_on(name)
        self.state.begin(name, self._task_of(item))
        log.info("job %s (%s) begins", name, self.state.task)
        status = "errored"
        try:
            status = self._launch(item, ledger)
        finally:
            log.info("job %s is %s after %.1f s", name, status, self.state.busy_seconds)
            self.state.end(status)
            self._show("Idle")

    def _launch(self, item: Any, ledger: Ledger) -> str:
        from syft.serde.serialize import _serialize

        self._show("Consuming")
        ended = Ended("the job could not be started")
        try:
            ended = self.launcher.run(
                _serialize(item, to_bytes=True),
                should_stop=lambda: self._is_terminating(item.job_id, ledger),
            )
        finally:
            status = self._persistently(item.job_id, lambda: self._conclude(item.job_id, ended, ledger))
        return status

    def _conclude(self, job_id: Any, ended: Ended, ledger: Ledger) -> str:
        if ended.lost:
            return ledger.release_job(job_id, self._settings.orphaned_jobs)
        return ledger.finish(job_id, ended.text or "the job's process ended without a result")

    def _persistently(self, job_id: Any, write: Callable[[], str]) -> str:
        """Until it works: a job whose end is not written stays `processing` for ever."""
        while True:
            try:
                return write()
            except Exception as error:
                log.error("cannot write the end of job %s, trying again: %s", job_id, one_line(error))
                if self.state.draining:
                    return "errored"  # this worker's next process, or the domain, takes it back
                time.sleep(_RETRY_SECONDS)

    def _is_terminating(self, job_id: Any, ledger: Ledger) -> bool:
        try:
            return ledger.is_terminating(job_id)
        except Exception:
            return False  # a database that is away for a moment kills no job

    def _show(self, consumer_state: str) -> None:
        """What upstream's API shows; nothing depends on it."""
        with contextlib.suppress(Exception):
            if self._access.registry is not None:
                self._access.registry.set_state(self.uid, consumer_state)

    def _use_own_view(self, item: Any) -> None:
        """The domain's database URL and blob folder may look different from here."""
        from syft.store.blob_storage.on_disk import OnDiskBlobStorageClientConfig, OnDiskBlobStorageConfig

        blobs = item.worker_settings.blob_store_config
        item.worker_settings.db_config = self._access.database.config
        item.worker_settings.blob_store_config = OnDiskBlobStorageConfig(
            client_config=OnDiskBlobStorageClientConfig(base_directory=self._settings.blob_directory),
            min_blob_size=getattr(blobs, "min_blob_size", 16),
        )

    def _task_of(self, item: Any) -> str:
        """The name of the user's function, or of the API path, for people."""
        from syft.service.code.user_code_stash import UserCodeStash

        database = self._access.database
        with contextlib.suppress(Exception):
            action = item.kwargs.get("action")
            if action is not None and action.user_code_id is not None:
                stash = UserCodeStash(store=database)
                return stash.get_by_uid(database.root_verify_key, action.user_code_id).unwrap().service_func_name
            if "path" in item.kwargs:
                return str(item.kwargs["path"])
        return f"{item.service}.{item.method}"
