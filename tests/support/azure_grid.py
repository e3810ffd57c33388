# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid on Azure, as tests/hands/azure_server.py has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tests.hands import azure
from tests.support.cloud_grid import GRID, CloudGrid, Made


class Grid(CloudGrid):
    """A grid in a subscription of Azure."""

    CLOUD = "azure"
    SIZES = ("Standard_B2als_v2", "Standard_B2as_v2", "Standard_B4as_v2")
    SOURCE: ClassVar = {}
    VARIABLES: ClassVar = {"pygrid_cloud_region": azure.LOCATION, "pygrid_cloud_zones": ["1", "2"]}
    LOGIN = "azureuser"

    def open(self) -> None:
        self.compute, self.network = azure.clients(self.lab)

    def ours(self, things: Iterable[Any]) -> list[Any]:
        """What of it is the grid's: by its tag, or by its group."""
        with self.inside_network():
            group = f"/resourcegroups/pygrid-{GRID}/"
            return [one for one in things if (one.tags or {}).get("pygrid_grid") == GRID or group in one.id.lower()]

    def machines(self) -> dict[str, Made]:
        listed = self.ours(self.compute.virtual_machines.list_all())
        interfaces = {one.id.lower(): one for one in self.ours(self.network.network_interfaces.list_all())}
        addresses = {one.id.lower(): one.ip_address for one in self.ours(self.network.public_ip_addresses.list_all())}
        found = {}
        for machine in listed:
            if machine.provisioning_state == "Deleting":
                continue
            interface = interfaces[machine.network_profile.network_interfaces[0].id.lower()]
            public = interface.ip_configurations[0].public_ip_address
            image = machine.storage_profile.image_reference.id or machine.storage_profile.image_reference.sku
            found[machine.tags["pygrid_name"]] = Made(
                azure.host_of(machine),
                machine.hardware_profile.vm_size,
                image.rpartition("/")[2],
                addresses[public.id.lower()] if public else "",
                machine.zones[0],
                machine.tags,
            )
        return found

    def images(self) -> list[str]:
        return [one.name for one in self.ours(self.compute.images.list())]

    def data_volumes(self) -> list[str]:
        disks = self.ours(self.compute.disks.list())
        return sorted(one.tags["pygrid_data_of"] for one in disks if "pygrid_data_of" in (one.tags or {}))

    def left(self) -> list[str]:
        kinds = {
            "networks": self.network.virtual_networks,
            "interfaces": self.network.network_interfaces,
            "addresses": self.network.public_ip_addresses,
            "NAT gateways": self.network.nat_gateways,
            "security groups": self.network.network_security_groups,
            "groups of machines": self.network.application_security_groups,
        }
        found = [kind for kind, listing in kinds.items() if self.ours(listing.list_all())]
        disks = self.ours(self.compute.disks.list())
        return found + ["disks"] * any("pygrid_data_of" not in (one.tags or {}) for one in disks)

    def openings(self) -> set[tuple[str, int, str]]:
        found = set()
        for group in self.ours(self.network.network_security_groups.list_all()):
            kind = group.name.rpartition("-")[2]
            for rule in group.security_rules:
                if rule.access != "Allow":
                    assert rule.source_address_prefix == "*"
                    continue
                kinds = [one.id.rpartition("-")[2] for one in rule.source_application_security_groups or []]
                sources = kinds or [rule.source_address_prefix]
                # Its networks have no other addresses than those of IPv4.
                found |= {(kind, int(rule.destination_port_range), one) for one in sources if ":" not in one}
        return found

    def take_away(self, machine: str) -> None:
        gone = [one for one in self.ours(self.compute.virtual_machines.list_all()) if azure.host_of(one) == machine]
        with self.inside_network():
            for one in gone:
                group, name = one.id.split("/")[4], one.name
                self.compute.virtual_machines.begin_delete(group, name, polling=False)
