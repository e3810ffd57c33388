# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes below /control of a network or a domain; http.py lets them answer on the control socket only."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from .association import Associations
from .settings import Settings


def control_routes(settings: Settings, associations: Associations) -> APIRouter:
    """The administration of a node: domains may ask, networks may approve, both may list and leave."""
    router = APIRouter()

    @router.get("/association")
    def listing() -> dict[str, Any]:
        return associations.listing()

    @router.post("/association/leave")
    def leave(uid: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        return associations.leave(uid)

    def request(
        network_url: Annotated[str, Body()],
        own_url: Annotated[str, Body()],
        network_uid: Annotated[str | None, Body()] = None,
    ) -> dict[str, Any]:
        return associations.request(network_url, own_url, network_uid)

    def approve(domains: Annotated[list[dict[str, Any]], Body(embed=True)]) -> dict[str, Any]:
        return associations.approve(domains)

    if settings.kind == "domain":
        router.post("/association/request")(request)
    else:
        router.post("/association/approve")(approve)
    return router
