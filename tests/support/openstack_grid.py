# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid on the genuine OpenStack of a lab."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tests.hands import openstack
from tests.support.cloud_grid import GRID, CloudGrid, Made

NAME = f"pygrid-{GRID}"


class Grid(CloudGrid):
    """A grid in a project of OpenStack."""

    CLOUD = "openstack"
    SIZES = ("m1.small", "m1.medium", "m1.large")
    SOURCE: ClassVar = {}
    VARIABLES: ClassVar = {"pygrid_cloud_zones": ["nova"]}
    LOGIN = "admin"  # of the image that the hands boot

    def open(self) -> None:
        self.cloud = openstack.connect(self.lab)

    def cidr(self) -> str:
        # The control plane is a neighbour of the machines; its address is one of the first.
        return f"{self.lab.subnet}.128/25"

    def machines(self) -> dict[str, Made]:
        with self.inside_network():
            servers = [
                one for one in self.cloud.compute.servers(details=True) if one.metadata.get("pygrid_grid") == GRID
            ]
        return {
            server.metadata["pygrid_name"]: Made(
                server.id,
                server.flavor["original_name"],
                server.image["id"],
                next(iter(floating_addresses(server)), ""),
                server.availability_zone,
                server.metadata,
            )
            for server in servers
        }

    def images(self) -> list[str]:
        with self.inside_network():
            return [one.id for one in self.cloud.image.images() if one.properties.get("pygrid_grid") == GRID]

    def data_volumes(self) -> list[str]:
        with self.inside_network():
            volumes = list(self.cloud.block_storage.volumes(details=True))
        return sorted(one.metadata["pygrid_data_of"] for one in volumes if one.metadata.get("pygrid_grid") == GRID)

    def left(self) -> list[str]:
        with self.inside_network():
            network, compute = self.cloud.network, self.cloud.compute
            kinds: dict[str, Iterable[Any]] = {
                "networks": network.networks(),
                "subnets": network.subnets(),
                "routers": network.routers(),
                "ports": (port for port in network.ports() if port.device_owner != "network:floatingip"),
                "addresses": network.ips(),
                "security groups": network.security_groups(),
                "keys": compute.keypairs(),
            }
            found = {kind: [one.name for one in things] for kind, things in kinds.items()}
        # All that there is beside what the operator and OpenStack itself have made.
        return [kind for kind, names in found.items() if set(names) - {"internet", "default"}]

    def openings(self) -> set[tuple[str, int, str]]:
        with self.inside_network():
            groups = [one for one in self.cloud.network.security_groups() if one.name.startswith(f"{NAME}-")]
        names = {group.id: group.name.rpartition("-")[2] for group in groups}
        return {
            (names[group.id], rule["port_range_min"], names.get(rule["remote_group_id"]) or rule["remote_ip_prefix"])
            for group in groups
            for rule in group.security_group_rules
            if rule["direction"] == "ingress" and rule["ethertype"] == "IPv4"
        }

    def take_away(self, machine: str) -> None:
        with self.inside_network():
            self.cloud.compute.delete_server(machine)


def floating_addresses(server: Any) -> list[str]:
    """The public addresses of a server."""
    entries = [entry for network in (server.addresses or {}).values() for entry in network]
    return [entry["addr"] for entry in entries if entry.get("OS-EXT-IPS:type") == "floating"]
