# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker: takes jobs of one pool from its domain's queue and runs each in a process of its own.

Cures faults 4, 5 and 9: it knows its domain by address and key, registers itself under a lock, finishes what a former
process of its own left, and obeys a stop at any moment. What it does with a job stands in worker_slot.py.
A worker holds no secret but its own queue key and, with PostgreSQL, the database's password.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from . import blobs, database, environment, http, large_calls, logs, tls
from .blob_store import Store
from .database import missing_schema
from .environment import forget_secrets
from .errors import NodeError
from .identity import Identity
from .job_process import JobLauncher, run_upstream_job
from .registry import Registry, open_database
from .service_manager import ServiceManager
from .settings import MAIN_CONNECTIONS, MOST_PROCESSES, Settings
from .slots import slot_uid
from .sockets import Sockets
from .worker_slot import Access, Slot
from .worker_state import WorkerState, metrics_of

if TYPE_CHECKING:
    from .ledger import Ledger

log = logging.getLogger("pygrid_node.worker")

_TICK_SECONDS = 0.1
_RETRY_SECONDS = 2.0
_HEALTH_SECONDS = 5.0


def run(settings: Settings, identity: Identity) -> int:
    """Run a worker in the foreground until it is told to stop; returns the exit code."""
    if settings.domain is None or not identity.queue_public_key or not identity.queue_secret_key:
        raise NodeError("a worker needs its domain and its own queue keys")
    manager = ServiceManager(settings.notify, parts=("http", "main"))
    stop = _Stop(manager)
    logs.configure(
        settings.name, settings.log_level, [*identity.secrets(), *logs.database_secrets(settings.database_url)]
    )
    sockets = Sockets(settings, manager.passed)
    _import_syft(settings)
    forget_secrets()
    store = blobs.make_store(settings, identity)
    # Before the launchers: jobs are forked from there.
    large_calls.install()
    blobs.install(store)
    if settings.client_certificate_file is not None:
        tls.show_client_certificate(settings.client_certificate_file)
    access = Access()
    slots = [
        Slot(settings, identity, number + 1, launcher, access) for number, launcher in enumerate(_launchers(settings))
    ]
    state = WorkerState([slot.state for slot in slots])
    probe = http.Probe(ready=state.ready, status=state.status, registry=metrics_of(state))
    app = http.make_app(settings, identity.uid, probe, _control(stop, state))
    server = http.ServerThread(app, settings, sockets, manager)
    server.start()
    try:
        return Worker(settings, slots, access, store, state, stop, manager, server.is_alive).run()
    finally:
        for slot in slots:
            slot.launcher.close()
        server.stop(timeout_seconds=0.5)
        logs.flush()


def _import_syft(settings: Settings) -> None:
    with environment.without_collector():
        import syft.server.server
        import syft.service.queue.queue  # noqa: F401

    logs.own_handlers()
    logging.getLogger("syft.store.db.db").setLevel(logging.WARNING)  # says the database URL at each connection
    # One connection is health's.
    database.tune(settings.database_connections and MAIN_CONNECTIONS - 1)


def _launchers(settings: Settings) -> list[JobLauncher]:
    """One for each slot; before there is any thread."""
    connections = settings.database_connections
    share = connections and (connections - MAIN_CONNECTIONS) // settings.processes
    launchers: list[JobLauncher] = []
    for _unused in range(settings.processes):
        launchers.append(JobLauncher(functools.partial(run_upstream_job, connections=share), launchers))
    return launchers


def _control(stop: _Stop, state: WorkerState) -> APIRouter:
    control = APIRouter()

    @control.post("/drain")
    def drain() -> JSONResponse:
        stop.request()
        return JSONResponse({"status": "draining", "job": state.job or None})

    return control


class _Stop:
    """The wish to stop, from a signal or over the control socket. Made first: a signal during the import counts too."""

    def __init__(self, manager: ServiceManager) -> None:
        self.requested = False
        self.started = False
        self._manager = manager
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def request(self) -> None:
        self.requested = True
        self._manager.stopping()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.request()
        if not self.started:
            os._exit(0)  # nothing is registered and nothing runs yet


