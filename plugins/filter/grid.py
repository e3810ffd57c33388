# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the grid of openmined.pygrid.grid_info and over what a run has read of each host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.filter.certificates import certificate_expiry
from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import (
    Known,
    format_status,
    format_summary,
    status_rows,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.seen import SEEN

# Registered results of the steps that change a node, and what that is called when the result does not tell.
STEPS = {
    "__node_identity": "identity",
    "__node_activation": "node",
    "__node_removal": "node",
    "__upgrade_opening": "trial",
    "__upgrade_worker_return": "release",
    "__upgrade_server_return": "release",
    "__domain_request": "association",
    "__domain_association": "association",
}

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


def lease_hosts(hosts: Iterable[str], grid: Mapping[str, Any]) -> list[str]:
    """The first of ``hosts`` in each folder of a grid on each machine: accounts of one machine are no business of each
    other's."""
    first: dict[tuple[str, str], str] = {}
    for host in hosts:
        node = grid["nodes"][host]
        first.setdefault((node["location"], node["home"]), host)
    return list(first.values())


def lease_problems(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why this run could not get the lease of machines; ``hosts``: the variables of each."""
    leases = [variables.get("__node_lease") or {} for variables in hosts]
    return [lease["msg"] for lease in leases if lease.get("msg")]


def releases_read(grid: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, str | None]:
    """Which release each node had when this run read it, None for none; without the nodes that were not read."""
    states = {node["name"]: _state_of(hostvars[host]) for host, node in grid["nodes"].items()}
    return {name: state.get("release") for name, state in states.items() if state}


def changes_made(grid: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """What this run has changed, by node. None when that is not known: in scope system there is more than nodes."""
    found = {}
    for host, node in grid["nodes"].items():
        changes = [change for step, what in STEPS.items() for change in _changes(hostvars[host].get(step), what)]
        if changes:
            found[node["name"]] = changes
    return None if grid["scope"] == "system" and not found else found


def _changes(result: Mapping[str, Any] | None, what: str) -> list[str]:
    if not result or not result.get("changed"):
        return []
    return list(result.get("changes") or [what])


def worker_keys(grid: Mapping[str, Any], domain: str, hostvars: Mapping[str, Any]) -> dict[str, str | None]:
    """Allow-list of a Domain: its Workers' names and public keys, None for one that this run has not read."""
    return {
        grid["nodes"][worker]["name"]: identity_of(hostvars[worker]).get("queue_public_key")
        for worker in grid["nodes"][domain]["workers"]
    }


def wanted_settings(grid: Mapping[str, Any], host: str, hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a node is to have. Those of a Worker name its Domain, as far as this run has read that."""
    node = grid["nodes"][host]
    if node["kind"] != "worker":
        return dict(node["settings"])
    domain = grid["nodes"][node["domain"]]
    read = hostvars[host].get("__worker_domain_state") or {}
    identity = (read.get("node") or {}).get("identity") or identity_of(hostvars[node["domain"]])
    reference = {key: identity.get(key, "") for key in ("uid", "verify_key", "queue_public_key")}
    return {**node["settings"], "domain": {"name": domain["name"], "queue_url": domain["queue_url"], **reference}}


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
        if uid and not joined and grid["nodes"][host]["joined"]:
            wanted.append({"uid": uid, "url": grid["nodes"][host]["url"]})
    return wanted


def _status_rows(grid: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One record for each node of the grid, from what this run has read."""
    known = {host: Known.of(hostvars[host]) for host in grid["nodes"]}
    late_hours = {host: float(hostvars[host].get("pygrid_backup_late_hours", LATE_HOURS)) for host in grid["nodes"]}
    seen = next((hostvars[host].get(SEEN) for host in grid["nodes"]), None)
    return list(status_rows(grid, known, certificate_expiry(grid, hostvars), late_hours, seen))


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
            "lease_hosts": lease_hosts,
            "lease_problems": lease_problems,
            "releases_read": releases_read,
            "changes_made": changes_made,
            "worker_keys": worker_keys,
            "wanted_settings": wanted_settings,
            "worker_slots": worker_slots,
            "domains_to_approve": domains_to_approve,
            "grid_title": grid_title,
            "grid_summary": format_summary,
            "status_rows": _status_rows,
            "status_table": format_status,
        }
