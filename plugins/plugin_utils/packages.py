# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages of the distribution the services of a host need, from the small files of the role host."""

from __future__ import annotations

from functools import cache

import yaml

from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import Grid
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import ROLES

FAMILIES = ("debian", "redhat")


@cache
def _table(family: str) -> dict[str, list[str]]:
    text = (ROLES / "host" / "vars" / f"{family}.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["_host_packages"]


def packages_for(services: list[str]) -> dict[str, list[str]]:
    """Names of packages for each family of operating systems."""
    return {family: [name for service in services for name in _table(family)[service]] for family in FAMILIES}


def add_packages(grid: Grid) -> None:
    """Tell every host of scope system what it needs."""
    if grid.scope != "system":
        return
    for host in grid.hosts.values():
        services = ["base"]
        if host.database_port:
            services.append("database")
        elif any(grid.nodes[node].database and grid.nodes[node].kind != "worker" for node in host.nodes):
            services.append("database_client")  # snapshots of a database elsewhere
        if any(grid.nodes[node].ingress for node in host.nodes):
            services.append("ingress")
        if any(grid.nodes[node].backup for node in host.nodes):
            services.append("backup")
        host.packages = packages_for(services)
