# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the grid of openmined.pygrid.grid_info and over what a run has read of each host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.filter.certificates import certificate_expiry
from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import format_status, format_summary, status_rows

# As the role backup has it, which is no part of status.
LATE_HOURS = 48


def identity_of(variables: Mapping[str, Any] | None) -> dict[str, str]:
    """Public identity of the host whose variables are given: just created, or read; empty when it has none yet."""
    variables = variables or {}
    created = variables.get("__node_identity") or {}
    read = variables.get("__node_state") or {}
    return dict(created.get("identity") or (read.get("node") or {}).get("identity") or {})


def staging_hosts(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of all hosts that lack their wanted release, the first one for each machine, folder and release."""
    first: dict[tuple[str, str, str], str] = {}
    for variables in hosts:
        state = variables["__node_state"]
        if not state["wanted"]["staged"]:
            key = (state["node"]["host_id"], state["node"]["home"], state["wanted"]["release"])
            first.setdefault(key, variables["inventory_hostname"])
    return list(first.values())


def host_leaders(hosts: Iterable[str], grid: Mapping[str, Any]) -> list[str]:
    """The first of ``hosts`` on each machine: it does what is done once for all nodes of the machine."""
    first: dict[str, str] = {}
    for host in hosts:
        first.setdefault(grid["nodes"][host]["location"], host)
    return list(first.values())


def worker_keys(grid: Mapping[str, Any], domain: str, hostvars: Mapping[str, Any]) -> dict[str, str | None]:
    """Allow-list of a Domain: its Workers' names and public keys, None for one that this run has not read."""
    return {
        grid["nodes"][worker]["name"]: identity_of(hostvars[worker]).get("queue_public_key")
        for worker in grid["nodes"][domain]["workers"]
    }


def worker_slots(grid: Mapping[str, Any], domain: str) -> list[str]:
    """The names under which a Domain's Workers take jobs: one for each of their processes."""
    found = []
    for host in grid["nodes"][domain]["workers"]:
        worker = grid["nodes"][host]
        processes = worker["settings"].get("processes", 1)
        found += [worker["name"] if number == 1 else f"{worker['name']}-{number}" for number in range(1, processes + 1)]
    return found


def domains_to_approve(
    grid: Mapping[str, Any], hosts: Iterable[str], hostvars: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Id and URL of those Domains among ``hosts`` that were not joined to the grid's Network when they were read."""
    wanted = []
    for host in hosts:
        state = hostvars[host]["__node_state"]["node"]
        joined = any(peer["status"] == "ACTIVE" and peer["url"] == grid["network_url"] for peer in state["peers"] or [])
        uid = identity_of(hostvars[host]).get("uid")
        if uid and not joined:
            wanted.append({"uid": uid, "url": grid["nodes"][host]["url"]})
    return wanted


def _status_rows(grid: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One record for each node of the grid, from what this run has read."""
    states = {host: _state_of(hostvars[host]) for host in grid["nodes"]}
    late_hours = {host: float(hostvars[host].get("pygrid_backup_late_hours", LATE_HOURS)) for host in grid["nodes"]}
    return list(status_rows(grid, states, certificate_expiry(grid, hostvars), late_hours))


def _state_of(variables: Mapping[str, Any]) -> dict[str, Any] | None:
    return (variables.get("__node_state") or {}).get("node")


def grid_title(grid: Mapping[str, Any]) -> str:
    """``5 nodes on 4 machines``.

    Also what makes a run quick: the name of a task is worked out in Ansible's main process, which so loads all filters
    once; every task on every host is a child of it, and would load them anew (a quarter of a second each).
    """
    parts = ((len(grid["nodes"]), "node"), (len(grid["hosts"]), "machine"))
    return " on ".join(f"{number} {word}{'' if number == 1 else 's'}" for number, word in parts)


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "identity_of": identity_of,
            "staging_hosts": staging_hosts,
            "host_leaders": host_leaders,
            "worker_keys": worker_keys,
            "worker_slots": worker_slots,
            "domains_to_approve": domains_to_approve,
            "grid_title": grid_title,
            "grid_summary": format_summary,
            "status_rows": _status_rows,
            "status_table": format_status,
        }
