# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use a Domain's blob channel: requests and answers signed with a key that a Worker and its Domain share.

Both derive it from the queue's key pairs that they have anyway (X25519), so there is no secret more to make, carry and
rotate, and a Worker that is taken off workers.json is locked out of both at the same moment. TLS hides what travels;
the signatures say who asks, for what, with which content, and that the answer is the Domain's, to this very request.

A request carries a challenge that the Domain hands to everybody, in place of a time: no clock needs to be right, and
what was recorded before a restart of the Domain is worthless after it.

    Authorization: PyGrid <Worker's public key> <challenge> <nonce> <SHA-256 of the body> <signature>    (all in hex)
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey
from zmq.utils import z85

from .allow_list import AllowList
from .errors import NodeError

log = logging.getLogger("pygrid_node.blobs")

PATH = "/internal/blobs"
SCHEME = "PyGrid"
CHALLENGE_HEADER = "WWW-Authenticate"
SIGNATURE_HEADER = "PyGrid-Signature"
SIGNATURE_BYTES = 32
EMPTY_DIGEST = hashlib.sha256().hexdigest()
_CHALLENGE_SECONDS = 60.0  # a challenge is handed out for so long, and taken for twice as long
_WARN_SECONDS = 10.0
_AUTHORIZATION = re.compile(
    rf"{SCHEME} (?P<worker>[0-9a-f]{{64}}) (?P<challenge>[0-9a-f]{{32}}) (?P<nonce>[0-9a-f]{{32}})"
    r" (?P<digest>[0-9a-f]{64}) (?P<signature>[0-9a-f]{64})"
)
_CHALLENGE = re.compile(rf'{SCHEME} challenge="([0-9a-f]{{32}})"')


class ChannelKey:
    """The key that a Worker and its Domain share, and nobody else can compute. Neither's own secret follows from it."""

    def __init__(self, own_secret_key: str, other_public_key: str) -> None:
        """Both Z85, as CURVE has them; raises NodeError."""
        try:
            box = Box(PrivateKey(z85.decode(own_secret_key)), PublicKey(z85.decode(other_public_key)))
            shared = box.shared_key()
        except (CryptoError, ValueError, TypeError, KeyError):
            raise NodeError("a queue key is not usable") from None
        # Derived, so that nothing signed here can ever be mistaken for a part of CURVE's own handshake.
        self._key = hashlib.blake2b(key=shared, person=b"pygrid-blobs-1", digest_size=32).digest()

    def sign_request(self, method: str, name: str, size: int, challenge: str, nonce: str, digest: str) -> bytes:
        return self._sign("request", method, name, str(size), challenge, nonce, digest)

    def sign_answer(self, request: bytes, status: int, version: str, digest: str) -> bytes:
        """`request` is the signature of the request that is answered."""
        return self._sign("answer", request.hex(), str(status), version, digest)

    def _sign(self, *parts: str) -> bytes:
        # Names and versions hold no line feed, so two different requests never give the same text.
        return hmac.digest(self._key, "\n".join(parts).encode(), "sha256")


@dataclass(frozen=True)
class Grant:
    """A request that was admitted.

    Attributes:
        worker: the Worker's name on the list.
        digest: SHA-256 (hex) that the body must have.
    """

    worker: str
    digest: str
    public_key: str
    key: ChannelKey
    request: bytes

    def sign_answer(self, status: int, version: str = "", digest: str = EMPTY_DIGEST) -> bytes:
        return self.key.sign_answer(self.request, status, version, digest)


@dataclass(frozen=True)
class _Challenge:
    text: str
    born: float
    seen: set[str]


class Gate:
    """The Domain's side: hands out challenges and decides who is let in.

    Args:
        secret_key: the Domain's queue secret key, Z85.
        allow_list: the Domain's Workers, read live.
        clock: seconds that only grow.
    """

    def __init__(self, secret_key: str, allow_list: AllowList, clock: Callable[[], float] = time.monotonic) -> None:
        self._secret_key, self._allow_list, self._clock = secret_key, allow_list, clock
        self._lock = threading.Lock()
        self._challenges: list[_Challenge] = []
        self._keys: dict[str, ChannelKey] = {}
        self._warned_at = -_WARN_SECONDS

    def challenge_header(self) -> str:
        """What a refused request is told."""
        with self._lock:
            self._renew()
            return f'{SCHEME} challenge="{self._challenges[-1].text}"'

    def admit(self, authorization: str, method: str, name: str, size: int) -> Grant | None:
        """The grant for a request, or None: whoever is refused is never told why."""
        match = _AUTHORIZATION.fullmatch(authorization)
        if match is None:
            return None
        public_key = z85.encode(bytes.fromhex(match["worker"])).decode()
        worker = self._allow_list.name_of(public_key)
        if worker is None:
            self._warn("its key is on no list")
            return None
        key = self._key_of(public_key)
        if key is None:
            return None
        fields = (match["challenge"], match["nonce"], match["digest"])
        signature = bytes.fromhex(match["signature"])
        if not hmac.compare_digest(signature, key.sign_request(method, name, size, *fields)):
            self._warn(f"it has no right to the name {worker}")
            return None
        if not self._first_time(match["challenge"], match["nonce"]):
            return None  # every Worker begins with an old challenge after a pause, so this is no event
        return Grant(worker, match["digest"], public_key, key, signature)

    def still_allows(self, grant: Grant) -> bool:
        """Whether the Worker is still on the list, at the end of a long request."""
        return self._allow_list.name_of(grant.public_key) is not None

    def _key_of(self, public_key: str) -> ChannelKey | None:
        if public_key not in self._keys:
            try:
                self._keys[public_key] = ChannelKey(self._secret_key, public_key)
            except NodeError:
                return None
        return self._keys[public_key]

    def _first_time(self, text: str, nonce: str) -> bool:
        """Whether the challenge is a current one and the nonce is new to it."""
        with self._lock:
            self._renew()
            challenge = next((known for known in self._challenges if known.text == text), None)
            if challenge is None or nonce in challenge.seen:
                return False
            challenge.seen.add(nonce)
            return True

    def _renew(self) -> None:
        now = self._clock()
        self._challenges = [known for known in self._challenges if now - known.born < 2 * _CHALLENGE_SECONDS]
        if not self._challenges or now - self._challenges[-1].born >= _CHALLENGE_SECONDS:
            self._challenges.append(_Challenge(secrets.token_hex(16), now, set()))

    def _warn(self, reason: str) -> None:
        now = self._clock()
        if now - self._warned_at >= _WARN_SECONDS:  # a flood of requests shall not become a flood of lines
            self._warned_at = now
            log.warning("refused a request for blobs: %s", reason)


def challenge_in(header: str) -> str:
    """The challenge that a refusal brings, "" when it brings none."""
    match = _CHALLENGE.fullmatch(header)
    return match[1] if match else ""


def authorization(
    key: ChannelKey, public_key: str, method: str, name: str, size: int, challenge: str, digest: str
) -> tuple[str, bytes]:
    """The Worker's side: the header of a request, and the signature to which the answer must refer."""
    nonce = secrets.token_hex(16)
    signature = key.sign_request(method, name, size, challenge, nonce, digest)
    worker = z85.decode(public_key).hex()
    return f"{SCHEME} {worker} {challenge} {nonce} {digest} {signature.hex()}", signature
