# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Worker's side of the blob channel: the store of a Worker that has no folder in common with its Domain.

What is read comes from the Domain, or from the cache when the Domain says that the copy is current. What is written is
on the Domain's disk before `write` returns, so a result that a job reports is never lost with its Worker.
"""

from __future__ import annotations

import hmac
import io
import json
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, SSLError, TimeoutError

from .blob_cache import BlobCache
from .blob_gate import (
    CHALLENGE_HEADER,
    EMPTY_DIGEST,
    PATH,
    SIGNATURE_BYTES,
    SIGNATURE_HEADER,
    ChannelKey,
    authorization,
    challenge_in,
)
from .blob_store import BlobError, BlobMissing, digest_of

log = logging.getLogger("pygrid_node.blobs")

PATIENCE_SECONDS = 120.0  # a Domain that is upgraded is away for less
_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 3.0)
_CHALLENGE_SECONDS = 30.0  # half of what the Domain grants, so that none expires on the way
_BLOCK_BYTES = 1 << 20
_AWAY = (502, 503, 504)  # what the ingress says while the Domain is restarted
_TIMEOUT = urllib3.Timeout(connect=10, read=60)


class _Away(Exception):
    """The Domain could not be asked now; another try may work."""


@dataclass(frozen=True)
class _Answer:
    status: int
    version: str
    data: bytes


class ChannelStore:
    """Blobs of a Domain on another host.

    Args:
        url: the Domain's base URL, as `checked_url` returns it.
        key: the key shared with the Domain.
        public_key: the Worker's queue public key, Z85.
        cache: the Worker's copies.
        trust_file: PEM file of the authorities that may vouch for the Domain; None for the system's.
        patience_seconds: how long a Domain may be away before a job fails for it.
    """

    def __init__(
        self,
        url: str,
        key: ChannelKey,
        public_key: str,
        cache: BlobCache,
        trust_file: Path | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._url, self._key, self._public_key, self._cache = url, key, public_key, cache
        self._patience_seconds = patience_seconds
        self._challenge, self._challenge_at = "", 0.0
        # Not requests, which sends everything by a proxy when the environment, that user code can change, says so.
        self._pool = urllib3.PoolManager(
            retries=False, timeout=_TIMEOUT, blocksize=_BLOCK_BYTES, cert_reqs="CERT_REQUIRED",
            ca_certs=str(trust_file) if trust_file else None,
        )  # fmt: skip

    def read(self, name: str) -> bytes:
        held = self._cache.version(name)
        answer = self._patiently(lambda: self._exchange("GET", name, held=held))
        if answer.status == 304:
            data = self._cache.get(name, held)
            if data is not None:
                return data
            answer = self._patiently(lambda: self._exchange("GET", name))
        self._check(answer, name, 200)
        self._cache.put(name, answer.version, answer.data)
        return answer.data

    def write(self, name: str, data: bytes) -> None:
        answer = self._patiently(lambda: self._exchange("PUT", name, data))
        self._check(answer, name, 204)
        self._cache.put(name, answer.version, data)

    def delete(self, name: str) -> None:
        answer = self._patiently(lambda: self._exchange("DELETE", name))
        self._cache.drop(name)
        self._check(answer, name, 204)

    def problem(self) -> str:
        try:
            self._check(self._exchange("GET", ""), "", 204)
        except (_Away, BlobError) as error:
            return str(error)
        return ""

    def _check(self, answer: _Answer, name: str, expected: int) -> None:
        if answer.status == 404:
            self._cache.drop(name)
            raise BlobMissing(name)
        if answer.status != expected:
            raise BlobError(f"the Domain at {self._url} refused blob {name}: {_reason(answer)}")

    def _patiently(self, attempt: Callable[[], _Answer]) -> _Answer:
        """Try again while the Domain is away; raises BlobError when that takes too long."""
        deadline = time.monotonic() + self._patience_seconds
        tries = 0
        while True:
            try:
                return attempt()
            except _Away as away:
                pause = _PAUSES_SECONDS[min(tries, len(_PAUSES_SECONDS) - 1)]
                if time.monotonic() + pause > deadline:
                    raise BlobError(str(away)) from None
                if tries == 0:
                    log.warning("%s; trying again for %.0f s", away, self._patience_seconds)
                tries += 1
            time.sleep(pause)

    def _exchange(self, method: str, name: str, body: bytes = b"", held: str = "") -> _Answer:
        """One signed request; the second try is for a challenge that a restart of the Domain made worthless."""
        for _unused in range(2):
            answer = self._signed_request(method, name, body, held)
            if answer is not None:
                return answer
            self._challenge = ""
        raise BlobError(
            f"the Domain at {self._url} lets this Worker have no blobs: its key is not on the Domain's list"
            " (workers.json), or the Domain has another key than this Worker was told"
        )

    def _signed_request(self, method: str, name: str, body: bytes, held: str) -> _Answer | None:
        """The Domain's answer, after a check that it is the Domain's; None when it says 401."""
        digest = digest_of(body) if body else EMPTY_DIGEST
        size, challenge = len(body), self._current_challenge()
        header, request = authorization(self._key, self._public_key, method, name, size, challenge, digest)
        headers = {"Authorization": header}
        if held:
            headers["If-None-Match"] = held
        if method == "PUT":
            headers["Content-Length"] = str(size)
        response = self._send(method, name, headers, io.BytesIO(body) if method == "PUT" else None)
        try:
            if response.status == 401:
                response.drain_conn()
                return None
            answer, signature = self._receive(response)
        except (HTTPError, OSError) as error:
            raise self._away(error) from None
        finally:
            response.release_conn()
        expected = self._key.sign_answer(request, answer.status, answer.version, digest_of(answer.data))
        if not hmac.compare_digest(signature, expected.hex().encode()):
            raise BlobError(f"the answer of {self._url} for blob {name} is damaged, or not from this Worker's Domain")
        return answer

    def _receive(self, response: urllib3.BaseHTTPResponse) -> tuple[_Answer, bytes]:
        version = response.headers.get("ETag", "")
        if response.status != 200:
            data = response.read()
            text = response.headers.get(SIGNATURE_HEADER, "")
            return _Answer(response.status, version, data), text.encode()
        size = int(response.headers.get("Content-Length", "-1")) - SIGNATURE_BYTES
        data = response.read(size)  # at once, so that a large content is not in memory twice
        signature = response.read()
        if len(data) != size or len(signature) != SIGNATURE_BYTES:
            raise ProtocolError(f"{len(data)} of {size} bytes")
        return _Answer(200, version, data), signature.hex().encode()

    def _send(
        self, method: str, name: str, headers: dict[str, str], body: io.BytesIO | None = None
    ) -> urllib3.BaseHTTPResponse:
        """The answer of whoever listens at the Domain's address, its body not read yet; raises _Away."""
        try:
            response = self._pool.request(
                method, f"{self._url}{PATH}/{quote(name, safe='')}", body=body, redirect=False, preload_content=False,
                headers={"Accept-Encoding": "identity", **headers},
            )  # fmt: skip
        except SSLError as error:
            if error.args and isinstance(error.args[0], ssl.SSLCertVerificationError):
                reason = error.args[0].verify_message
                raise BlobError(f"this Worker does not trust the certificate of {self._url}: {reason}") from None
            raise self._away(error) from None
        except (HTTPError, OSError) as error:
            raise self._away(error) from None
        if response.status in _AWAY:
            response.drain_conn()
            response.release_conn()
            raise _Away(f"the Domain at {self._url} is away (HTTP {response.status})")
        return response

    def _current_challenge(self) -> str:
        if not self._challenge or time.monotonic() - self._challenge_at > _CHALLENGE_SECONDS:
            response = self._send("GET", "", {})
            response.drain_conn()
            response.release_conn()
            self._challenge = challenge_in(response.headers.get(CHALLENGE_HEADER, ""))
            if not self._challenge:
                raise BlobError(f"{self._url} has no blobs for Workers (HTTP {response.status}): is it the Domain?")
            self._challenge_at = time.monotonic()
        return self._challenge

    def _away(self, error: Exception) -> _Away:
        return _Away(f"cannot reach the Domain at {self._url}: {_cause(error)}")


def _reason(answer: _Answer) -> str:
    try:
        return str(json.loads(answer.data)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status}"


def _cause(error: Exception) -> str:
    """The reason without urllib3's description of its objects."""
    if isinstance(error, NewConnectionError):
        return "no connection: " + str(error).rpartition(": ")[2]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(error).split())[:200]
