# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker: takes jobs of one pool from its domain's queue and runs each in a process of its own.

Cures faults 3, 4, 5 and 9: it claims a job in the database before it runs it, knows its domain by address and key,
registers itself under a lock, finishes what a former process of its own left, and obeys a stop at any moment.
A worker holds no secret but its own queue key and, with PostgreSQL, the database's password.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from . import environment, http, logs
from .environment import forget_secrets
from .errors import NodeError
from .identity import Identity
from .job_process import JobLauncher, run_upstream_job
from .queue_client import QueueClient
from .registry import Registry, missing_schema, open_database, tune_sqlite
from .settings import Settings
from .worker_state import WorkerState, metrics_of

if TYPE_CHECKING:
    from .ledger import Ledger

log = logging.getLogger("pygrid_node.worker")

_TICK_SECONDS = 0.1
_RETRY_SECONDS = 2.0
_GOODBYE_SECONDS = 1.0
_DEREGISTER_SECONDS = 1.5


def run(settings: Settings, identity: Identity) -> int:
    """Run a worker in the foreground until it is told to stop; returns the exit code."""
    if settings.domain is None or not identity.queue_public_key or not identity.queue_secret_key:
        raise NodeError("a worker needs its domain and its own queue keys")
    stop = _Stop()
    logs.configure(
        settings.name, settings.log_level, [*identity.secrets(), *logs.database_secrets(settings.database_url)]
    )
    sockets = http.Sockets(settings)
    _import_syft()
    forget_secrets()
    launcher = JobLauncher(run_upstream_job)  # before there is any thread
    state = WorkerState()
    probe = http.Probe(ready=state.ready, status=state.status, registry=metrics_of(state))
    app = http.make_app(settings, identity.uid, probe, _control(stop, state))
    server = http.ServerThread(app, sockets)
    server.start()
    try:
        return Worker(settings, identity, launcher, state, stop).run()
    finally:
        server.stop(timeout_seconds=0.5)
        logs.flush()


def _import_syft() -> None:
    with environment.without_collector():
        import syft.server.server
        import syft.service.queue.queue  # noqa: F401

    logs.own_handlers()
    logging.getLogger("syft.store.db.db").setLevel(logging.WARNING)  # says the database URL at each connection
    tune_sqlite()


def _control(stop: _Stop, state: WorkerState) -> APIRouter:
    control = APIRouter()

    @control.post("/drain")
    def drain() -> JSONResponse:
        stop.request()
        return JSONResponse({"status": "draining", "job": state.job or None})

    return control


class _Stop:
    """The wish to stop, from a signal or over the control socket. Made first: a signal during the import counts too."""

    def __init__(self) -> None:
        self.requested = False
        self.started = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def request(self) -> None:
        self.requested = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self.started:
            os._exit(0)  # nothing is registered and nothing runs yet


