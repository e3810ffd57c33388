# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is let in to a Domain's blobs: forged, replayed, stale and revoked requests are not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

zmq = pytest.importorskip("zmq", reason="runs in the environment of a node: see tests/e2e/test_runtime_units.py")
pytest.importorskip("nacl")

from pygrid_node.allow_list import AllowList  # noqa: E402 - after importorskip
from pygrid_node.blob_gate import EMPTY_DIGEST, ChannelKey, Gate, Grant, authorization, challenge_in  # noqa: E402
from pygrid_node.errors import NodeError  # noqa: E402

NAME = "0123456789abcdef" * 2
DIGEST = "5" * 64


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


@dataclass
class Domain:
    """A gate with one Worker on its list, and a clock to turn."""

    file: Path
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.public, self.secret = keys()
        self.worker_public, self.worker_secret = keys()
        self.allow({"alice-w1": self.worker_public})
        self.key = ChannelKey(self.worker_secret, self.public)
        self.restart()

    def restart(self) -> None:
        self.gate = Gate(self.secret, AllowList(self.file), clock=lambda: self.now)

    def allow(self, workers: dict[str, str]) -> None:
        new = self.file.with_suffix(".new")
        new.touch(0o600)
        new.write_text(json.dumps(workers))
        new.replace(self.file)

    def challenge(self) -> str:
        return challenge_in(self.gate.challenge_header())

    def request(self, method: str = "PUT", name: str = NAME, size: int = 7, digest: str = DIGEST) -> str:
        return authorization(self.key, self.worker_public, method, name, size, self.challenge(), digest)[0]

    def admit(self, header: str, method: str = "PUT", name: str = NAME, size: int = 7) -> Grant | None:
        return self.gate.admit(header, method, name, size)


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    return Domain(tmp_path / "workers.json")


def test_a_worker_on_the_list_is_let_in(domain: Domain) -> None:
    grant = domain.admit(domain.request())
    assert grant is not None
    assert (grant.worker, grant.digest) == ("alice-w1", DIGEST)


def test_both_sides_derive_the_same_key_and_nobody_else(domain: Domain) -> None:
    request = ("GET", NAME, 0, "c" * 32, "d" * 32, EMPTY_DIGEST)
    mine = domain.key.sign_request(*request)
    assert ChannelKey(domain.secret, domain.worker_public).sign_request(*request) == mine
    assert ChannelKey(keys()[1], domain.public).sign_request(*request) != mine
    assert ChannelKey(domain.worker_secret, keys()[0]).sign_request(*request) != mine


@pytest.mark.parametrize("bad", ["", "short", "\x00" * 40, "0" * 40])
def test_an_unusable_key_is_said_so(domain: Domain, bad: str) -> None:
    with pytest.raises(NodeError, match="a queue key is not usable"):
        ChannelKey(domain.worker_secret, bad)


def test_a_request_counts_once(domain: Domain) -> None:
    header = domain.request()
    assert domain.admit(header) is not None
    assert domain.admit(header) is None
    domain.now += 59
    assert domain.admit(header) is None


def test_a_request_counts_for_what_was_signed_only(domain: Domain) -> None:
    header = domain.request()
    assert domain.admit(header, method="DELETE") is None
    assert domain.admit(header, name=NAME + ".csv") is None
    assert domain.admit(header, size=8) is None
    assert domain.admit(header.replace(DIGEST, "6" * 64)) is None
    assert domain.admit(header) is not None  # so it was the difference each time


def test_every_character_of_the_signature_counts(domain: Domain) -> None:
    for position in (-1, -32, -64):
        header = domain.request()
        flipped = "0" if header[position] != "0" else "1"
        forged = header[:position] + flipped + (header[position + 1 :] if position != -1 else "")
        assert domain.admit(forged) is None
        assert domain.admit(header) is not None


def test_another_key_does_not_pass_for_the_workers(domain: Domain) -> None:
    """A stranger knows the public keys of both, and signs with a key of his own."""
    stranger = ChannelKey(keys()[1], domain.public)
    forged, _signature = authorization(stranger, domain.worker_public, "PUT", NAME, 7, domain.challenge(), DIGEST)
    assert domain.admit(forged) is None
    public, secret = keys()
    own, _signature = authorization(
        ChannelKey(secret, domain.public), public, "PUT", NAME, 7, domain.challenge(), DIGEST
    )
    assert domain.admit(own) is None
    domain.allow({"alice-w1": domain.worker_public, "alice-w2": public})
    assert domain.admit(own) is not None


def test_who_is_taken_off_the_list_is_locked_out_at_once(domain: Domain) -> None:
    running = domain.admit(domain.request())
    assert running is not None
    assert domain.gate.still_allows(running)
    waiting = domain.request()
    domain.allow({})
    assert domain.admit(waiting) is None
    assert domain.admit(domain.request()) is None
    assert not domain.gate.still_allows(running)


def test_a_challenge_ends(domain: Domain) -> None:
    fresh, old = domain.request(), domain.request()
    domain.now += 119
    assert domain.admit(fresh) is not None
    domain.now += 2
    assert domain.admit(old) is None
    assert domain.admit(domain.request()) is not None


def test_what_was_recorded_before_a_restart_is_worthless(domain: Domain) -> None:
    header = domain.request()
    domain.restart()
    assert domain.admit(header) is None


def test_memory_of_requests_ends_with_their_challenge(domain: Domain) -> None:
    for _unused in range(50):
        assert domain.admit(domain.request()) is not None
    assert sum(len(challenge.seen) for challenge in domain.gate._challenges) == 50
    domain.now += 121
    assert domain.admit(domain.request()) is not None
    assert sum(len(challenge.seen) for challenge in domain.gate._challenges) == 1


@pytest.mark.parametrize("header", ["", "Basic YTpi", "PyGrid", "PyGrid a b c d e", "PyGrid " + "0" * 330])
def test_nonsense_is_refused(domain: Domain, header: str) -> None:
    assert domain.admit(header) is None


def test_a_flood_of_refusals_is_one_line(domain: Domain, caplog: pytest.LogCaptureFixture) -> None:
    forged = domain.request()[:-4] + "0000"
    for _unused in range(100):
        domain.admit(forged)
    assert len([line for line in caplog.records if "refused" in line.getMessage()]) == 1


def test_an_answer_belongs_to_one_request(domain: Domain) -> None:
    header, request = authorization(domain.key, domain.worker_public, "GET", NAME, 0, domain.challenge(), EMPTY_DIGEST)
    grant = domain.admit(header, method="GET", size=0)
    assert grant is not None
    answer = grant.sign_answer(200, "v1", DIGEST)
    assert answer == domain.key.sign_answer(request, 200, "v1", DIGEST)
    assert answer != domain.key.sign_answer(request, 200, "v2", DIGEST)
    assert answer != domain.key.sign_answer(request, 304, "v1", DIGEST)
    assert answer != domain.key.sign_answer(b"\0" * 32, 200, "v1", DIGEST)
