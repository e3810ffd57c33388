# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores of blobs: files, the channel from a Domain to its Workers over a real server, and the cache in front of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

zmq = pytest.importorskip("zmq", reason="runs in the environment of a node: see tests/e2e/test_runtime_units.py")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("nacl")

from fastapi import FastAPI  # noqa: E402 - after importorskip

from pygrid_node import blob_cache, blob_client  # noqa: E402
from pygrid_node.allow_list import AllowList  # noqa: E402
from pygrid_node.blob_cache import BlobCache  # noqa: E402
from pygrid_node.blob_channel import BlobChannel  # noqa: E402
from pygrid_node.blob_client import ChannelStore  # noqa: E402
from pygrid_node.blob_files import FileStore, IncomingBlob  # noqa: E402
from pygrid_node.blob_gate import EMPTY_DIGEST, ChannelKey, Gate, authorization, challenge_in  # noqa: E402
from pygrid_node.blob_store import BlobError, BlobMissing, checked_url, digest_of, is_name  # noqa: E402
from pygrid_node.errors import NodeError  # noqa: E402

UID = "0123456789abcdef" * 2
BIG = os.urandom(3_000_000)


def made(folder: Path) -> Path:
    """A folder as a Domain makes it at its start."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("name", [UID, f"{UID}.csv", f"{UID}.tar.gz", f"{UID}.año 2", "f" * 32])
def test_names_of_syft(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", UID[:-1], UID.upper(), f"/{UID}", f"../{UID}", f".{UID}", f"{UID}@1"])
def test_names_that_do_not_begin_with_a_uid(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("suffix", [".", "..", "/x", "./../x", "\n", ".a\x00", ".a\n", ".a\\b", ".a/b", ".é" * 80])
def test_suffixes_that_are_none(suffix: str) -> None:
    assert not is_name(UID + suffix)


@pytest.mark.parametrize("url", ["https://alice.example", "https://alice.example:8443/", "http://127.0.0.1:5000"])
def test_urls_that_are_safe(url: str) -> None:
    assert checked_url(url, "blobs.url") == url.rstrip("/")


@pytest.mark.parametrize("url", ["http://alice.example", "http://10.0.0.1:5000", "ftp://x", "alice", "https://u:p@h"])
def test_urls_that_are_not(url: str) -> None:
    with pytest.raises(NodeError, match="url"):
        checked_url(url, "blobs.url")


def test_files(tmp_path: Path) -> None:
    store = FileStore(made(tmp_path / "blobs"))
    with pytest.raises(BlobMissing, match=f"no blob {UID}"):
        store.read(UID)
    store.write(UID, b"one")
    store.write(UID, b"two")
    assert store.read(UID) == b"two"
    assert [path.name for path in store.folder.iterdir()] == [UID]
    assert (store.folder / UID).stat().st_mode & 0o777 == 0o600
    store.delete(UID)
    with pytest.raises(BlobMissing):
        store.delete(UID)


def test_a_blob_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    store = FileStore(made(tmp_path / "blobs"))
    store.write(UID, b"old")
    reading = store.open(UID)
    with IncomingBlob(store.folder, UID) as incoming:
        incoming.write(b"new ")
        assert store.read(UID) == b"old"
        incoming.write(b"content")
        version = incoming.commit()
    assert store.read(UID) == b"new content"
    with store.open(UID).stream, reading.stream as stream:
        assert store.open(UID).version == version != reading.version
        assert stream.read() == b"old"
    with contextlib.suppress(ZeroDivisionError), IncomingBlob(store.folder, UID) as incoming:
        incoming.write(b"never finished")
        raise ZeroDivisionError
    assert [path.name for path in store.folder.iterdir()] == [UID]


def test_what_a_killed_writer_left_goes_after_a_day(tmp_path: Path) -> None:
    store = FileStore(made(tmp_path / "blobs"))
    for name, age_seconds in (("old", 90_000), ("new", 10)):
        path = store.folder / f".{UID}.{name}.part"
        path.touch()
        os.utime(path, (time.time() - age_seconds,) * 2)
    store.write(UID, b"x")
    store.clean()
    assert sorted(path.name for path in store.folder.iterdir()) == [f".{UID}.new.part", UID]


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, max_bytes=100)
    names = [f"{number:032x}" for number in range(4)]
    for age, name in zip((30, 20, 10), names, strict=False):
        cache.put(name, "v1", b"x" * 30)
        os.utime(next(tmp_path.rglob(f"{name}@v1")), (time.time() - age,) * 2)
    assert cache.get(names[0], "v1") == b"x" * 30  # used now, so the second is the oldest
    cache.put(names[3], "v1", b"x" * 30)
    assert [cache.version(name) for name in names] == ["v1", "", "v1", "v1"]
    cache.put(names[2], "v2", b"y")
    assert (cache.version(names[2]), cache.get(names[2], "v1"), cache.get(names[2], "v2")) == ("v2", None, b"y")
    cache.put(names[1], "v1", b"x" * 101)
    cache.put(names[1], "../v1", b"x")
    assert cache.version(names[1]) == ""


def test_a_boot_empties_the_cache_and_a_restart_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = BlobCache(tmp_path)
    cache.put(UID, "v1", b"x")
    (torn,) = (path.parent / ".torn" for path in tmp_path.rglob(f"{UID}@v1"))
    torn.touch()
    assert BlobCache(tmp_path).get(UID, "v1") == b"x"
    assert not torn.exists()
    boot = tmp_path.parent / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(blob_cache, "_BOOT_ID", boot)
    assert BlobCache(tmp_path).version(UID) == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["another"]


def test_a_cache_that_cannot_be_used_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = BlobCache(tmp_path / "cache")
    monkeypatch.setattr(blob_cache, "_KEEP_FREE_BYTES", 1 << 60)  # a full disk
    cache.put(UID, "v1", b"x")
    assert cache.version(UID) == ""
    monkeypatch.undo()
    for path in (tmp_path / "cache").iterdir():
        path.rmdir()
    cache.put(UID, "v1", b"x")
    cache.drop(UID)
    assert (cache.version(UID), cache.get(UID, "v1")) == ("", None)


class Domain:
    """A Domain's channel on a real server of the loopback interface."""

    def __init__(self, folder: Path) -> None:
        self.public, self.secret = (key.decode() for key in zmq.curve_keypair())
        self.worker_public, self.worker_secret = (key.decode() for key in zmq.curve_keypair())
        self.file = folder / "workers.json"
        self.store = FileStore(made(folder / "blobs"))
        self.answered: list[tuple[str, int]] = []
        self.allow({"alice-w1": self.worker_public})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def allow(self, workers: dict[str, str]) -> None:
        self.file.touch(0o600)
        self.file.write_text(json.dumps(workers))

    def start(self) -> None:
        app = FastAPI()
        app.include_router(BlobChannel(self.store, Gate(self.secret, AllowList(self.file))).routes())

        async def noted(scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                if message["type"] == "http.response.start":
                    self.answered.append((scope["method"], message["status"]))
                await send(message)

            await app(scope, receive, note)

        self._server = uvicorn.Server(
            uvicorn.Config(noted, port=self.port, log_level="error", timeout_graceful_shutdown=0, lifespan="off")
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def key(self) -> ChannelKey:
        return ChannelKey(self.worker_secret, self.public)

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None) -> tuple[int, bytes]:
        """A raw request, as whoever is not our client would make it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            self.challenge = challenge_in(response.headers.get("WWW-Authenticate", ""))
            return response.status, response.read()

    def signed(self, method: str, name: str, body: bytes = b"") -> dict[str, str]:
        self.ask("GET", "/internal/blobs/")
        digest = digest_of(body) if body else EMPTY_DIGEST
        values = (self.key(), self.worker_public, method, name, len(body), self.challenge, digest)
        return {"Authorization": authorization(*values)[0]}


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    domain = Domain(tmp_path)
    yield domain
    domain.stop()


@pytest.fixture
def worker(domain: Domain, tmp_path: Path) -> ChannelStore:
    return ChannelStore(
        domain.url, domain.key(), domain.worker_public, BlobCache(tmp_path / "cache"), patience_seconds=5
    )


def copies(folder: Path) -> list[str]:
    """What the cache holds of our blob, finished or not."""
    return [path.name for path in (folder / "cache").rglob("*") if path.is_file()]


def test_there_and_back(domain: Domain, worker: ChannelStore) -> None:
    assert worker.problem() == ""
    for name, content in ((UID, BIG), (f"{UID}.año 2", b"x"), ("e" * 32, b"")):
        worker.write(name, content)
        assert domain.store.read(name) == content == worker.read(name)
    worker.delete(UID)
    for gone in (worker.read, worker.delete, domain.store.read):
        with pytest.raises(BlobMissing):
            gone(UID)


def test_a_dataset_crosses_the_network_once(domain: Domain, worker: ChannelStore, tmp_path: Path) -> None:
    domain.store.write(UID, BIG)
    assert worker.read(UID) == BIG
    domain.answered.clear()
    assert worker.read(UID) == BIG
    assert domain.answered == [("GET", 304)]
    domain.store.write(UID, b"something else")  # upstream writes a changed object under its old name
    assert worker.read(UID) == b"something else"
    assert len(copies(tmp_path)) == 1
    domain.allow({})
    with pytest.raises(BlobError, match=r"not on the Domain's list \(workers.json\)"):
        worker.read(UID)  # a copy is for those who may read


def test_copies_that_vanish_are_fetched_again(domain: Domain, worker: ChannelStore, tmp_path: Path) -> None:
    worker.write(UID, BIG)
    original = worker._cache.version
    worker._cache.version = lambda name: original(name) or pytest.fail("there was a copy")  # type: ignore[method-assign]
    held = worker._cache.version(UID)
    worker._cache.drop(UID)  # by another process, between the question and the answer
    worker._cache.version = lambda _name: held  # type: ignore[method-assign]
    assert worker.read(UID) == BIG


def test_a_stranger_learns_nothing(domain: Domain) -> None:
    domain.store.write(UID, b"private")
    for name in (UID, "f" * 32, "", "..%2f..%2fworkers.json", "../workers.json", "x" * 300):
        for method, body in (("GET", None), ("PUT", b"x"), ("DELETE", None)):
            answer = domain.ask(method, f"/internal/blobs/{name}", body=body)
            assert answer == (401, b'{"error":"unauthorized"}'), (method, name)
    assert domain.store.read(UID) == b"private"


def test_a_worker_gets_nothing_but_blobs(domain: Domain) -> None:
    for name in ("../workers.json", "..", ".", f"{UID}/../../workers.json", f"{UID}x", "workers.json"):
        quoted = name.replace("/", "%2f")
        for method, body in (("GET", b""), ("PUT", b"{}"), ("DELETE", b"")):
            status, _text = domain.ask(method, f"/internal/blobs/{quoted}", domain.signed(method, name, body), body)
            assert status == 400, (method, name)
    assert domain.file.read_text() != "{}"
    assert [path.name for path in domain.store.folder.iterdir()] == []


def test_replayed_and_changed_requests_are_refused(domain: Domain) -> None:
    headers = domain.signed("PUT", UID, b"first")
    assert domain.ask("PUT", f"/internal/blobs/{UID}", headers, b"first")[0] == 204
    domain.store.write(UID, b"second")
    assert domain.ask("PUT", f"/internal/blobs/{UID}", headers, b"first")[0] == 401
    assert domain.ask("PUT", f"/internal/blobs/{UID}", domain.signed("PUT", UID, b"first"), b"other")[0] == 400
    assert domain.ask("PUT", f"/internal/blobs/{UID}", domain.signed("PUT", UID, b"longer"), b"other")[0] == 401
    assert domain.ask("DELETE", f"/internal/blobs/{UID}", domain.signed("GET", UID))[0] == 401
    without_length = domain.signed("PUT", UID)
    assert domain.ask("PUT", f"/internal/blobs/{UID}", without_length, iter([b"x"]))[0] == 401
    assert domain.store.read(UID) == b"second"
    assert [path.name for path in domain.store.folder.iterdir()] == [UID]


def test_an_upload_that_breaks_off_leaves_nothing(domain: Domain) -> None:
    headers = {**domain.signed("PUT", UID, BIG), "Content-Length": str(len(BIG))}
    with socket.create_connection(("127.0.0.1", domain.port)) as connection:
        text = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        connection.sendall(f"PUT /internal/blobs/{UID} HTTP/1.1\r\nHost: x\r\n{text}\r\n".encode() + BIG[:2_000_000])
        assert until(lambda: list(domain.store.folder.iterdir()))
    assert until(lambda: not list(domain.store.folder.iterdir()))


def until(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Spoiler:
    """A server before the Domain that passes one connection at a time, and spoils answers as it is told."""

    def __init__(self, domain: Domain) -> None:
        self._domain, self._listener = domain, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.spoil: Callable[[bytes], bytes | None] = lambda data: data
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            client, _address = self._listener.accept()
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._domain.port)) as server:
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    server.sendall(data)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                spoilt = self.spoil(data)
                if spoilt is None:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(spoilt)
            client.shutdown(socket.SHUT_RDWR)


def test_a_download_that_breaks_off_is_tried_again_and_leaves_nothing(
    domain: Domain, worker: ChannelStore, tmp_path: Path
) -> None:
    domain.store.write(UID, BIG)
    spoiler, passed, cuts = Spoiler(domain), [0], [0]

    def cut(data: bytes) -> bytes | None:
        passed[0] += len(data)
        if passed[0] > 1_000_000 and cuts[0] < 2:
            passed[0], cuts[0] = 0, cuts[0] + 1
            assert copies(tmp_path) == []
            return None
        return data

    spoiler.spoil = cut
    worker._url = f"http://127.0.0.1:{spoiler.port}"
    assert worker.read(UID) == BIG
    assert cuts == [2]
    assert len(copies(tmp_path)) == 1


def test_an_answer_that_was_changed_is_refused(domain: Domain, worker: ChannelStore, tmp_path: Path) -> None:
    domain.store.write(UID, BIG)
    spoiler, passed = Spoiler(domain), [0]
    worker._url = f"http://127.0.0.1:{spoiler.port}"

    def flip(data: bytes) -> bytes:
        before, passed[0] = passed[0], passed[0] + len(data)
        return bytes([data[0] ^ 1]) + data[1:] if before < 1_000_000 <= passed[0] else data

    spoiler.spoil = flip
    with pytest.raises(BlobError, match="damaged, or not from this Worker's Domain"):
        worker.read(UID)
    assert copies(tmp_path) == []


def test_another_domain_at_the_address_is_refused(domain: Domain, worker: ChannelStore, tmp_path: Path) -> None:
    """It knows the Worker's key, but not the secret key of its Domain."""
    (tmp_path / "other").mkdir()
    other = Domain(tmp_path / "other")
    other.allow({"alice-w1": domain.worker_public})
    worker._url = other.url
    with pytest.raises(BlobError, match="another key than this Worker was told"):
        worker.write(UID, b"private")
    other.stop()
    assert list(other.store.folder.iterdir()) == []


def test_a_restart_of_the_domain_is_waited_for(domain: Domain, worker: ChannelStore) -> None:
    worker.write(UID, b"before")
    domain.stop()
    threading.Timer(1.0, domain.start).start()
    began = time.monotonic()
    worker.write(UID, BIG)
    assert 0.9 < time.monotonic() - began < 4
    assert domain.store.read(UID) == BIG


def test_patience_ends(domain: Domain, worker: ChannelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    domain.stop()
    worker._patience_seconds = 0.5
    monkeypatch.setattr(blob_client, "_PAUSES_SECONDS", (0.1,))
    began = time.monotonic()
    with pytest.raises(BlobError, match=rf"cannot reach the Domain at {domain.url}: no connection: .*refused"):
        worker.read(UID)
    assert time.monotonic() - began < 1.5
    assert "cannot reach the Domain" in worker.problem()
    domain.start()


def test_somebody_else_at_the_address(worker: ChannelStore) -> None:
    app = FastAPI()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        worker._url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert until(lambda: server.started)
        assert "has no blobs for Workers (HTTP 404): is it the Domain?" in worker.problem()
        server.should_exit = True
        thread.join()
