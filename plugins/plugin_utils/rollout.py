# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order the nodes of a grid go to another release, and what speaks against it.

A Domain and its Workers read and write the same rows, so they change together: they are one unit. The first unit goes
alone, as the canary; then come batches of units, and the Network last, when everything it leads to works.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.openmined.pygrid.plugins.module_utils.releases import version_of

# The first release whose data later ones go on with; 0.9.1 keeps them elsewhere, its successor would start empty.
OLDEST = (0, 9, 2)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Batch:
    """Nodes (inventory names) that change at the same time."""

    title: str
    hosts: list[str]


def plan(grid: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], size: Any) -> list[dict[str, Any]]:
    """The batches of an upgrade, in their order; nodes that have nothing to change are left out.

    Args:
        grid: as grid_info gives it.
        states: what was read of each host: ``node`` and ``wanted``.
        size: how many Domains (each with its Workers) in a batch, a number or a percentage of them.
    """
    due = {host for host, state in states.items() if is_due(state)}
    units = [
        [host, *node["workers"]]
        for host, node in grid["nodes"].items()
        if host in states and node["kind"] == "domain" and due & {host, *node["workers"]}
    ]
    batches = [Batch("canary", units[0])] if units else []
    step = batch_size(size, len(units))
    rest = units[1:]
    parts = [rest[start : start + step] for start in range(0, len(rest), step)]
    for number, part in enumerate(parts, 1):
        batches.append(Batch(f"batch {number} of {len(parts)}", [host for unit in part for host in unit]))
    covered = {host for batch in batches for host in batch.hosts}
    networks = [host for host in grid["nodes"] if host in due and grid["nodes"][host]["kind"] == "network"]
    others = [host for host in grid["nodes"] if host in due - covered - set(networks)]
    if others:  # Workers whose Domain is not in this inventory
        batches.append(Batch("workers of other inventories", others))
    if networks:
        batches.append(Batch("network", networks))
    return [asdict(batch) for batch in batches]


def is_due(state: Mapping[str, Any]) -> bool:
    """Whether a node has another release than it is to have, or its upgrade was cut off."""
    node = state["node"]
    return bool(node["release"] != state["wanted"]["release"] or node["trial"] or node["upgrading"])


def batch_size(size: Any, units: int) -> int:
    """A number of units, at least one, from ``3`` or ``"20%"``."""
    text = str(size).strip()
    try:
        number = max(1, units * int(text[:-1]) // 100) if text.endswith("%") else int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise AnsibleFilterError(f"pygrid_upgrade_batch must be a number of Domains or a percentage, not {size!r}")
    return number


def problems(grid: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], version: str) -> list[str]:
    """Why this upgrade must not begin; each with its remedy."""
    found = list(_parted(grid, states))
    for host, state in states.items():
        name, node = grid["nodes"][host]["name"], state["node"]
        if missing := (state.get("host") or {}).get("missing_packages"):
            found.append(
                f"{name}: its host lacks {', '.join(missing)}; deploy.yml with its present version installs that"
            )
        former = version_of(node["release"])
        if former is None:
            found.append(f"{name}: it runs with no release yet; deploy.yml brings it to life")
            continue
        found += [f"{name}: {problem}" for problem in path_problems(former, version)]
        health = node["health"] or {}
        cut_off = node["trial"] or node["upgrading"]
        if not cut_off and health.get("status") != "ready":
            reasons = ", ".join(health.get("reasons") or []) or node["service"]["state"]
            found.append(f"{name}: it is not ready ({reasons}); only a grid that works is upgraded")
        if (node["former"] or {}).get("going_back"):
            found.append(f"{name}: it is on its way back to {node['former']['release']}; run rollback.yml to its end")
    return found


def _parted(grid: Mapping[str, Any], hosts: Container[str]) -> Iterable[str]:
    """What --limit must not part: a Worker only works with a Domain of its own version."""
    for host, node in grid["nodes"].items():
        missing = [
            other for other in (*node["workers"], node["domain"]) if other in grid["nodes"] and other not in hosts
        ]
        if host in hosts and missing:
            yield f"{node['name']}: it changes together with {', '.join(missing)}, which --limit leaves out"


def path_problems(former: str, version: str) -> Iterable[str]:
    """Why one cannot get from a version of syft to another by an upgrade."""
    old, new = _numbers(former), _numbers(version)
    if old is None or new is None:
        yield f"versions {former} and {version} cannot be compared"
    elif new < old:
        yield f"{version} is older than its {former}; rollback.yml leads back to what was there before the last upgrade"
    elif old < OLDEST and new > old:
        yield f"{former} keeps its data where {version} would not find them, and would start empty"
    elif old[:2] != new[:2]:
        yield f"from {former} to {version} is no step that the data are known to survive"


def _numbers(version: str) -> tuple[int, int, int] | None:
    match = _VERSION.match(version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def plan_text(
    grid: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], batches: Sequence[Mapping[str, Any]], version: str
) -> str:
    """The plan for people."""
    if not batches:
        return f"Every node runs with its release of syft {version}: there is nothing to upgrade."
    lines = [f"Upgrade to syft {version}, one batch after the other; a batch that fails goes back and ends the run."]
    for batch in batches:
        names = [
            f"{grid['nodes'][host]['name']} ({version_of(states[host]['node']['release'])})" for host in batch["hosts"]
        ]
        lines.append(f"  {batch['title']}: {', '.join(names)}")
    return "\n".join(lines)


