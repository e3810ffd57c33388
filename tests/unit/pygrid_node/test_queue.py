# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's queue and a worker's side of it, over real sockets with real keys (faults 2, 3 and 9)."""

from __future__ import annotations

import fcntl
import json
import queue
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

zmq = pytest.importorskip("zmq", reason="runs in the environment of a node: see tests/e2e/test_runtime_units.py")

from pygrid_node import queue_protocol as protocol  # noqa: E402 - after importorskip
from pygrid_node.allow_list import AllowList  # noqa: E402
from pygrid_node.queue_client import QueueClient  # noqa: E402
from pygrid_node.queue_peer import Peer  # noqa: E402
from pygrid_node.queue_protocol import Beat  # noqa: E402
from pygrid_node.queue_router import Attached, Request, Router  # noqa: E402


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def until(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


class Domain:
    """A router that admits everybody whom its list allows."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        self.keys = keys()
        self.file = folder / "workers.json"
        self.gone: list[tuple[Attached, str]] = []
        self.opened: list[Any] = []
        self.allow({})
        self.start()

    def start(self) -> None:
        self.router = Router(
            self.url,
            *self.keys,
            AllowList(self.file),
            on_ready=self.admit,
            on_gone=lambda worker, why: self.gone.append((worker, why)),
        )
        self.router.start()

    def admit(self, worker: Attached) -> None:
        """What a domain does when a worker has room for a job."""
        self.router.admit(worker)

    def allow(self, workers: dict[str, str]) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(workers))
        new.chmod(0o600)
        new.replace(self.file)

    def names(self) -> list[str]:
        return sorted(worker.name for worker in self.router.workers())

    def worker(self, pair: tuple[str, str], uid: str = "a" * 32, **options: Any) -> Worker:
        worker = Worker(self, pair, uid, **options)
        self.opened.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.opened:
            worker.client.leave(0)
        self.router.close()


class Worker:
    """A client that registers at once and keeps what it is sent."""

    def __init__(self, domain: Domain, pair: tuple[str, str], uid: str, url: str | None = None) -> None:
        self.requests: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.client = QueueClient(
            url or domain.url, domain.keys[0], *pair, uid=uid, pool="pool", policy="requeue",
            on_request=lambda request, payload: self.requests.put((request, payload)),
        )  # fmt: skip
        self.client.introduce()
        self.client.start()

    def next_request(self, seconds: float = 5.0) -> tuple[str, bytes]:
        return self.requests.get(timeout=seconds)


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    domain = Domain(tmp_path)
    yield domain
    domain.close()


@pytest.fixture
def pair(domain: Domain) -> tuple[str, str]:
    """Keys that are on the list as w1."""
    pair = keys()
    domain.allow({"w1": pair[0]})
    return pair


def test_a_listed_worker_gets_a_request_and_then_the_next(domain: Domain, pair: tuple[str, str]) -> None:
    worker = domain.worker(pair)
    assert until(lambda: domain.names() == ["w1"] and worker.client.attached)
    for number in range(3):
        domain.router.submit(Request(f"item{number}", "pool", b"payload"))
        assert worker.next_request() == (f"item{number}", b"payload")
        assert domain.router.wanted() == {}
        worker.client.done(f"item{number}")
    assert until(lambda: domain.router.wanted() == {"pool": 1})
    assert domain.router.in_hand() == set()


def test_a_worker_that_is_not_on_the_list_is_not_let_in(domain: Domain, pair: tuple[str, str]) -> None:
    stranger = domain.worker(keys(), uid="b" * 32)
    domain.router.submit(Request("item", "pool", b"secret"))
    assert not until(lambda: domain.names() or not stranger.requests.empty(), 1.5)
    assert domain.worker(pair).next_request() == ("item", b"secret")
    assert stranger.requests.empty()


def test_a_connection_without_keys_hears_nothing(domain: Domain) -> None:
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.connect(domain.url)
    plain.send_multipart(protocol.frames(protocol.READY, b"pool", b"c" * 32, Beat().encode()))
    domain.router.submit(Request("item", "pool", b"secret"))
    heard = plain.poll(1500)
    context.destroy(linger=0)
    assert heard == 0
    assert domain.names() == []


def test_the_list_is_read_again_while_running(domain: Domain, pair: tuple[str, str]) -> None:
    worker = domain.worker(pair)
    assert until(lambda: domain.names() == ["w1"])
    domain.allow({})
    assert until(lambda: domain.names() == [])
    assert until(lambda: not worker.client.attached)
    worker.client.introduce()  # what worker.py does when the domain sends it away
    domain.router.submit(Request("item", "pool", b"payload"))
    assert not until(lambda: not worker.requests.empty(), 1.5)
    domain.allow({"w1": pair[0]})
    worker.client.introduce()
    assert worker.next_request(seconds=10)[0] == "item"


def test_a_worker_that_lost_its_right_is_cut_off(domain: Domain, pair: tuple[str, str]) -> None:
    """Its TCP connection is closed by the domain, and not only ignored; that of another worker stays."""
    other_pair = keys()
    domain.allow({"w1": pair[0], "w2": other_pair[0]})
    domain.worker(pair)
    assert until(lambda: domain.names() == ["w1"])
    context = zmq.Context()
    deaf = context.socket(zmq.DEALER)  # hears that it has to go, and stays
    deaf.curve_publickey, deaf.curve_secretkey = (key.encode() for key in other_pair)
    deaf.curve_serverkey = domain.keys[0].encode()
    events = deaf.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    deaf.connect(domain.url)
    deaf.send_multipart(protocol.frames(protocol.READY, b"pool", b"b" * 32, Beat().encode()))
    assert until(lambda: domain.names() == ["w1", "w2"])
    assert events.poll(1000) == 0
    domain.allow({"w1": pair[0]})
    assert events.poll(5000)
    assert domain.names() == ["w1"]
    context.destroy(linger=0)


def test_two_connections_with_one_key_are_two_workers(domain: Domain, pair: tuple[str, str]) -> None:
    """As a worker has that runs two jobs at a time."""
    first, second = domain.worker(pair), domain.worker(pair, uid="b" * 32)
    assert until(lambda: domain.names() == ["w1", "w1"])
    assert domain.router.wanted() == {"pool": 2}
    for number in range(2):
        domain.router.submit(Request(f"item{number}", "pool", b"payload"))
    assert {first.next_request()[0], second.next_request()[0]} == {"item0", "item1"}
    first.client.leave(1)
    assert until(lambda: domain.names() == ["w1"])
    domain.allow({})
    assert until(lambda: domain.names() == [])


def test_a_damaged_list_throws_nobody_out(domain: Domain, pair: tuple[str, str]) -> None:
    domain.worker(pair)
    assert until(lambda: domain.names() == ["w1"])
    domain.file.write_text('{"w1": ')
    assert not until(lambda: domain.names() == [], 2)


def test_a_request_for_a_worker_that_died_goes_to_another(domain: Domain, pair: tuple[str, str]) -> None:
    """Fault 3: without ROUTER_MANDATORY the message vanishes."""
    other_pair = keys()
    domain.allow({"w1": pair[0], "w2": other_pair[0]})
    domain.worker(pair)
    assert until(lambda: domain.names() == ["w1"])
    dying = domain.opened.pop().client
    dying._context.destroy(linger=0)  # as the kernel does it for a killed process: no goodbye
    time.sleep(0.5)
    domain.router.submit(Request("item", "pool", b"payload"))
    assert domain.worker(other_pair, uid="b" * 32).next_request()[0] == "item"


def test_a_request_that_got_lost_on_the_way_is_sent_again(
    domain: Domain, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pygrid_node.queue_router._LOST_REQUEST_SECONDS", 0.5)
    worker = domain.worker(pair)
    assert until(lambda: domain.names() == ["w1"])
    with worker.client._lock:
        worker.client._beat = replace(worker.client._beat, state="draining")  # refuses the first one
    domain.router.submit(Request("item", "pool", b"payload"))
    assert until(lambda: domain.router.in_hand() == {"item"})
    time.sleep(0.3)
    with worker.client._lock:
        worker.client._beat = replace(worker.client._beat, state="idle")
    assert worker.next_request(seconds=10)[0] == "item"


def test_a_restarted_worker_takes_its_address_over(domain: Domain, pair: tuple[str, str]) -> None:
    first = domain.worker(pair)
    assert until(lambda: domain.names() == ["w1"])
    second = domain.worker(pair)
    assert until(lambda: second.client.attached)
    domain.router.submit(Request("item", "pool", b"payload"))
    assert second.next_request()[0] == "item"
    assert first.requests.empty()


def test_a_silent_worker_is_given_up_with_what_it_did(
    domain: Domain, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "UNREACHABLE_SECONDS", 1.0)
    monkeypatch.setattr(protocol, "HEARTBEAT_SECONDS", 0.2)
    worker = domain.worker(pair)
    assert until(lambda: domain.names() == ["w1"])
    domain.router.submit(Request("item", "pool", b"payload"))
    worker.next_request()
    worker.client.working_on("job1")
    assert until(lambda: domain.router.workers()[0].beat.job == "job1")
    domain.opened.pop().client._context.destroy(linger=0)
    assert until(lambda: len(domain.gone) == 1)
    gone, _why = domain.gone[0]
    assert (gone.name, gone.beat.job, gone.beat.policy) == ("w1", "job1", "requeue")
    assert gone.request is not None
    assert gone.request.item_id == "item"


def test_a_worker_finds_its_restarted_domain_while_busy(domain: Domain, pair: tuple[str, str]) -> None:
    worker = domain.worker(pair)
    domain.router.submit(Request("item", "pool", b"payload"))
    worker.next_request()
    worker.client.working_on("job1")
    domain.router.close()
    domain.start()
    assert until(worker.client.wants_registration.is_set, 10)
    worker.client.introduce()
    assert until(lambda: [entry.beat.job for entry in domain.router.workers()] == ["job1"])
    assert domain.router.wanted() == {}
    worker.client.done("item")
    assert until(lambda: domain.router.wanted() == {"pool": 1})


def test_a_goodbye_is_answered(domain: Domain, pair: tuple[str, str]) -> None:
    worker = domain.worker(pair)
    assert until(lambda: worker.client.attached)
    begin = time.monotonic()
    worker.client.leave(3)
    assert time.monotonic() - begin < 1
    assert worker.client.left.is_set()
    assert [why for _worker, why in domain.gone] == ["it left"]


@pytest.mark.parametrize("listening", [False, True])
def test_leaving_a_domain_that_never_answers_is_quick(domain: Domain, listening: bool) -> None:
    """Fault 9: upstream blocks in send."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        if listening:
            deaf.listen(5)
        worker = domain.worker(keys(), url=f"tcp://127.0.0.1:{deaf.getsockname()[1]}")
        time.sleep(0.5)
        begin = time.monotonic()
        worker.client.leave(2)
        assert time.monotonic() - begin < 2


def test_a_beat_of_another_release_is_understood() -> None:
    assert Beat.decode(b'{"state": "busy", "job": "j", "colour": "red"}') == Beat(state="busy", job="j")
    with pytest.raises(ValueError, match="JSON object"):
        Beat.decode(b"[]")


def test_a_connection_whose_number_is_a_locked_files_by_now_leaves_that_alone(tmp_path: Path) -> None:
    """A copy of the file's descriptor that stays open would hold its lock for ever."""
    path = tmp_path / "lock"
    path.touch()
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        Peer(held.fileno(), ("127.0.0.1", 1)).cut()
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
