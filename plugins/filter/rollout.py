# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of an upgrade and of a rollback: their order, what speaks against them, and what went wrong in a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils import rollout


def _states(grid: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    return {host: variables[host]["__node_state"] for host in grid["nodes"] if "__node_state" in variables[host]}


def rollout_plan(grid: Mapping[str, Any], variables: Mapping[str, Any], size: Any) -> list[dict[str, Any]]:
    """The batches, each with ``title`` and ``hosts``, in their order."""
    return rollout.plan(grid, _states(grid, variables), size)


def rollout_problems(grid: Mapping[str, Any], variables: Mapping[str, Any], version: str) -> list[str]:
    """Why the upgrade must not begin."""
    return rollout.problems(grid, _states(grid, variables), version)


def rollout_text(
    batches: list[dict[str, Any]], grid: Mapping[str, Any], variables: Mapping[str, Any], version: str
) -> str:
    """The plan for people."""
    return rollout.plan_text(grid, _states(grid, variables), batches, version)


def rollout_failure(grid: Mapping[str, Any], variables: Mapping[str, Any], hosts: Sequence[str], version: str) -> str:
    """Why an upgrade has stopped, and where every node is now."""
    return rollout.failure_text(grid, variables, hosts, version)


def rollout_summary(grid: Mapping[str, Any], variables: Mapping[str, Any], hosts: Sequence[str], version: str) -> str:
    """What an upgrade that went well has done."""
    return rollout.summary_text(grid, variables, hosts, version)


def node_peers(grid: Mapping[str, Any], variables: Mapping[str, Any], host: str) -> list[dict[str, str]]:
    """Whom a Network or a Domain has to reach after its upgrade."""
    return rollout.peers(grid, _states(grid, variables), host)


def return_plan(grid: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    """The hosts that a rollback takes back."""
    return rollout.return_plan(_states(grid, variables))


def return_text(hosts: Sequence[str], grid: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """What a rollback is going to do, and what that costs."""
    return rollout.return_text(grid, _states(grid, variables), hosts, return_price(hosts, variables))


def return_price(hosts: Sequence[str], variables: Mapping[str, Any]) -> dict[str, str]:
    """Host -> what would be lost there, without those that lose nothing."""
    prices = {host: (variables[host].get("__upgrade_price") or {}).get("lost", "") for host in hosts}
    return {host: price for host, price in prices.items() if price}


def return_failure(grid: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """Which nodes a rollback could not take back."""
    return rollout.return_failure_text(grid, variables)


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "rollout_plan": rollout_plan,
            "rollout_problems": rollout_problems,
            "rollout_text": rollout_text,
            "rollout_failure": rollout_failure,
            "rollout_summary": rollout_summary,
            "node_peers": node_peers,
            "return_plan": return_plan,
            "return_text": return_text,
            "return_price": return_price,
            "return_failure": return_failure,
        }
