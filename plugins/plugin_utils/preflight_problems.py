# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands against a deploy, from what a run has read of each host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.releases import version_of

Grid = Mapping[str, Any]
Variables = Mapping[str, Mapping[str, Any]]


def split_machines(grid: Grid, variables: Variables) -> dict[str, str]:
    """Inventory host -> sentence, for nodes whose machine the inventory names in more than one way.

    What is done once for each machine would be done twice at the same time there.
    """
    if grid["scope"] != "system":
        return {}
    first: dict[str, str] = {}
    found = {}
    for host, node in grid["nodes"].items():
        read = ((variables.get(host) or {}).get("__node_state") or {}).get("node") or {}
        other = first.setdefault(read.get("host_id") or host, host)
        location = grid["nodes"][other]["location"]
        if node["location"] != location:
            found[host] = (
                f"it is on the same machine as {other}, but its ansible_host is {node['location']} and that of {other}"
                f" {location}; write the same for both"
            )
    return found


def version_problem(state: Mapping[str, Any]) -> str | None:
    """Why a deploy must leave a node alone: it would change its version, which needs a way back."""
    node, wanted = state["node"], version_of((state.get("wanted") or {}).get("release"))
    if node["trial"]:
        return (
            f"its upgrade to {version_of(node['release'])} has not come to its end; run upgrade.yml again,"
            " or rollback.yml to go back"
        )
    present = version_of(node["release"])
    if present is None or wanted is None or present == wanted:
        return None
    return (
        f"it runs syft {present}, and a deploy does not change that; playbooks/upgrade.yml brings it to {wanted} and"
        f" back again when that does not work, -e pygrid_version={present} keeps what it has"
    )


def deploy_problems(grid: Grid, variables: Variables, hosts: Iterable[str], upgrading: bool = False) -> list[str]:
    """``host: sentence`` for everything that has to be mended before these hosts can be deployed.

    upgrading: it is an upgrade, which may change the version of a node that runs.
    """
    split = split_machines(grid, variables)
    found = []
    for host in hosts:
        state = variables[host]["__node_state"]
        database = (variables[host].get("__database_preflight") or {}).get("problem")
        version = None if upgrading else version_problem(state)
        sentences = [*(state.get("problems") or []), split.get(host), database, version]
        found += [f"{host}: {sentence}" for sentence in sentences if sentence]
    return found
