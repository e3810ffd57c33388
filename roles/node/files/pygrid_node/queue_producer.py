# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's job queue in place of upstream's ZMQ producer.

Cures faults 2 and 3: upstream's queue is open to everybody on all addresses, hands jobs to workers that died within
the last minute and never sees them again, keeps jobs in memory where a restart loses them, and its reading thread
dies on the first error of the database. Here a job stays in the database until a worker is free to take it.

For server.py: `install(settings, identity)` before the server is built, `requeue_undelivered(server)` in its
`init_queue_manager`, before upstream's. For metrics and status: `attached_workers(server)` and `backlog(server)`;
for probes: `producer_of(server)`.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import zmq

from . import jobs
from .allow_list import AllowList
from .database import one_line
from .errors import EXIT_TEMPORARY, NodeError
from .files import replace_private_text
from .identity import Identity
from .ledger import Ledger
from .queue_router import Attached, Request, Router
from .registry import Registry
from .settings import Settings
from .trial import Trial

log = logging.getLogger("pygrid_node.queue")

_QUEUE_NAME = "api_call"
_READ_SECONDS = 0.25
_SWEEP_SECONDS = 10.0
_ABSENT_SECONDS = 60.0  # a worker that some running job names may be away for so long before its job is taken back


def install(settings: Settings, identity: Identity, trial: Trial) -> None:
    """Make upstream's server use this queue, and its job API work with it; call it before the server is built.

    Args:
        settings: of the domain.
        identity: of the domain.
        trial: while it is on, people's jobs wait.
    """
    from syft.service.queue import zmq_client
    from syft.service.queue.zmq_producer import ZMQProducer

    if settings.queue is None or not identity.queue_public_key or not identity.queue_secret_key:
        raise NodeError("a domain needs queue settings and queue keys")

    class Producer(_Producer, ZMQProducer):
        """Upstream's type, so that annotations and isinstance hold; none of its behaviour is left."""

    Producer.settings, Producer.identity, Producer.trial = settings, identity, trial
    zmq_client.ZMQProducer = Producer
    jobs.install()


def requeue_undelivered(server: Any) -> int:
    """Queue again what the former process of this domain had taken from the queue but handed to no worker.

    Returns:
        how many items wait again.
    """
    ledger = Ledger(server.db)
    ledger.prepare()
    return ledger.requeue_undelivered()


def attached_workers(server: Any) -> list[dict[str, Any]]:
    """The workers connected right now: name, uid, pool, state, job (id or None) and busy_seconds."""
    producer = producer_of(server)
    return [] if producer is None else [_describe(worker) for worker in producer.router.workers()]


def backlog(server: Any) -> int:
    """How many jobs wait for a worker."""
    from syft.service.queue.queue_stash import Status

    stash = server.queue_stash
    return len(stash.get_by_status(stash.root_verify_key, status=Status.CREATED).unwrap() or [])


def producer_of(server: Any) -> Any:
    """The producer of a domain, None for a network."""
    manager = getattr(server, "queue_manager", None)
    return manager.producers.get(_QUEUE_NAME) if manager is not None else None


def _describe(worker: Attached) -> dict[str, Any]:
    busy = worker.beat.state == "busy" or worker.request is not None
    return {
        "name": worker.name,
        "uid": worker.uid,
        "pool": worker.pool,
        "state": "busy" if busy and worker.beat.state == "idle" else worker.beat.state,
        "job": worker.beat.job or None,
        "busy_seconds": round(time.time() - worker.since, 1) if worker.beat.job else 0.0,
    }


