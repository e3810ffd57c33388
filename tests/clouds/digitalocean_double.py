# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lists Droplets as DigitalOcean does; prism stands before it and checks both sides.

A Droplet looks as the example in DigitalOcean's own description does. What this answers is only as good as prism
finds it.
"""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.servers import Asked

TOKEN = "dop_v1_of_the_tests"
EXAMPLE = ("components", "examples", "droplets_all", "value", "droplets", 0)


def droplets(description: Path, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Droplets as the description (OpenAPI, gzipped) shows one, each with what is wanted of it.

    Args:
        wanted: of each name, region, tags, and private and public addresses where it has them.
    """
    example: Any = json.loads(gzip.decompress(description.read_bytes()))
    for key in EXAMPLE:
        example = example[key]
    made = []
    for number, entry in enumerate(wanted, 1):
        droplet = copy.deepcopy(example)
        droplet |= {"id": number, "name": entry["name"], "tags": entry["tags"], "status": "active"}
        droplet["region"]["slug"] = entry["region"]
        addresses = [address for address in droplet["networks"]["v4"] if entry.get(address["type"])]
        droplet["networks"]["v4"] = [{**address, "ip_address": entry[address["type"]]} for address in addresses]
        droplet["networks"]["v6"] = []
        made.append(droplet)
    return made


class DigitalOcean:
    """An account's Droplets; ``port`` is where its pages are, in the links that it gives."""

    def __init__(self, everything: list[dict[str, Any]]) -> None:
        self.everything = everything
        self.port = 0

    def asked(self, request: Asked) -> tuple[int, dict[str, Any]]:
        """Answer a request."""
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"id": "unauthorized", "message": "Unable to authenticate you"}
        if request.path != "/v2/droplets":
            return 404, {"id": "not_found", "message": "The resource you were accessing could not be found."}
        return 200, self._page(request.query)

    def _page(self, asked: dict[str, str]) -> dict[str, Any]:
        found = [droplet for droplet in self.everything if asked.get("tag_name") in (None, *droplet["tags"])]
        size, number = int(asked.get("per_page", 20)), int(asked.get("page", 1))
        pages = {}
        if number * size < len(found):
            pages["next"] = f"http://127.0.0.1:{self.port}/v2/droplets?{urlencode({**asked, 'page': number + 1})}"
        return {
            "droplets": found[(number - 1) * size : number * size],
            "links": {"pages": pages} if pages else {},
            "meta": {"total": len(found)},
        }