def return_plan(states: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The hosts (inventory names) that a rollback takes back: those of the last upgrade, and of no earlier one."""
    nodes = {host: state["node"] for host, state in states.items()}
    reached = [version_of(node["former"]["upgraded_to"]) for node in nodes.values() if node["former"]]
    # Upgrades only go up, so the last one is that to the newest version; clocks may be set.
    last = max(reached, key=lambda version: _numbers(version or "") or (0, 0, 0), default=None)
    return [host for host, node in nodes.items() if _goes_back(node, last)]


def _goes_back(node: Mapping[str, Any], last: str | None) -> bool:
    if node["upgrading"] or node["trial"]:  # also one that was cut off before it came to the new release
        return True
    former = node["former"]
    return bool(former) and (former["going_back"] or version_of(former["upgraded_to"]) == last)


def return_text(
    grid: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], lost: Mapping[str, str]
) -> str:
    """What a rollback is going to do, and what that costs, for people.

    Args:
        hosts: as :func:`return_plan` gives them.
        lost: host -> what would be lost there.
    """
    if not hosts:
        return "No node has been upgraded since it was deployed or rolled back: there is nothing to go back to."
    lines = ["Back to the release before the last upgrade, and to what the nodes knew then:"]
    for host in hosts:
        former = states[host]["node"]["former"]
        versions = "as it was before an upgrade that was cut off"
        if former:
            versions = f"{version_of(former['upgraded_to'])} -> {version_of(former['release'])}"
        price = f"; LOSES {lost[host]}" if lost.get(host) else ""
        lines.append(f"  {grid['nodes'][host]['name']}: {versions}{price}")
    return "\n".join(lines)


def peers(grid: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], host: str) -> list[dict[str, str]]:
    """Whom a Network or a Domain has to reach after its upgrade: those nodes of the grid that it was joined to before.

    Returns:
        ``name``, ``uid`` and ``door``, where each is reached though it may be on trial.
    """
    joined = {peer["uid"] for peer in states[host]["node"]["peers"] or [] if peer["status"] == "ACTIVE"}
    found = []
    for other, state in states.items():
        node, identity = grid["nodes"][other], state["node"]["identity"] or {}
        if identity.get("uid") in joined and node["door"] is not None:
            found.append({"name": node["name"], "uid": identity["uid"], "door": node["door"]})
    return found


@dataclass(frozen=True)
class Outcome:
    """How an upgrade ended for one node: ``title`` of what it is now, and why when that is not what was wanted."""

    title: str
    reason: str = ""


UPGRADED, BACK, UNTOUCHED, STUCK = "upgraded", "back at its former release", "not touched", "NOT BACK"


def outcome(variables: Mapping[str, Any]) -> Outcome:
    """How the upgrade ended for a node, from what the tasks of its batch left in its variables."""
    reason = variables.get("__upgrade_failure") or ""
    stuck = variables.get("__upgrade_stuck") or ""
    if stuck:
        return Outcome(STUCK, f"{reason}; {stuck}" if reason else stuck)
    if _went_well(variables, "__upgrade_return"):
        return Outcome(BACK, reason)
    if _went_well(variables, "__upgrade_opening"):
        return Outcome(UPGRADED)
    return Outcome(STUCK if reason else UNTOUCHED, reason)


def _went_well(variables: Mapping[str, Any], step: str) -> bool:
    result = variables.get(step) or {}
    return bool(result) and not any(result.get(word) for word in ("failed", "unreachable", "skipped"))


def failure_text(
    grid: Mapping[str, Any], variables: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], version: str
) -> str:
    """Why an upgrade has stopped, where every node is now, and what to do."""
    outcomes = {grid["nodes"][host]["name"]: outcome(variables[host]) for host in hosts}
    lines = [f"The upgrade to syft {version} has stopped."]
    lines += [f"  {name}: {found.reason}" for name, found in outcomes.items() if found.reason]
    for title in (STUCK, BACK, UPGRADED, UNTOUCHED):
        names = [name for name, found in outcomes.items() if found.title == title]
        if names:
            lines.append(f"{title[0].upper()}{title[1:]}: {', '.join(names)}.")
    if any(found.title == STUCK for found in outcomes.values()):
        lines.append("What is not back serves by itself when its trial is over, or goes back by the next run.")
    lines.append("Nothing was lost. Mend the cause and run upgrade.yml again, or rollback.yml for all to go back.")
    return "\n".join(lines)


def summary_text(
    grid: Mapping[str, Any], variables: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], version: str
) -> str:
    """What an upgrade that went well has done, and what to do next."""
    done = [grid["nodes"][host]["name"] for host in hosts if outcome(variables[host]).title == UPGRADED]
    if not done:
        return f"Every node runs with its release of syft {version}."
    return (
        f"Upgraded to syft {version}: {', '.join(done)}.\n"
        f"Set pygrid_version to {version} in the inventory if it is not, so that deploy.yml agrees.\n"
        "playbooks/status.yml shows the nodes, playbooks/rollback.yml goes back to what was before."
    )


def return_failure_text(grid: Mapping[str, Any], variables: Mapping[str, Mapping[str, Any]]) -> str:
    """Which nodes a rollback could not take back; empty when all are back."""
    stuck = [
        f"{node['name']}: {variables[host]['__upgrade_stuck']}"
        for host, node in grid["nodes"].items()
        if variables[host].get("__upgrade_stuck")
    ]
    return "\n  ".join(["Not back; run rollback.yml again when the cause is mended:", *stuck]) if stuck else ""
