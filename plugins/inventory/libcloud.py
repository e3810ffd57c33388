# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a grid on the other clouds, by Apache Libcloud."""

from __future__ import annotations

DOCUMENTATION = r"""
name: libcloud
short_description: Nodes of a grid on any cloud that Apache Libcloud has a driver for
version_added: 0.1.0
description:
  - Finds machines by their tags, labels or metadata C(pygrid_grid), C(pygrid_role), C(pygrid_name) and
    C(pygrid_domain), and makes them the groups and hosts that every playbook of this collection understands.
  - Where a cloud's tags are single words, a word holds name and value, C(pygrid_role:worker) for example.
  - The other inventory plugins are the better choice for their clouds; docs/inventories.md says what was tried.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [openmined.pygrid.libcloud]
  provider:
    description: Name of the driver, as Libcloud's list of providers has it; V(rackspace) or V(linode) for example.
    type: str
    required: true
  key:
    description: What the driver takes first, a user's name or a token; better in the environment than in a file.
    type: str
    env:
      - name: PYGRID_LIBCLOUD_KEY
  secret:
    description: What the driver takes second, if anything; better in the environment than in a file.
    type: str
    env:
      - name: PYGRID_LIBCLOUD_SECRET
  arguments:
    description: Further arguments of the driver.
    type: dict
    default: {}
extends_documentation_fragment:
  - openmined.pygrid.cloud_inventory
  - constructed
  - inventory_cache
requirements:
  - apache-libcloud in the Python that runs Ansible
"""

EXAMPLES = r"""
# The grid of an account; PYGRID_LIBCLOUD_KEY (user) and PYGRID_LIBCLOUD_SECRET (API key) are in the environment.
plugin: openmined.pygrid.libcloud
provider: rackspace
regions: [dfw, lon]

---
# Linode has one list for all regions.
plugin: openmined.pygrid.libcloud
provider: linode
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.cloud_inventory import (
    CloudInventory,
    Machine,
    PassingError,
)

GONE = {"terminated"}
# Where drivers put what people call tags, labels or metadata.
TAGS = ("tags", "labels", "metadata")
ZONES = ("availability_zone", "zone", "zone_id", "region", "location", "datacenter")


class InventoryModule(CloudInventory):
    """Lists machines, each region in a thread of its own."""

    NAME = "openmined.pygrid.libcloud"
    CLOUD = "Libcloud"
    NEEDS = (("libcloud", "apache-libcloud"),)

    def places(self) -> Iterable[str]:
        """The regions that were named; without any, the one that the driver takes by itself."""
        return self.get_option("regions") or [self.get_option("provider")]

    def list_machines(self, place: str) -> Iterator[Machine]:
        """The machines of one region."""
        from libcloud.compute.providers import get_driver

        arguments = {"timeout": self.seconds(), **self.get_option("arguments")}
        if self.get_option("regions"):
            arguments["region"] = place
        credentials = [word for word in (self.get_option("key"), self.get_option("secret")) if word]
        driver = get_driver(self.get_option("provider"))(*credentials, **arguments)
        for node in driver.list_nodes():
            if str(node.state) not in GONE:
                yield self._machine(node, place)

    def explain(self, error: Exception, place: str) -> PygridError:
        """What the cloud or Libcloud said, and what to do about it."""
        from libcloud.common.exceptions import BaseHTTPError
        from libcloud.common.types import InvalidCredsError, MalformedResponseError
        from requests.exceptions import RequestException

        if isinstance(error, InvalidCredsError):
            return PygridError(f"{error}; are PYGRID_LIBCLOUD_KEY and PYGRID_LIBCLOUD_SECRET right?")
        if isinstance(error, BaseHTTPError) and error.code != 429 and error.code < 500:
            return PygridError(str(error))
        if isinstance(error, (BaseHTTPError, MalformedResponseError, RequestException, OSError)):
            return PassingError(f"{type(error).__name__}: {error}")
        if isinstance(error, (AttributeError, TypeError)):
            return PygridError(f"the driver {self.get_option('provider')} cannot be used like this: {error}")
        return PygridError(f"{type(error).__name__}: {error}")

    def _machine(self, node: Any, place: str) -> Machine:
        extra = node.extra or {}
        addresses = {"private": next(iter(node.private_ips), ""), "public": next(iter(node.public_ips), "")}
        return Machine(
            cloud=self.get_option("provider"),
            id=str(node.id),
            name=node.name or "",
            region=place,
            zone=next((str(extra[name]) for name in ZONES if extra.get(name)), ""),
            state=str(node.state),
            type=str(node.size.id if node.size else extra.get("flavorId") or ""),
            image=str(node.image.id if node.image else extra.get("imageId") or ""),
            addresses={kind: address for kind, address in addresses.items() if address},
            tags={name: value for found in map(extra.get, TAGS) for name, value in _tags(found)},
        )


def _tags(found: Any) -> Iterator[tuple[str, str]]:
    """Tags as one driver or another has them: a mapping, or a list of words or of pairs."""
    if isinstance(found, Mapping):
        yield from ((str(name), str(value)) for name, value in found.items())
    for entry in found if isinstance(found, (list, tuple)) else ():
        if isinstance(entry, Mapping):
            yield str(entry.get("key") or entry.get("name") or ""), str(entry.get("value") or "")
        else:
            name, _colon, value = str(entry).partition(":")
            yield name, value
