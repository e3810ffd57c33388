# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid on Google Compute Engine, as its double has it."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.hands import gcp
from tests.hands.gcp_books import PROJECT
from tests.support.cloud_grid import GRID, CloudGrid, Made

LABELLED = ("instances", "disks", "images")
KINDS = ("networks", "subnetworks", "routers", "firewalls", "addresses")


class Grid(CloudGrid):
    """A grid in a project of Google."""

    CLOUD = "gcp"
    SIZES = ("e2-medium", "e2-standard-2", "e2-standard-4")
    SOURCE: ClassVar = {"projects": [PROJECT]}
    VARIABLES: ClassVar = {
        "pygrid_cloud_region": gcp.REGION,
        "pygrid_cloud_zones": [f"{gcp.REGION}-a", f"{gcp.REGION}-b"],
    }
    LOGIN = "operator"

    def open(self) -> None:
        self.account = gcp.Account(gcp.identity(self.lab), self.environment["HTTPS_PROXY"])

    def ours(self, kind: str) -> list[dict[str, Any]]:
        """What there is of a kind of the grid."""
        with self.inside_network():
            found = self.account.all(kind)
        if kind in LABELLED:
            return [one for one in found if one.get("labels", {}).get("pygrid_grid") == GRID]
        return [one for one in found if one["description"].startswith(f"pygrid_grid={GRID}")]

    def machines(self) -> dict[str, Made]:
        with self.inside_network():
            disks = {disk["selfLink"]: disk for disk in self.account.all("disks")}
        return {
            machine["labels"]["pygrid_name"]: Made(
                gcp.host_of(machine),
                machine["machineType"].rpartition("/")[2],
                disks[machine["disks"][0]["source"]]["sourceImage"],
                next((one["natIP"] for one in machine["networkInterfaces"][0].get("accessConfigs", [])), ""),
                machine["zone"].rpartition("/")[2],
                machine["labels"],
            )
            for machine in self.ours("instances")
        }

    def images(self) -> list[str]:
        return [image["selfLink"] for image in self.ours("images")]

    def data_volumes(self) -> list[str]:
        labels = [disk["labels"] for disk in self.ours("disks")]
        return sorted(each["pygrid_data_of"] for each in labels if "pygrid_data_of" in each)

    def left(self) -> list[str]:
        # The disks that machines begin with have no labels.
        with self.inside_network():
            disks = [disk for disk in self.account.all("disks") if "pygrid_data_of" not in disk.get("labels", {})]
        return [kind for kind in KINDS if self.ours(kind)] + ["disks"] * bool(disks)

    def openings(self) -> set[tuple[str, int, str]]:
        found = set()
        for rule in self.ours("firewalls"):
            kinds = [tag.rpartition("-")[2] for tag in rule["targetTags"]]
            sources = [tag.rpartition("-")[2] for tag in rule.get("sourceTags", [])] + rule.get("sourceRanges", [])
            ports = [int(port) for allowed in rule["allowed"] for port in allowed["ports"]]
            found |= {(kind, port, source) for kind in kinds for port in ports for source in sources}
        return found

    def take_away(self, machine: str) -> None:
        with self.inside_network():
            found = next(one for one in self.account.all("instances") if gcp.host_of(one) == machine)
            self.account.ask("DELETE", f"zones/{found['zone'].rpartition('/')[2]}/instances/{found['name']}")