class Worker:
    """One worker's life: wait for the domain, register, let the slots take jobs, drain.

    The main thread only looks and decides, so that a watchdog on it means something; a second one waits for the
    database.
    """

    def __init__(
        self,
        settings: Settings,
        slots: list[Slot],
        access: Access,
        store: Store,
        state: WorkerState,
        stop: _Stop,
        manager: ServiceManager,
        answers: Callable[[], bool],
    ) -> None:
        self._settings, self._slots, self._access, self._store = settings, slots, access, store
        self._state, self._stop, self._manager, self._answers = state, stop, manager, answers
        self._health: database.Health | None = None
        self._failed = False
        self._registrar = threading.Thread(target=self._keep_registered, name="registrar", daemon=True)

    def run(self) -> int:
        """Returns 0 after a drain, 1 when the worker must be started again."""
        self._stop.started = True
        for slot in self._slots:
            slot.start()
        self._registrar.start()
        while not self._stop.requested and not self._failed:
            self._look()
            time.sleep(_TICK_SECONDS)
        self._drain()
        log.info("stopped")
        return 1 if self._failed else 0

    def _look(self) -> None:
        for slot in self._slots:
            slot.state.attached = slot.client.attached
        self._failed = any(slot.broken for slot in self._slots) or not self._answers()
        self._manager.status(self._state.summary())
        self._manager.alive("main")

    def _drain(self) -> None:
        """Finish the running jobs, take no other, leave the queue and the database; bounded once nothing runs."""
        for slot in self._slots:
            slot.drain()
        running = [slot.state.job for slot in self._slots if slot.state.job]
        log.info("draining%s", f": still running {', '.join(running)}" if running else "")
        while any(slot.busy for slot in self._slots):
            self._manager.status(self._state.summary())
            self._manager.alive("main")
            time.sleep(_TICK_SECONDS)
        leaving = [threading.Thread(target=slot.leave, daemon=True) for slot in self._slots]
        for thread in leaving:
            thread.start()
        for thread in leaving:
            thread.join()

    # ---- the registrar's thread

    def _keep_registered(self) -> None:
        next_look = 0.0
        while not self._stop.requested:
            due = [slot for slot in self._slots if slot.client.wants_registration.is_set()]
            if due and not self._register(due):
                time.sleep(_RETRY_SECONDS)
            if self._health is not None and time.monotonic() >= next_look:
                next_look = time.monotonic() + _HEALTH_SECONDS
                self._state.database_problem = self._health.problem()
            time.sleep(_TICK_SECONDS)

    def _register(self, due: list[Slot]) -> bool:
        """Bring the slots' rows about, once the domain has made the database; False when it is not time yet."""
        try:
            problem = self._open() or self._other_version() or self._store.problem()
            if not problem:
                for slot in due:
                    if self._stop.requested:
                        return True
                    slot.register()
        except Exception as error:
            problem = f"database: {database.reason(error)}"
        if problem and problem != self._state.problem:
            log.warning("waiting: %s", problem)
        self._state.problem = problem
        return not problem

    def _open(self) -> str:
        """Open the domain's database unless it is open; returns why that is not possible yet, or ""."""
        if self._access.registry is not None:
            return ""
        domain = self._settings.domain
        assert domain is not None  # noqa: S101 - run() has checked it
        if self._settings.sqlite_file is not None:
            problem = missing_schema(self._settings.sqlite_file)
            if problem:
                return problem
        opened = open_database(self._settings, domain.uid, domain.verify_key)
        try:
            return self._use(opened)
        finally:
            if self._access.database is not opened:
                opened.engine.dispose()  # a worker may wait for long, and each try has connections of its own

    def _use(self, opened: Any) -> str:
        """Work with a database that was opened; returns why not yet, or ""."""
        from .ledger import Ledger

        if problem := _other_version(opened.engine):
            return problem
        registry = Registry(opened)
        if not registry.is_ready():
            return "the domain has not made its worker pool yet"
        ledger = Ledger(opened)
        self._remove_surplus(registry, ledger)
        self._health = database.Health(opened.engine)
        self._state.database_problem = ""
        self._access.database, self._access.ledger, self._access.registry = opened, ledger, registry
        return ""

    def _other_version(self) -> str:
        """Asked each time, because a domain that was upgraded meanwhile has restarted."""
        return _other_version(self._access.database.engine)

    def _remove_surplus(self, registry: Registry, ledger: Ledger) -> None:
        """Deregister the slots that this worker had when it ran more jobs at a time."""
        own = self._slots[0].uid.no_dash
        surplus = {slot_uid(own, number) for number in range(len(self._slots) + 1, MOST_PROCESSES + 1)}
        for row in registry.workers():
            if row.id.no_dash in surplus:
                log.info("deregistering %s: %d job(s) at a time now", row.name, len(self._slots))
                ledger.release_worker(row.id, self._settings.orphaned_jobs)
                registry.deregister(row.id)


def _other_version(engine: Any) -> str:
    """Why this worker must not touch its domain's database: it would read and write rows of another syft; or ""."""
    own, domains = environment.syft_version(), database.noted_version(engine)
    if domains in ("", own):
        return ""
    return f"the domain runs with syft {domains} and this worker with {own}: upgrade the one that is older"
