# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid on DigitalOcean, as tests/hands/digitalocean_books.py has it."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.hands import digitalocean
from tests.hands.digitalocean_books import REGION
from tests.support.cloud_grid import GRID, CloudGrid, Made

OURS = f"pygrid-{GRID}"


class Grid(CloudGrid):
    """A grid in an account of DigitalOcean."""

    CLOUD = "digitalocean"
    SIZES = ("s-2vcpu-2gb", "s-2vcpu-4gb", "s-4vcpu-8gb")
    SOURCE: ClassVar = {"regions": [REGION]}
    VARIABLES: ClassVar = {"pygrid_cloud_region": REGION, "pygrid_cloud_zones": [REGION]}
    # As the lab's machines have it; DigitalOcean's own images have root.
    LOGIN = "admin"

    def open(self) -> None:
        """There is nothing to keep open."""

    def ask(self, path: str, method: str = "GET") -> Any:
        with self.inside_network():
            return digitalocean.ask(self.lab, path, method)

    def listed(self, kind: str, word: str = "") -> list[dict[str, Any]]:
        """Everything of a kind that the account has."""
        return self.ask(f"/v2/{kind}?per_page=200")[word or kind]

    def machines(self) -> dict[str, Made]:
        # Every Droplet has a public address; one that stays its own is a reserved one.
        reserved = {(one["droplet"] or {}).get("id"): one["ip"] for one in self.listed("reserved_ips")}
        found = {}
        for machine in self.listed("droplets"):
            tags = tags_of(machine)
            if tags.get("pygrid_grid") == GRID:
                image = machine["image"]["slug"] or str(machine["image"]["id"])
                found[tags["pygrid_name"]] = Made(
                    str(machine["id"]), machine["size_slug"], image, reserved.get(machine["id"], ""), REGION, tags
                )
        return found

    def images(self) -> list[str]:
        return [str(image["id"]) for image in self.listed("images") if tags_of(image).get("pygrid_grid") == GRID]

    def data_volumes(self) -> list[str]:
        volumes = map(tags_of, self.listed("volumes"))
        return sorted(tags["pygrid_data_of"] for tags in volumes if tags.get("pygrid_grid") == GRID)

    def left(self) -> list[str]:
        found = []
        for kind, word in (("vpcs", ""), ("firewalls", ""), ("account/keys", "ssh_keys"), ("projects", "")):
            found += [kind for one in self.listed(kind, word) if one["name"].startswith(OURS)]
        return found + ["reserved_ips" for _one in self.listed("reserved_ips")]

    def openings(self) -> set[tuple[str, int, str]]:
        found = set()
        for firewall in self.listed("firewalls"):
            (tag,) = firewall["tags"]
            for rule in firewall["inbound_rules"]:
                sources = [kind_of(source) for source in rule["sources"].get("tags", [])]
                # What is said of IPv6 is the same.
                sources += [source for source in rule["sources"].get("addresses", []) if ":" not in source]
                found |= {(kind_of(tag), int(rule["ports"]), source) for source in sources}
        return found

    def take_away(self, machine: str) -> None:
        self.ask(f"/v2/droplets/{machine}", "DELETE")


def tags_of(thing: dict[str, Any]) -> dict[str, str]:
    """The tags of something, of which each word holds name and value."""
    return dict(tag.partition(":")[::2] for tag in thing["tags"])


def kind_of(tag: str) -> str:
    """The kind of node that a tag of the grid is for."""
    return tag.removeprefix(f"{OURS}-")
