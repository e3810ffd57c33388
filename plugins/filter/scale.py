# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of scaling: what speaks against a plan, whom a Domain locks out, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils import scale
from ansible_collections.openmined.pygrid.plugins.plugin_utils.preflight_problems import deploy_problems

Variables = Mapping[str, Mapping[str, Any]]


def scale_problems(grid: Mapping[str, Any], plan: Mapping[str, Any], hostvars: Variables) -> list[str]:
    """Why the plan must not be carried out, from what was read of those who come and of their Domains."""
    coming = plan["coming"]
    domains = dict.fromkeys(grid["nodes"][host]["domain"] for host in coming)
    moving = [*plan["joining"], *plan["leaving"]]
    sides = dict.fromkeys([*moving, *([grid["network"]] if moving and grid["network"] else [])])
    found = [
        f"{host}: it cannot be reached: {' '.join(hostvars[host]['__node_state'].get('msg', '').split())}"
        for host in dict.fromkeys([*coming, *domains, *sides])
        if hostvars[host]["__node_state"].get("unreachable")
    ]
    if found:
        return found
    found = deploy_problems(grid, hostvars, coming)
    for domain in domains:
        workers = [host for host in coming if grid["nodes"][host]["domain"] == domain]
        found += [f"{domain}: {sentence}" for sentence in _problems_of_domain(grid, domain, workers, hostvars[domain])]
    # Left by one side alone, the other one would go on naming it.
    found += [f"{host}: {sentence}" for host in sides if host not in domains for sentence in _unready(hostvars[host])]
    return found


def _problems_of_domain(
    grid: Mapping[str, Any], domain: str, workers: Iterable[str], variables: Mapping[str, Any]
) -> Iterator[str]:
    """Why Workers could not serve it without changing it."""
    state, node = variables["__node_state"], grid["nodes"][domain]
    read = state["node"]
    unready = list(_unready(variables))
    if unready:
        yield from unready
        return
    if read["release"] != state["wanted"]["release"]:
        yield (
            f"it runs {read['release']} and new Workers would run {state['wanted']['release']}; bring it to the same"
            " with playbooks/upgrade.yml or deploy.yml first"
        )
    listens = read["settings"]["queue"]["host"]
    remote = [host for host in workers if grid["nodes"][host]["location"] != node["location"]]
    if remote and listens != node["queue_address"]:
        yield (
            f"its queue listens on {listens}, where {', '.join(remote)} cannot reach it; with the machine in the group"
            " pygrid_spare, playbooks/deploy.yml lets it listen for other machines, once (it restarts)"
        )


def _unready(variables: Mapping[str, Any]) -> Iterator[str]:
    read = variables["__node_state"]["node"]
    health = read["health"] or {}
    if health.get("status") != "ready":
        reasons = ", ".join(health.get("reasons") or []) or read["service"]["state"]
        yield f"it is not ready ({reasons}); run playbooks/deploy.yml first, or see playbooks/status.yml"


def scale_gone(steps: Iterable[Mapping[str, Any]], domain: str, hostvars: Variables) -> list[str]:
    """Names of the Workers of a Domain that went."""
    gone = [step["host"] for step in steps if step["what"] == scale.GOING and step["domain"] == domain]
    return [hostvars[host].get("pygrid_name") or host for host in gone]


def scale_summary(plan: Mapping[str, Any], hostvars: Variables) -> str:
    """What was done, for people."""
    drained = {
        host: (hostvars[host].get("__scale_removal") or {}).get("drained", True)
        for host in plan["going"]
        if host in hostvars
    }
    policy = {host: hostvars[host].get("pygrid_worker_orphaned_jobs", "requeue") for host in drained}
    return scale.summary(plan, drained, policy)


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"scale_problems": scale_problems, "scale_gone": scale_gone, "scale_summary": scale_summary}
