# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who belongs to a Network or a Domain, for the one who keeps the grid's inventory.

It is asked by the inventory plugin openmined.pygrid.grid, with a token of which the node knows no more than a digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

PATH = "/internal/members"


def member_routes(digest: str, answer: Callable[[], dict[str, Any]]) -> APIRouter:
    """The route of a node.

    Args:
        digest: SHA-256 of the observer's token, in hex.
        answer: the node and its members; empty while they cannot be read.
    """
    router = APIRouter()

    @router.get(PATH)
    async def members(request: Request) -> Response:
        scheme, _space, token = request.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode()).hexdigest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, digest):
            return JSONResponse({"error": "this needs the observer's token"}, 401, {"WWW-Authenticate": "Bearer"})
        document = await asyncio.to_thread(answer)
        if not document:
            return JSONResponse({"error": "the database does not answer"}, 503)
        return JSONResponse(document)

    return router
