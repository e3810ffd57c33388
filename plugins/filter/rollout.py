# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of an upgrade: its order, what speaks against it, and what went wrong in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils import rollout


def _states(grid: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    return {host: variables[host]["__node_state"] for host in grid["nodes"]}


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


def batch_problems(grid: Mapping[str, Any], variables: Mapping[str, Any], hosts: Iterable[str]) -> list[str]:
    """``node: sentence`` for whatever went wrong on the hosts of a batch."""
    read = {host: variables[host] for host in hosts}
    return [f"{grid['nodes'][host]['name']}: {problem}" for host, known in read.items() for problem in _problems(known)]


def _problems(variables: Mapping[str, Any]) -> Iterable[str]:
    if variables.get("__upgrade_failure"):
        yield variables["__upgrade_failure"]
    steps = ("__upgrade_drain", "__node_activation", "__upgrade_health", "__upgrade_probe")
    if any((variables.get(step) or {}).get("unreachable") for step in steps):
        yield "its host cannot be reached any more"


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "rollout_plan": rollout_plan,
            "rollout_problems": rollout_problems,
            "rollout_text": rollout_text,
            "batch_problems": batch_problems,
        }
