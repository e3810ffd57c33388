# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes below /control of a network or a domain; http.py lets them answer on the control socket only."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from .association import Associations
from .probes import Probes
from .settings import Settings
from .trial import Trial


def control_routes(settings: Settings, associations: Associations, trial: Trial, probes: Probes) -> APIRouter:
    """The administration of a node: domains may ask, networks may approve, both may do all the rest."""
    router = APIRouter()

    @router.get("/association")
    def listing() -> dict[str, Any]:
        return associations.listing()

    @router.post("/association/leave")
    def leave(uid: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        return associations.leave(uid)

    @router.post("/association/check")
    def check(uid: Annotated[str, Body()], door: Annotated[str, Body()]) -> dict[str, Any]:
        return associations.check(uid, door)

    @router.post("/trial/end")
    def end_trial() -> dict[str, Any]:
        trial.end()
        return {}

    def probe(workers: Annotated[list[str], Body()], seconds: Annotated[float, Body()]) -> dict[str, Any]:
        return {"results": probes.run(workers, seconds)}

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
        router.post("/probe")(probe)
    else:
        router.post("/association/approve")(approve)
    return router
