# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that tell from the grid who talks to whom, and what a machine needs for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.flows import firewall_rules, flows
from ansible_collections.openmined.pygrid.plugins.plugin_utils.preflight_problems import deploy_problems
from ansible_collections.openmined.pygrid.plugins.plugin_utils.preflight_report import (
    machine_needs,
    preflight_report,
    reachability_plan,
)


def _flows(grid: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [flow.as_data() for flow in flows(grid, hostvars)]


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "flows": _flows,
            "firewall_rules": firewall_rules,
            "machine_needs": machine_needs,
            "reachability_plan": reachability_plan,
            "preflight_report": preflight_report,
            "deploy_problems": deploy_problems,
        }
