# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Domain's side of the blob channel: /internal/blobs/<name> for its Workers on other hosts.

    GET     200, the content and behind it 32 bytes of signature; 304 when If-None-Match names the current version
    PUT     204 once the content is on the disk under its name
    DELETE  204
    GET without a name: 204, so that a Worker can see whether it is let in

Everything that is not signed by a Worker on the list is 401, whatever it asks for. Both directions are streamed: no
dataset and no result is ever in this process's memory as a whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from .blob_files import FileStore, IncomingBlob, OpenBlob
from .blob_gate import CHALLENGE_HEADER, PATH, SIGNATURE_BYTES, SIGNATURE_HEADER, Gate, Grant
from .blob_store import BlobError, BlobMissing, digest_of, is_name

_CHUNK_BYTES = 1 << 20
_THREADS = 4
_NO_STORE = {"Cache-Control": "no-store"}
_T = TypeVar("_T")


class BlobChannel:
    """Answers the channel's requests from the Domain's folder.

    Args:
        store: the Domain's blobs.
        gate: who may.
    """

    def __init__(self, store: FileStore, gate: Gate) -> None:
        self._store, self._gate = store, gate
        # Not the web server's own threads: upstream's calls may hold all of these while they wait for a job, and the
        # job may be waiting for a blob.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    def routes(self) -> APIRouter:
        """The routes, to be included at the root of the Domain's application."""
        router = APIRouter()
        router.add_api_route(f"{PATH}/{{name:path}}", self.answer, methods=["GET", "PUT", "DELETE"])
        return router

    async def answer(self, name: str, request: Request) -> Response:
        """Answer one request."""
        size = _size(request)
        grant = self._gate.admit(request.headers.get("Authorization", ""), request.method, name, size)
        if grant is None:
            return self._refuse()
        if name == "" and request.method == "GET":
            return _signed(grant, 204)
        if not is_name(name):
            return _signed(grant, 400)
        try:
            if request.method == "GET":
                return await self._get(grant, name, request.headers.get("If-None-Match", ""))
            if request.method == "PUT":
                return await self._put(grant, name, size, request)
            await self._in_thread(self._store.delete, name)
            return _signed(grant, 204)
        except BlobMissing:
            return _signed(grant, 404)
        except BlobError as error:
            return _signed(grant, 507, {"error": str(error)})

    def _refuse(self) -> Response:
        return JSONResponse({"error": "unauthorized"}, 401, {CHALLENGE_HEADER: self._gate.challenge_header()})

    async def _get(self, grant: Grant, name: str, held: str) -> Response:
        blob = await self._in_thread(self._store.open, name)
        if blob.version == held:
            blob.stream.close()
            return _signed(grant, 304, version=blob.version)
        headers = {"Content-Length": str(blob.size + SIGNATURE_BYTES), "ETag": blob.version, **_NO_STORE}
        return StreamingResponse(self._content(grant, blob), 200, headers, "application/octet-stream")

    async def _content(self, grant: Grant, blob: OpenBlob) -> AsyncIterator[bytes]:
        digest = hashlib.sha256()

        def next_chunk() -> bytes:
            chunk = blob.stream.read(_CHUNK_BYTES)
            digest.update(chunk)
            return chunk

        with blob.stream:
            while chunk := await self._in_thread(next_chunk):
                yield chunk
        yield grant.sign_answer(200, blob.version, digest.hexdigest())

    async def _put(self, grant: Grant, name: str, size: int, request: Request) -> Response:
        with await self._in_thread(IncomingBlob, self._store.folder, name) as incoming:
            chunk = bytearray()
            async for part in request.stream():
                chunk += part
                if len(chunk) >= _CHUNK_BYTES:
                    await self._in_thread(incoming.write, chunk)
                    chunk = bytearray()
            await self._in_thread(incoming.write, chunk)
            if incoming.size != size or incoming.digest != grant.digest:
                return _signed(grant, 400)
            if not self._gate.still_allows(grant):
                return self._refuse()
            version = await self._in_thread(incoming.commit)
        return _signed(grant, 204, version=version)

    async def _in_thread(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _size(request: Request) -> int:
    """The length that the body says to have; -1, which nobody signs, when there is no saying."""
    if request.headers.get("Transfer-Encoding"):
        return -1
    text = request.headers.get("Content-Length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def _signed(grant: Grant, status: int, document: Any = None, version: str = "") -> Response:
    body = b"" if document is None else json.dumps(document).encode()
    signature = grant.sign_answer(status, version, digest_of(body))
    headers = {**_NO_STORE, SIGNATURE_HEADER: signature.hex()}
    if version:
        headers["ETag"] = version
    return Response(body or None, status, headers, "application/json" if body else None)
