# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one call that peers may make of a node that lets nobody else in: do you know me?

It is how the other nodes of a grid see, before people are let in again, that a node on trial is there for them: through
the same names, proxies and certificates, and understood by both releases of syft.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

PATH = "/internal/peers"
#: Reads one row, and says whether the caller is a peer.
CALL = "network.check_peer_association"
_MOST_BYTES = 65536


def peer_routes(server: Any) -> APIRouter:
    """The route of a running network or domain. What is not that call, signed by its caller, is 404."""
    router = APIRouter()

    @router.post(PATH)
    async def answer(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BYTES:
                return JSONResponse({"error": "too large"}, 413)
        content = await asyncio.to_thread(_answer, server, body)
        if content is None:
            return JSONResponse({"error": "peers ask here whether they are known, nothing else"}, 404)
        return Response(content, media_type="application/octet-stream")

    return router


def _answer(server: Any, body: bytes) -> bytes | None:
    from syft.client.api import SignedSyftAPICall
    from syft.serde.deserialize import _deserialize
    from syft.serde.serialize import _serialize

    try:
        call = _deserialize(body, from_bytes=True)
    except Exception:  # whatever the bytes of a stranger make the decoder do
        return None
    if not isinstance(call, SignedSyftAPICall) or call.message.path != CALL:
        return None
    return _serialize(server.handle_api_call(call), to_bytes=True)