class _Producer:
    """The interface of upstream's producer over a Router, and the one thread that talks to the database."""

    settings: Settings
    identity: Identity
    trial: Trial

    def post_init(self) -> None:
        """Called by upstream's constructor: bind the port."""
        listen = self.settings.queue
        assert listen is not None  # noqa: S101 - install() has checked it
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._task: Callable[[], None] | None = None
        self._absent_since: dict[Any, float] = {}
        self._pins: dict[str, str] = {}
        self._policies_file = self.settings.data_directory / "worker-policies.json"
        self._policies = _load_policies(self._policies_file)
        database = self.queue_stash.db
        self.ledger, self.registry = Ledger(database), Registry(database)
        self._allow_list = AllowList(listen.workers_file)
        try:
            self.router = Router(
                f"tcp://{host}:{listen.port}",
                str(self.identity.queue_public_key),
                str(self.identity.queue_secret_key),
                self._allow_list,
                on_ready=lambda worker: self._tasks.put(lambda: self._admit(worker)),
                on_gone=lambda worker, _why: self._tasks.put(lambda: self._let_go(worker)),
            )
        except zmq.ZMQError as error:
            raise NodeError(f"queue {host}:{listen.port}: {error}", EXIT_TEMPORARY) from None
        self._feeder = threading.Thread(target=self._feed, name="queue-feeder", daemon=True)

    @property
    def address(self) -> str:
        listen = self.settings.queue
        return "" if listen is None else f"tcp://{listen.host}:{listen.port}"

    @property
    def workers(self) -> dict[bytes, Any]:
        """The attached workers as upstream's producer shows them: objects with a syft_worker_id."""
        from syft.types.uid import UID

        return {
            worker.address: SimpleNamespace(syft_worker_id=UID(worker.uid), name=worker.name)
            for worker in self.router.workers()
        }

    def run(self) -> None:
        """Take workers and jobs from now on."""
        self.router.start()
        self._feeder.start()

    def close(self) -> None:
        """Stop; jobs that wait stay in the database."""
        self._stop.set()
        if self._feeder.ident is not None:
            self._feeder.join(timeout=5)
        self.router.close()

    def pin(self, item_id: str, worker_uid: str) -> None:
        """Let one worker alone have a queue item, even while the node is on trial; before the item is stored."""
        self._pins[item_id] = worker_uid

    def unpin(self, item_id: str) -> None:
        """The item is no more."""
        self._pins.pop(item_id, None)

    @property
    def alive(self) -> bool:
        return self._feeder.is_alive()

    def _feed(self) -> None:
        next_sweep = time.monotonic() + _SWEEP_SECONDS
        while not self._stop.wait(_READ_SECONDS):
            try:
                self._run_tasks()
                self._hand_out()
                if time.monotonic() >= next_sweep:
                    next_sweep = time.monotonic() + _SWEEP_SECONDS
                    self._sweep()
            except Exception as error:  # a database that is away comes back; this thread must still be there then
                log.error("the queue cannot use the database now: %s", one_line(error))
                self._stop.wait(2)

    def _run_tasks(self) -> None:
        """What workers that came and went left to do; a task that fails is kept for when the database is back."""
        while self._task is not None or not self._tasks.empty():
            self._task = self._task or self._tasks.get()
            self._task()
            self._task = None

    def _hand_out(self) -> None:
        wanted = self.router.wanted()
        if not wanted:
            return
        pools = {pool.id: pool.name for pool in self.registry.pools()}
        for item in self.ledger.waiting():
            worker = self._pins.get(item.id.no_dash, "")
            pool = pools.get(item.worker_pool.object_uid, "")
            if (self.trial.on and not worker) or wanted.get(pool, 0) < 1 or self._waits_for_others(item):
                continue
            request = Request(item.id.no_dash, pool, _serialized(item), worker)
            self.ledger.take(item)
            wanted[pool] -= 1
            self.router.submit(request)

    def _waits_for_others(self, item: Any) -> bool:
        """Whether an argument of the action is the result of a job that has not ended (as upstream decides it)."""
        from syft.service.queue.queue_stash import ActionQueueItem

        if not isinstance(item, ActionQueueItem):
            return False
        action = item.kwargs["action"]
        return any(self.contains_unresolved_action_objects(part).unwrap() for part in (action.args, action.kwargs))

    def _admit(self, worker: Attached) -> None:
        from syft.types.uid import UID

        name = self.registry.name_of(UID(worker.uid))
        if name is None or not self._is_own_name(worker, name):
            self.router.refuse(worker)  # no such row, or another worker's: it registers and comes again
            return
        worker.name = name
        if self._policies.get(worker.uid) != worker.beat.policy:
            self._policies[worker.uid] = worker.beat.policy
            replace_private_text(self._policies_file, json.dumps(self._policies))
        self.registry.set_state(UID(worker.uid), "Consuming" if worker.beat.job else "Idle")
        self.router.admit(worker)

    def _is_own_name(self, worker: Attached, name: str) -> bool:
        """Whether a row's name is that of the key's owner, or of one of the slots in which it runs several jobs."""
        owner = worker.owner
        if name == owner:
            return True
        head, _dash, number = name.rpartition("-")
        if head != owner or not number.isdecimal():
            return False
        if name in self._allow_list.names().values():
            log.error("%s is the name of a worker, and of a slot of %s: rename one of them", name, owner)
            return False
        return True

    def _let_go(self, worker: Attached) -> None:
        """A worker left: its unclaimed request waits again at once, what it was running is its policy's to say."""
        from syft.types.uid import UID

        if worker.request is not None:
            self.ledger.give_back(worker.request.item_id)
        if any(other.uid == worker.uid for other in self.router.workers()):
            return  # it is back already
        self.ledger.release_worker(UID(worker.uid), worker.beat.policy)
        self.registry.deregister(UID(worker.uid))

    def _sweep(self) -> None:
        """Find what no event told: a domain that was restarted does not know who was there before."""
        for request in self.router.withdraw_unservable():
            self.ledger.give_back(request.item_id)
        self.ledger.requeue_undelivered(self.router.in_hand())
        attached = {worker.uid for worker in self.router.workers()}
        rows = {worker.id for worker in self.registry.workers()} | self.ledger.running_workers()
        absent = {uid for uid in rows if uid.no_dash not in attached}
        now = time.monotonic()
        self._absent_since = {uid: self._absent_since.get(uid, now) for uid in absent}
        for uid, since in self._absent_since.items():
            if now - since > _ABSENT_SECONDS:
                self.ledger.release_worker(uid, self._policies.get(uid.no_dash, "requeue"))
                self.registry.deregister(uid)


def _serialized(item: Any) -> bytes:
    from syft.serde.serialize import _serialize

    return _serialize(item, to_bytes=True)


def _load_policies(path: Any) -> dict[str, str]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(uid): str(policy) for uid, policy in document.items()} if isinstance(document, dict) else {}