class Worker:
    """One worker's life: wait for the domain, register, take jobs, drain."""

    def __init__(
        self, settings: Settings, identity: Identity, launcher: JobLauncher, state: WorkerState, stop: _Stop
    ) -> None:
        from syft.types.uid import UID

        assert settings.domain is not None  # noqa: S101 - run() has checked it
        self._settings, self._launcher, self.state, self._stop = settings, launcher, state, stop
        self._uid = UID(identity.uid)
        self._registry: Registry | None = None
        self._registered = False
        self._requests: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._runner = threading.Thread(target=self._run_jobs, name="jobs", daemon=True)
        self._busy = threading.Event()
        self._client = QueueClient(
            settings.domain.queue_url,
            settings.domain.queue_public_key,
            str(identity.queue_public_key),
            str(identity.queue_secret_key),
            uid=identity.uid,
            pool=settings.pool,
            policy=settings.orphaned_jobs,
            on_request=self._accept,
        )

    def run(self) -> int:
        """Returns 0 after a drain, 1 when the worker must be started again."""
        self._stop.started = True
        self._client.start()
        self._runner.start()
        next_try = 0.0
        while not self._stop.requested and self._failure is None:
            due = self._client.wants_registration.is_set() and time.monotonic() >= next_try
            if due and not self._register():
                next_try = time.monotonic() + _RETRY_SECONDS
            self.state.attached = self._client.attached
            time.sleep(_TICK_SECONDS)
        self._drain()
        self._launcher.close()
        log.info("stopped")
        return 0 if self._failure is None else 1

    def _register(self) -> bool:
        """Bring the worker's rows about, once its domain has made the database; False when it is not time yet."""
        try:
            problem = self._open()
            if problem is None and self._registry is not None:
                if not self._registered:
                    released = self._ledger.release_worker(self._uid, self._settings.orphaned_jobs)
                    if released:
                        log.warning("%s %d job(s) of my former process", self._settings.orphaned_jobs, released)
                self._registry.register(self._settings.name, self._uid, self._settings.pool)
                self._registered = True
                self._client.introduce()
        except Exception as error:
            problem = "the domain's database cannot be used: " + _one_line(error)
        if problem and problem != self.state.problem:
            log.warning("waiting: %s", problem)
        self.state.problem, self.state.database_reachable = problem or "", problem is None
        return problem is None

    def _open(self) -> str | None:
        """Open the domain's database unless it is open; returns why that is not possible yet."""
        from .ledger import Ledger

        if self._registry is not None:
            return None
        domain = self._settings.domain
        assert domain is not None  # noqa: S101 - see __init__
        if self._settings.sqlite_file is not None:
            problem = missing_schema(self._settings.sqlite_file)
            if problem:
                return problem
        database = open_database(self._settings, domain.uid, domain.verify_key)
        registry = Registry(database)
        if not registry.is_ready():
            return "the domain has not made its worker pool yet"
        self._ledger: Ledger = Ledger(database)
        self._database, self._registry = database, registry
        return None

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
                self._failure = error
            except Exception:
                log.exception("request %s could not be run", request)
            finally:
                self._client.done(request)
                self._busy.clear()

    def _run_job(self, payload: bytes) -> None:
        from syft.serde.deserialize import _deserialize

        assert self._registry is not None  # noqa: S101 - requests come only after the registration
        item = _deserialize(payload, from_bytes=True)
        if self._ledger.claim(item.job_id, self._uid) is None:
            log.warning("job %s is not to be run any more", item.job_id)
            self._ledger.finish(item.job_id, "") if self._ledger.is_terminating(item.job_id) else None
            return
        self._use_own_view(item)
        name = item.job_id.no_dash
        self._client.working_on(name)
        self.state.begin(name, self._task_of(item))
        log.info("job %s (%s) begins", name, self.state.task)
        status = "errored"
        try:
            status = self._launch(item)
        finally:
            log.info("job %s is %s after %.1f s", name, status, self.state.busy_seconds)
            self.state.end(status)
            self._show("Idle")

    def _launch(self, item: Any) -> str:
        from syft.serde.serialize import _serialize

        self._show("Consuming")
        how = "the job could not be started"
        try:
            how = self._launcher.run(
                _serialize(item, to_bytes=True),
                should_stop=lambda: self._is_terminating(item.job_id),
            )
        finally:
            status = self._finish(item.job_id, how or "the job's process ended without a result")
        return status

    def _finish(self, job_id: Any, failure: str) -> str:
        """Until it works: a job whose end is not written stays `processing` for ever."""
        while True:
            try:
                return self._ledger.finish(job_id, failure)
            except Exception as error:
                log.error("cannot write the end of job %s, trying again: %s", job_id, _one_line(error))
                if self._stop.requested:
                    return "errored"  # this worker's next process, or the domain, takes it back
                time.sleep(_RETRY_SECONDS)

    def _is_terminating(self, job_id: Any) -> bool:
        try:
            return self._ledger.is_terminating(job_id)
        except Exception:
            return False  # a database that is away for a moment kills no job

    def _show(self, consumer_state: str) -> None:
        """What upstream's API shows; nothing depends on it."""
        with contextlib.suppress(Exception):
            if self._registry is not None:
                self._registry.set_state(self._uid, consumer_state)

    def _use_own_view(self, item: Any) -> None:
        """The domain's database URL and blob folder may look different from here."""
        from syft.store.blob_storage.on_disk import OnDiskBlobStorageClientConfig, OnDiskBlobStorageConfig

        blobs = item.worker_settings.blob_store_config
        item.worker_settings.db_config = self._database.config
        item.worker_settings.blob_store_config = OnDiskBlobStorageConfig(
            client_config=OnDiskBlobStorageClientConfig(base_directory=self._settings.blob_directory),
            min_blob_size=getattr(blobs, "min_blob_size", 16),
        )

    def _task_of(self, item: Any) -> str:
        """The name of the user's function, or of the API path, for people."""
        from syft.service.code.user_code_stash import UserCodeStash

        with contextlib.suppress(Exception):
            action = item.kwargs.get("action")
            if action is not None and action.user_code_id is not None:
                stash = UserCodeStash(store=self._database)
                return stash.get_by_uid(self._database.root_verify_key, action.user_code_id).unwrap().service_func_name
            if "path" in item.kwargs:
                return str(item.kwargs["path"])
        return f"{item.service}.{item.method}"

    def _drain(self) -> None:
        """Finish the running job, take no other, leave the queue and the database; bounded once nothing runs."""
        self.state.draining = True
        self._client.drain()
        log.info("draining%s", f": job {self.state.job} is still running" if self.state.job else "")
        while self._busy.is_set() and self._failure is None:
            time.sleep(_TICK_SECONDS)
        self._requests.put(None)
        self._client.leave(_GOODBYE_SECONDS)
        self.state.attached = False
        if self._registered and self._failure is None:
            leaving = threading.Thread(target=self._deregister, daemon=True)
            leaving.start()
            leaving.join(_DEREGISTER_SECONDS)

    def _deregister(self) -> None:
        try:
            if self._registry is not None:
                self._registry.deregister(self._uid)
        except Exception as error:
            log.warning("could not deregister, the domain will: %s", _one_line(error))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
