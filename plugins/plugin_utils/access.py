# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may connect to which port of which kind of node: what the security groups of a cloud are made from.

It is made of the same flows as the firewall of each machine. A security group is for all nodes of a kind, so that it
stays as it is when nodes come and go; the firewalls of the machines are narrower.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.flows import Variables, flows
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import KINDS

SSH = 22


def access(grid: Mapping[str, Any], variables: Variables, administrators: Iterable[str]) -> dict[str, Any]:
    """Rules by kind of node: for each port the kinds and the CIDRs that may connect, and why.

    Args:
        grid: as openmined.pygrid.grid_info gives it, with the nodes that are to come.
        variables: of each host, as for flows.
        administrators: CIDRs that Ansible connects from. The Network may connect as well: it is how machines without a
            public address are reached.
    """
    ssh = {"port": SSH, "kinds": ["network"], "cidrs": sorted(administrators), "why": "administrators"}
    rules = {kind: {(SSH, ssh["why"]): ssh} for kind in KINDS}
    kinds_of = {location: _kinds(grid, host["nodes"]) for location, host in grid["hosts"].items()}
    for flow in flows(grid, variables):
        if flow.target is None or flow.target_port is None or not flow.crosses:
            continue
        source = grid["nodes"][flow.node]["kind"] if flow.node else None
        for kind in kinds_of[flow.target]:
            why = _why(kind, flow.node is None)
            rule = rules[kind].setdefault(
                (flow.target_port, why), {"port": flow.target_port, "kinds": [], "cidrs": [], "why": why}
            )
            _add(rule["kinds"], [source] if source else [])
            _add(rule["cidrs"], [] if source else flow.sources)
    return {kind: list(found.values()) for kind, found in rules.items()}


def _kinds(grid: Mapping[str, Any], hosts: Sequence[str]) -> list[str]:
    return sorted({grid["nodes"][host]["kind"] for host in hosts})


def _why(kind: str, public: bool) -> str:
    """Without the name of a node: a rule is for all of a kind."""
    return f"data scientists use the {kind}" if public else f"nodes use the {kind}"


def _add(values: list[str], more: Iterable[str]) -> None:
    values += [value for value in more if value not in values]
