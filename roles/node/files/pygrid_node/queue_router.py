# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router of a domain's queue: which workers are attached, what each one does, and what it was handed.

Knows sockets and keys, and neither syft nor a database, so that nothing here ever waits for one. Everything runs in
one thread; what others may call is marked so and takes the lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils import z85

from . import queue_protocol as protocol
from .allow_list import AllowList
from .queue_peer import Peer
from .queue_protocol import Beat

log = logging.getLogger("pygrid_node.queue")

_POLL_MILLISECONDS = 100
_LOST_REQUEST_SECONDS = 5.0  # an idle worker that has still not heard of its request after this never will
_CUT_SECONDS = 0.5  # what a worker that is thrown out has left to read that it is
_MAX_MESSAGE_BYTES = 65_536  # a worker has nothing longer to say
_ZAP_ADDRESS = "inproc://zeromq.zap.01"  # fixed by https://rfc.zeromq.org/spec/27/


@dataclass(frozen=True)
class Request:
    """A job on its way to a worker of a pool, or, by its uid, to one worker alone."""

    item_id: str
    pool: str
    payload: bytes
    worker: str = ""

    def suits(self, worker: Attached) -> bool:
        return worker.pool == self.pool and self.worker in ("", worker.uid)


@dataclass
class Attached:
    """A worker that is connected, or one of the slots of a worker that runs several jobs, as the router sees it.

    `owner` is whose key it has; `name` is that at first, and once it is admitted the name it is registered under.
    """

    address: bytes
    key: str
    owner: str
    name: str
    uid: str
    pool: str
    peer: Peer | None = None
    beat: Beat = field(default_factory=Beat)
    admitted: bool = False  # its row in the database was found to be right
    reachable: bool = True
    heard_at: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.time)  # when its state last changed, unix seconds
    request: Request | None = None
    sent_at: float = 0.0

    @property
    def idle(self) -> bool:
        return self.admitted and self.reachable and self.request is None and self.beat.state == "idle"


