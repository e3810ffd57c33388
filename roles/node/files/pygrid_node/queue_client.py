# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's side of the queue: one encrypted connection to its domain, kept alive also while a job runs.

In place of upstream's consumer, which is deaf while a job runs, ignores a stop while its domain is away (fault 9) and
knows only addresses of its own host and of Kubernetes (fault 4). Knows neither syft nor a database.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import zmq

from . import queue_protocol as protocol
from .queue_protocol import Beat

log = logging.getLogger("pygrid_node.queue")

_POLL_MILLISECONDS = 50
_CONNECT_SECONDS = 5.0  # a domain that does not answer for so long is tried again from the start


class QueueClient:
    """The connection of one worker.

    Args:
        url: tcp://host:port of the domain's queue.
        server_key: the domain's CURVE public key, Z85.
        public_key: the worker's own keys, Z85.
        secret_key: see public_key.
        uid: the worker's uid (hex); also its address on the queue.
        pool: the pool whose jobs it takes.
        policy: what becomes of its running job when it is never heard of again.
        on_request: called in the connection's thread with a queue item's id and its bytes; must return at once.
    """

    def __init__(
        self,
        url: str,
        server_key: str,
        public_key: str,
        secret_key: str,
        uid: str,
        pool: str,
        policy: str,
        on_request: Callable[[str, bytes], None],
    ) -> None:
        self._url, self._uid, self._pool = url, uid, pool
        self._keys = (public_key.encode(), secret_key.encode(), server_key.encode())
        self._on_request = on_request
        self._lock = threading.Lock()
        self._beat = Beat(policy=policy)
        self._finished: list[str] = []
        self._attached = False
        self._stop, self._leaving, self._introduce = threading.Event(), threading.Event(), threading.Event()
        self.left = threading.Event()
        self.wants_registration = threading.Event()
        self.wants_registration.set()
        self._context = zmq.Context(1)
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def attached(self) -> bool:
        """Whether the domain answers on this connection."""
        return self._attached

    def introduce(self) -> None:
        """Tell the domain who this is; to be called once the worker's row is in the database."""
        self.wants_registration.clear()
        self._introduce.set()

    def working_on(self, job: str) -> None:
        """The job (hex id) that the request turned out to be."""
        with self._lock:
            self._beat = replace(self._beat, job=job)

    def done(self, request: str) -> None:
        """Ready for the next request."""
        with self._lock:
            state = "draining" if self._beat.state == "draining" else "idle"
            self._beat = replace(self._beat, state=state, job="")
            self._finished.append(request)

    def drain(self) -> None:
        """Take no request from now on."""
        with self._lock:
            self._beat = replace(self._beat, state="draining")

    def leave(self, timeout_seconds: float) -> None:
        """Say goodbye, wait at most so long for the answer, and close the connection."""
        self.drain()
        self._leaving.set()
        if self._attached:
            self.left.wait(timeout_seconds)
        self._stop.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        socket = None
        while not self._stop.is_set():
            try:
                socket = self._connect()
                self._talk(socket)
            except zmq.ZMQError as error:
                log.warning("queue %s: %s", self._url, error)
                self._stop.wait(1)
            finally:
                self._attached = False
                if socket is not None:
                    socket.close(linger=0)
        self._context.destroy(linger=0)

    def _connect(self) -> zmq.Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.SNDTIMEO, 0)
        socket.setsockopt(zmq.IDENTITY, self._uid.encode())
        socket.setsockopt(zmq.RECONNECT_IVL, 200)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = self._keys
        if self._url.startswith("tcp://["):
            socket.setsockopt(zmq.IPV6, 1)
        socket.connect(self._url)
        return socket

    def _talk(self, socket: zmq.Socket) -> None:
        """Speak over one connection until it has been silent for too long."""
        heard_at, next_beat, introduced, said_goodbye = time.monotonic(), 0.0, False, False
        while not self._stop.is_set():
            if socket.poll(_POLL_MILLISECONDS):
                heard_at = time.monotonic()
                self._receive(socket.recv_multipart())
            now = time.monotonic()
            if now - heard_at > (protocol.SILENCE_SECONDS if self._attached else _CONNECT_SECONDS):
                if self._attached:
                    log.warning("the domain at %s is silent: connecting anew", self._url)
                self._introduce.set()
                return
            if self._introduce.is_set() and not self.wants_registration.is_set():
                self._introduce.clear()
                introduced = True
                self._send(socket, protocol.READY, self._pool.encode(), self._uid.encode(), self._encoded_beat())
            if introduced and not self.wants_registration.is_set():
                self._report_finished(socket)
                if now >= next_beat:
                    next_beat = now + protocol.HEARTBEAT_SECONDS
                    self._send(socket, protocol.HEARTBEAT, self._encoded_beat())
            if self._leaving.is_set() and not said_goodbye:
                said_goodbye = True
                self._send(socket, protocol.DISCONNECT)

    def _receive(self, message: list[bytes]) -> None:
        if len(message) < 3 or message[1] != protocol.HEADER:
            return
        command, data = message[2], message[3:]
        if command == protocol.DISCONNECT:
            self._attached = False
            if self._leaving.is_set():
                self.left.set()
            else:
                self.wants_registration.set()
            return
        self._attached = not self.wants_registration.is_set()
        if command == protocol.REQUEST:
            self._take(data[0].decode(), data[1])

    def _take(self, request: str, payload: bytes) -> None:
        with self._lock:
            if self._beat.state != "idle":  # the domain notices by the next beat, or by the goodbye
                log.warning("not taking a request while %s", self._beat.state)
                return
            self._beat = replace(self._beat, state="busy", request=request)
        self._on_request(request, payload)

    def _report_finished(self, socket: zmq.Socket) -> None:
        with self._lock:
            finished, self._finished = self._finished, []
        for request in finished:
            self._send(socket, protocol.REPLY, request.encode(), self._encoded_beat())

    def _encoded_beat(self) -> bytes:
        with self._lock:
            return self._beat.encode()

    @staticmethod
    def _send(socket: zmq.Socket, command: bytes, *data: bytes) -> None:
        try:
            socket.send_multipart(protocol.frames(command, *data), zmq.NOBLOCK)
        except zmq.Again:
            log.debug("the domain's queue does not take messages now")
