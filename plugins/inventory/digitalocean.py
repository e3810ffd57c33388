# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a grid on DigitalOcean."""

from __future__ import annotations

DOCUMENTATION = r"""
name: digitalocean
short_description: Nodes of a grid on DigitalOcean
version_added: 0.1.0
description:
  - Finds Droplets by their tags and makes them the groups and hosts that every playbook of this collection understands.
  - A tag of DigitalOcean is one word, so it holds name and value, C(pygrid_role:worker) for example; C(pygrid_grid),
    C(pygrid_role), C(pygrid_name) and C(pygrid_domain) are what a Droplet says of itself.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [openmined.pygrid.digitalocean]
  token:
    description: A token that may read Droplets. It belongs into the environment, not into a file.
    type: str
    env:
      - name: DIGITALOCEAN_TOKEN
      - name: DIGITALOCEAN_ACCESS_TOKEN
      - name: DO_API_TOKEN
  endpoint:
    description: Address of the API.
    type: str
    default: https://api.digitalocean.com
    env:
      - name: DIGITALOCEAN_API_URL
extends_documentation_fragment:
  - openmined.pygrid.cloud_inventory
  - constructed
  - inventory_cache
requirements:
  - pydo in the Python that runs Ansible
"""

EXAMPLES = r"""
# The grid of an account; DIGITALOCEAN_TOKEN is in the environment.
plugin: openmined.pygrid.digitalocean

---
# Only what runs in Frankfurt.
plugin: openmined.pygrid.digitalocean
regions: [fra1]
filters:
  state: active
"""

from collections.abc import Iterable, Iterator
from json import JSONDecodeError
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.cloud_inventory import (
    CloudInventory,
    Machine,
    PassingError,
)

PAGE_SIZE = 200


class InventoryModule(CloudInventory):
    """Lists Droplets: one list for all regions, of which each page is told by its number."""

    NAME = "openmined.pygrid.digitalocean"
    CLOUD = "DigitalOcean"
    NEEDS = (("pydo", "pydo"),)

    def places(self) -> Iterable[str]:
        """The account; a list of tags for each grid that was named, since that is what the API can choose by."""
        if not self.get_option("token"):
            raise PygridError("there is no token; put one that may read Droplets into DIGITALOCEAN_TOKEN")
        return [f"pygrid_grid:{grid}" for grid in self.get_option("grids")] or ["the account"]

    def list_machines(self, place: str) -> Iterator[Machine]:
        """The Droplets of one grid, or all of them."""
        import pydo

        chosen = {"tag_name": place} if self.get_option("grids") else {}
        client = pydo.Client(
            token=self.get_option("token"),
            endpoint=self.get_option("endpoint"),
            timeout=self.seconds(),
            retry_total=0,  # of tries there is one count, in in_parallel.py
        )
        with client:
            page, seen = 1, 0
            while True:
                answer = client.droplets.list(per_page=PAGE_SIZE, page=page, **chosen)
                if "droplets" not in answer:
                    raise _explained(int(answer.get("status_code") or 0), answer)
                seen += len(answer["droplets"])
                yield from map(_machine, answer["droplets"])
                if not ((answer.get("links") or {}).get("pages") or {}).get("next"):
                    break
                page += 1
        if seen < answer["meta"]["total"]:
            raise PassingError(f"{answer['meta']['total']} Droplets are there and {seen} were listed")

    def explain(self, error: Exception, place: str) -> PygridError:
        """What DigitalOcean or its SDK said, and what to do about it."""
        from azure.core.exceptions import AzureError, HttpResponseError

        if isinstance(error, HttpResponseError) and error.status_code:
            return _explained(error.status_code, {"message": error.reason})
        if isinstance(error, (AzureError, OSError, JSONDecodeError)):  # no connection, or an answer that breaks off
            return PassingError(f"{type(error).__name__}: {error}")
        return PygridError(f"{type(error).__name__}: {error}")


def _explained(status: int, answer: Any) -> PygridError:
    sentence = f"{status} {answer.get('message') or answer}"
    if status == 429 or status >= 500:
        return PassingError(sentence)
    if status in (401, 403):
        return PygridError(f"{sentence}; is the token right, and may it read Droplets (droplet:read, tag:read)?")
    return PygridError(sentence)


def _machine(droplet: dict[str, Any]) -> Machine:
    addresses: dict[str, str] = {}
    for entry in droplet["networks"].get("v4") or []:
        addresses.setdefault(entry["type"], entry["ip_address"])
    for entry in droplet["networks"].get("v6") or []:
        addresses.setdefault(entry["type"], entry["ip_address"])
    image = droplet.get("image") or {}
    return Machine(
        cloud="digitalocean",
        id=str(droplet["id"]),
        name=droplet.get("name") or "",
        region=droplet["region"]["slug"],
        state=droplet.get("status") or "",
        type=droplet.get("size_slug") or "",
        image=image.get("slug") or str(image.get("id") or ""),
        addresses=addresses,
        tags=dict(tag.partition(":")[::2] for tag in droplet.get("tags") or []),
    )