class Router:
    """One ROUTER socket with CURVE, its authentication and its workers.

    Args:
        endpoint: tcp://address:port, one address only.
        public_key: the domain's CURVE keys, Z85.
        secret_key: see public_key.
        allow_list: who may connect; read again while running.
        on_ready: called with a worker that asks to be admitted; the answer is `admit` or `refuse`.
        on_gone: called with a worker that left, was silent for too long or lost its right, and with why.

    Raises:
        zmq.ZMQError: the endpoint cannot be bound.
    """

    def __init__(
        self,
        endpoint: str,
        public_key: str,
        secret_key: str,
        allow_list: AllowList,
        on_ready: Callable[[Attached], None],
        on_gone: Callable[[Attached, str], None],
    ) -> None:
        self._allow_list = allow_list
        self._on_ready, self._on_gone = on_ready, on_gone
        self._lock = threading.RLock()
        self._workers: dict[bytes, Attached] = {}
        self._pending: deque[Request] = deque()
        self._refused: deque[bytes] = deque()
        self._thrown_out: dict[Peer, tuple[float, str]] = {}
        self._stop = threading.Event()
        self._next_beat = self._next_list_check = 0.0
        self._context = zmq.Context(1)
        self._zap = self._context.socket(zmq.REP)
        self._socket = self._context.socket(zmq.ROUTER)
        try:
            self._open(endpoint, public_key, secret_key)
        except zmq.ZMQError:
            self._context.destroy(linger=0)
            raise
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop and release the port; workers notice by the silence and wait for the next one."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5)
        self._context.destroy(linger=0)

    # ---- for other threads

    def workers(self) -> list[Attached]:
        """The attached and admitted workers."""
        with self._lock:
            return [worker for worker in self._workers.values() if worker.admitted]

    def wanted(self) -> dict[str, int]:
        """How many more requests each pool could start at once: {pool: number}."""
        with self._lock:
            free: dict[str, int] = {}
            for worker in self._workers.values():
                if worker.idle:
                    free[worker.pool] = free.get(worker.pool, 0) + 1
            for request in (request for request in self._pending if not request.worker):
                free[request.pool] = free.get(request.pool, 0) - 1
            return {pool: number for pool, number in free.items() if number > 0}

    def submit(self, request: Request) -> None:
        """Hand a request to the next idle worker of its pool."""
        with self._lock:
            self._pending.append(request)

    def in_hand(self) -> set[str]:
        """Ids of the queue items that wait here, or are at a worker."""
        with self._lock:
            at_workers = {worker.request.item_id for worker in self._workers.values() if worker.request}
            return at_workers | {request.item_id for request in self._pending}

    def withdraw_unservable(self) -> list[Request]:
        """Take back what waits here for a pool without any worker left."""
        with self._lock:
            workers = self._workers.values()
            lost = [request for request in self._pending if not any(request.suits(worker) for worker in workers)]
            self._pending = deque(request for request in self._pending if request not in lost)
            return lost

    def admit(self, worker: Attached) -> None:
        """Let a worker have jobs."""
        with self._lock:
            worker.admitted = True

    def refuse(self, worker: Attached) -> None:
        """Ask a worker to register and to introduce itself again."""
        with self._lock:
            if self._workers.get(worker.address) is worker:
                del self._workers[worker.address]
                self._refused.append(worker.address)

    # ---- the router's own thread

    def _open(self, endpoint: str, public_key: str, secret_key: str) -> None:
        self._zap.bind(_ZAP_ADDRESS)
        socket = self._socket
        socket.linger = 0
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a send to a dead worker fails, instead of losing the job
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted worker keeps its address
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        socket.curve_publickey, socket.curve_secretkey = public_key.encode(), secret_key.encode()
        socket.curve_server = True
        if endpoint.startswith("tcp://["):
            socket.setsockopt(zmq.IPV6, 1)
        socket.bind(endpoint)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._zap, zmq.POLLIN)
        while not self._stop.is_set():
            try:
                ready = dict(poller.poll(_POLL_MILLISECONDS))
                if self._zap in ready:
                    self._authenticate(self._zap.recv_multipart())
                if self._socket in ready:
                    self._receive_all()
                with self._lock:
                    self._keep_house()
                    self._dispatch()
            except zmq.ContextTerminated:
                return
            except Exception:  # the queue must outlive whatever one message or one worker does to it
                log.exception("the queue stumbled and goes on")
                self._stop.wait(0.5)

    def _authenticate(self, message: list[bytes]) -> None:
        version, request_id, domain, _address, _identity, mechanism, *credentials = message
        allowed = mechanism == b"CURVE" and len(credentials) == 1
        key = z85.encode(credentials[0]) if allowed else b""
        allowed = allowed and self._allow_list.callback(domain.decode(errors="replace"), key)
        status, text = (b"200", b"OK") if allowed else (b"400", b"this key is not allowed")
        self._zap.send_multipart([version, request_id, status, text, key if allowed else b"", b""])

    def _receive_all(self) -> None:
        for _unused in range(100):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            message = [bytes(part.buffer) for part in parts]
            if len(message) < 4 or message[2] != protocol.HEADER:
                log.warning("ignored a message that is not of the queue's protocol")
                continue
            key, peer = str(parts[-1].get("User-Id")), Peer.of(parts[-1])
            with self._lock:
                self._handle(message[0], key, peer, message[3], message[4:])

    def _handle(self, address: bytes, key: str, peer: Peer | None, command: bytes, data: list[bytes]) -> None:
        owner = self._allow_list.name_of(key)
        if owner is None:  # taken off the list while connected
            self._throw_out(address, key, peer)
            return
        worker = self._workers.get(address)
        if command == protocol.READY:
            self._introduce(address, key, owner, peer, data)
        elif worker is None or worker.key != key:
            self._send(address, protocol.DISCONNECT)  # a former domain process knew it: it will introduce itself
        elif command == protocol.HEARTBEAT:
            self._hear(worker, Beat.decode(data[0]))
        elif command == protocol.REPLY:
            self._hear(worker, Beat.decode(data[1]))
            if worker.request is not None and worker.request.item_id == data[0].decode():
                worker.request = None
        elif command == protocol.DISCONNECT:
            self._send(address, protocol.DISCONNECT)  # after this the worker knows that no request is on its way
            self._forget(worker, "it left")

    def _introduce(self, address: bytes, key: str, owner: str, peer: Peer | None, data: list[bytes]) -> None:
        former = self._workers.get(address)
        beat = Beat.decode(data[2])
        worker = Attached(address, key, owner, owner, data[1].decode(), data[0].decode(), peer, beat)
        if former is not None:
            worker.request, worker.sent_at = former.request, former.sent_at
        self._workers[address] = worker
        if worker.request is not None and beat.request != worker.request.item_id:
            self._take_back(worker)
        log.info("worker %s of pool %s is connected", owner, worker.pool)
        self._send(address, protocol.HEARTBEAT)
        self._on_ready(worker)

    def _hear(self, worker: Attached, beat: Beat) -> None:
        worker.heard_at, worker.reachable = time.monotonic(), True
        if (beat.state, beat.job) != (worker.beat.state, worker.beat.job):
            worker.since = time.time()
        worker.beat = beat
        lost = worker.request is not None and beat.state == "idle" and beat.request != worker.request.item_id
        if lost and worker.heard_at - worker.sent_at > _LOST_REQUEST_SECONDS:
            self._take_back(worker)

    def _take_back(self, worker: Attached) -> None:
        if worker.request is not None:
            log.warning("worker %s never received its request: another one gets it", worker.name)
            self._pending.appendleft(worker.request)
            worker.request = None

    def _keep_house(self) -> None:
        now = time.monotonic()
        while self._refused:
            self._send(self._refused.popleft(), protocol.DISCONNECT)
        if now >= self._next_list_check:
            self._next_list_check = now + 1.0
            allowed = self._allow_list.names()
            for worker in [worker for worker in self._workers.values() if worker.key not in allowed]:
                self._throw_out(worker.address, worker.key, worker.peer)
                self._forget(worker, "its key was taken off the list")
        self._cut_thrown_out(now)
        for worker in list(self._workers.values()):
            limit = protocol.EXPIRY_SECONDS if worker.reachable else protocol.UNREACHABLE_SECONDS
            if now - worker.heard_at > limit:
                self._forget(worker, "it was silent for too long")
        if now >= self._next_beat:
            self._next_beat = now + protocol.HEARTBEAT_SECONDS
            for worker in self._workers.values():
                worker.reachable = self._send(worker.address, protocol.HEARTBEAT)

    def _throw_out(self, address: bytes, key: str, peer: Peer | None) -> None:
        """Say goodbye, and cut the connection as soon as that can be read."""
        if peer is not None and peer not in self._thrown_out:
            self._send(address, protocol.DISCONNECT)
            self._thrown_out[peer] = (time.monotonic() + _CUT_SECONDS, key)

    def _cut_thrown_out(self, now: float) -> None:
        for peer, (due, key) in list(self._thrown_out.items()):
            if due <= now:
                del self._thrown_out[peer]
                if self._allow_list.name_of(key) is None:
                    peer.cut()

    def _forget(self, worker: Attached, why: str) -> None:
        log.warning("worker %s is detached: %s", worker.name, why)
        self._workers.pop(worker.address, None)
        self._on_gone(worker, why)

    def _dispatch(self) -> None:
        waiting, self._pending = self._pending, deque()
        for request in waiting:
            suitable = (worker for worker in self._workers.values() if request.suits(worker))
            if not any(self._try_send(worker, request) for worker in suitable):
                self._pending.append(request)

    def _try_send(self, worker: Attached, request: Request) -> bool:
        if not worker.idle:
            return False
        if not self._send(worker.address, protocol.REQUEST, request.item_id.encode(), request.payload):
            worker.reachable = False  # until it is heard of again
            return False
        worker.request, worker.sent_at = request, time.monotonic()
        return True

    def _send(self, address: bytes, command: bytes, *data: bytes) -> bool:
        message: list[Any] = [address, *protocol.frames(command, *data)]
        try:
            self._socket.send_multipart(message, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if command == protocol.REQUEST:
                log.warning("a worker cannot be reached (%s): its request stays here", error)
            return False
        return True
