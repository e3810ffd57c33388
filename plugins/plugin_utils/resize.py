# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nodes get other limits, in which order, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import table

# Words of pygrid_resize -> variables of a node.
VARIABLES = {
    "processes": "pygrid_worker_processes",
    "cpu_percent_max": "pygrid_cpu_percent_max",
    "memory_max_mb": "pygrid_memory_max_mb",
    "tasks_max": "pygrid_tasks_max",
}
MOST_PROCESSES = 64
# Workers first: those of a Domain that restarts go on with what they have.
ORDER = ("worker", "domain", "network")

Grid = Mapping[str, Any]
Wanted = Mapping[str, Any]


def variables(wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The variables that ``pygrid_resize`` stands for, by inventory name."""
    return {
        host: {VARIABLES[word]: value for word, value in limits.items() if word in VARIABLES}
        for host, limits in wanted.items()
        if isinstance(limits, Mapping)
    }


def problems(grid: Grid, wanted: Wanted) -> Iterator[str]:
    """What is wrong with the names and numbers that were given."""
    for host, limits in wanted.items():
        node = grid["nodes"].get(host)
        if node is None:
            yield f"pygrid_resize names {host}, which is no node of the inventory"
        elif not isinstance(limits, Mapping) or set(limits) - set(VARIABLES):
            yield f"pygrid_resize is {limits!r} for {host}; it may have {', '.join(VARIABLES)}"
        else:
            yield from _problems_of_limits(host, node, limits)


def _problems_of_limits(host: str, node: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[str]:
    for word, value in limits.items():
        if not str(value).isdecimal():
            yield f"pygrid_resize: {word} is {value!r} for {host}; it is a number"
        elif word == "processes" and node["kind"] != "worker":
            yield f"pygrid_resize: {host} is a {node['kind']}; only a Worker has processes that run jobs"
        elif word == "processes" and not 1 <= int(value) <= MOST_PROCESSES:
            yield f"pygrid_resize: processes is {value} for {host}; it is a number from 1 to {MOST_PROCESSES}"
        elif word != "processes" and node["scope"] == "user":
            yield f"pygrid_resize: {word} of {host} has no effect in scope user, where nobody can enforce it"


def problems_found(grid: Grid, hosts: list[str], known: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What, of all that was read, speaks against it. ``known``: the variables of all hosts."""
    for host in hosts:
        node, state = grid["nodes"][host], known[host]["__node_state"]
        changes = set((known[host].get("__node_activation") or {}).get("changes") or [])
        total_mb = state["host"].get("memory_mb")
        if "release" in changes:
            yield f"{host}: it is to have another release too; run playbooks/upgrade.yml or deploy.yml first"
        elif state["node"]["service"]["state"] != "running":
            yield f"{host}: it does not run ({state['node']['service']['state']}); run playbooks/deploy.yml first"
        if total_mb and node["limits"]["memory_mb"] > total_mb:
            yield f"{host}: its memory_max_mb is {node['limits']['memory_mb']}, and its machine has {total_mb} MB"


def order(grid: Grid, hosts: list[str], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of ``hosts`` that run with something else than they are to have, in the order in which they are changed."""
    due = [host for host in hosts if (known[host].get("__node_activation") or {}).get("changes")]
    return sorted(due, key=lambda host: ORDER.index(grid["nodes"][host]["kind"]))


def plan_text(grid: Grid, hosts: list[str]) -> str:
    """The plan for people."""
    if not hosts:
        return "Every node runs with the limits that it is to have: there is nothing to do."
    rows = [["NODE", "KIND", "PROCESSES", "CPU %", "MEMORY MB", "TASKS"]]
    for host in hosts:
        node = grid["nodes"][host]
        processes = str(node["settings"].get("processes", 1)) if node["kind"] == "worker" else "-"
        limits = [str(node["limits"][limit] or "-") for limit in ("cpu_percent", "memory_mb", "tasks")]
        rows.append([node["name"], node["kind"], processes, *(limits if node["scope"] == "system" else ["-"] * 3)])
    return "\n".join(["One after the other; a Worker ends its jobs first.", *table(rows)])


def slots(grid: Grid, host: str) -> list[str]:
    """The names under which a Worker, or all Workers of a Domain, take jobs."""
    node = grid["nodes"][host]
    found = []
    for worker in [node] if node["kind"] == "worker" else [grid["nodes"][name] for name in node["workers"]]:
        found.append(worker["name"])
        found += [f"{worker['name']}-{number}" for number in range(2, worker["settings"].get("processes", 1) + 1)]
    return found
