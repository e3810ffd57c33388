# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of backups: what a person reads of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils import backup_report


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "backup_summary": backup_report.backup_summary,
            "restore_left_out": backup_report.restore_left_out,
            "restore_plan": backup_report.restore_plan,
            "restore_summary": backup_report.restore_summary,
        }
