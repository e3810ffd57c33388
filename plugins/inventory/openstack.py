# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a grid on OpenStack."""

from __future__ import annotations

DOCUMENTATION = r"""
name: openstack
short_description: Nodes of a grid on OpenStack
version_added: 0.1.0
description:
  - Finds servers by their metadata C(pygrid_grid), C(pygrid_role), C(pygrid_name) and C(pygrid_domain), and makes them
    the groups and hosts that every playbook of this collection understands.
  - Credentials are found as the OpenStack command line finds them, in C(clouds.yaml) or in the environment.
  - An address is V(public) when it is a floating one, or one that all of the internet could reach; IPv4 before IPv6.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [openmined.pygrid.openstack]
  clouds:
    description: Names in C(clouds.yaml). When empty, the one of the environment.
    type: list
    elements: str
    default: []
  networks:
    description: Networks whose addresses are taken. When empty, all of them.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - openmined.pygrid.cloud_inventory
  - constructed
  - inventory_cache
requirements:
  - openstacksdk in the Python that runs Ansible
"""

EXAMPLES = r"""
# The grid of a project; clouds.yaml beside the inventory, or in ~/.config/openstack, has the credentials.
plugin: openmined.pygrid.openstack
clouds: [hospital]

---
# Two clouds, reached from outside.
plugin: openmined.pygrid.openstack
clouds: [hospital, university]
addresses: [public]
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from json import JSONDecodeError
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.cloud_inventory import (
    CloudInventory,
    Machine,
    PassingError,
)

PAGE_SIZE = 1000
GONE = {"DELETED", "SOFT_DELETED"}


class InventoryModule(CloudInventory):
    """Lists servers, each region of each cloud in a thread of its own."""

    NAME = "openmined.pygrid.openstack"
    CLOUD = "OpenStack"
    NEEDS = (("openstack", "openstacksdk"),)

    def places(self) -> Iterable[str]:
        """The regions of each cloud; a cloud without any is asked where its catalogue says."""
        from openstack.config import OpenStackConfig

        self._configurations: dict[str, Any] = {}
        wanted = self.get_option("regions")
        loader = OpenStackConfig()
        for cloud in self.get_option("clouds") or [None]:
            for region in wanted or [entry["name"] for entry in loader._get_regions(cloud)]:
                configuration = loader.get_one(cloud=cloud, region_name=region or None)
                name = "/".join(word for word in (configuration.name, region) if word)
                self._configurations[name] = configuration
        return list(self._configurations)

    def list_machines(self, place: str) -> Iterator[Machine]:
        """The servers of one region."""
        from openstack.connection import Connection

        configuration = self._configurations[place]
        configuration.config["api_timeout"] = self.seconds()
        with Connection(config=configuration) as connection:
            for server in connection.compute.servers(details=True, limit=PAGE_SIZE):
                if server.status not in GONE and "pygrid_grid" in server.metadata:
                    yield self._machine(server, connection.config.region_name or place)

    def explain(self, error: Exception, place: str) -> PygridError:
        """What OpenStack or its SDK said, and what to do about it."""
        from keystoneauth1 import exceptions as keystone
        from openstack import exceptions

        status = getattr(error, "status_code", None) or getattr(error, "http_status", None) or 0
        if isinstance(error, (keystone.Unauthorized, keystone.MissingRequiredOptions)) or status == 401:
            return PygridError(f"{error}; are the credentials right, and not expired?")
        if isinstance(error, (keystone.EndpointNotFound, getattr(exceptions, "ServiceDisabledException", ()))):
            return PygridError(f"{error}; is the region right?")
        if isinstance(error, exceptions.ConfigException):
            return PygridError(f"{error}; is it in clouds.yaml?")
        if status == 403:
            return PygridError(f"{error}; the account needs the role reader in its project")
        if isinstance(error, keystone.SSLError):
            return PygridError(f"{error}; does clouds.yaml name the authority (cacert) that its certificate is of?")
        if isinstance(error, keystone.ConnectionError) or status == 429 or status >= 500:
            return PassingError(str(error))
        if isinstance(error, (OSError, JSONDecodeError)):  # an answer that breaks off, of which no JSON can be read
            return PassingError(f"{type(error).__name__}: {error}")
        return PygridError(f"{type(error).__name__}: {error}")

    def _machine(self, server: Any, region: str) -> Machine:
        flavor = server.flavor or {}
        return Machine(
            cloud="openstack",
            id=server.id,
            name=server.name or "",
            region=region,
            zone=server.availability_zone or "",
            state=(server.status or "").lower(),
            type=flavor.get("original_name") or flavor.get("id") or "",
            image=(server.image or {}).get("id") or "",
            addresses=self._addresses(server.addresses or {}),
            tags={str(name): str(value) for name, value in server.metadata.items()},
        )

    def _addresses(self, networks: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
        wanted = self.get_option("networks")
        known = [entry for name, entries in networks.items() if not wanted or name in wanted for entry in entries]
        found: dict[str, str] = {}
        for entry in sorted(known, key=lambda entry: entry["version"]):
            is_floating = entry.get("OS-EXT-IPS:type") == "floating"
            kind = "public" if is_floating or ip_address(entry["addr"]).is_global else "private"
            found.setdefault(kind, entry["addr"])
        return found
