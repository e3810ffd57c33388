# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of resizing: what was asked for, what speaks against it, and in which order it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils import resize


def _problems(grid: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return list(resize.problems(grid, wanted))


def _problems_found(grid: Mapping[str, Any], hosts: list[str], hostvars: Mapping[str, Any]) -> list[str]:
    return list(resize.problems_found(grid, hosts, hostvars))


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "resize_variables": resize.variables,
            "resize_problems": _problems,
            "resize_problems_found": _problems_found,
            "resize_order": resize.order,
            "resize_text": resize.plan_text,
            "resize_slots": resize.slots,
        }
