# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.scale_file: keeps what was decided, on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.plugin_utils import scale_file
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale_file import ScaleFile


class ActionModule(ActionBase):
    """Note in the file of inventory what begins, what has ended, and what is to be kept."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return whether the file was (in check mode would be) changed."""
        result = super().run(tmp, task_vars)
        path = Path(self._task.args["path"])
        before, after = scale_file.change(path, self._edit, dry_run=self._task.check_mode)
        if self._task.diff:
            result["diff"] = {"before": before, "after": after, "before_header": str(path), "after_header": str(path)}
        return {**result, "changed": before != after}

    def _edit(self, content: ScaleFile) -> None:
        given = self._task.args
        for step in given.get("begin") or []:
            content.begin(step["host"], step["what"], (given.get("variables") or {}).get(step["host"]))
        for step in given.get("end") or []:
            content.end(step["host"], step["host"] in (given.get("without_machine") or []))
        for step in given.get("undo") or []:
            if not step["begun"]:
                content.undo(step["host"])
        for host, variables in (given.get("merge") or {}).items():
            content.keep(host, variables)
        for host, variables in (given.get("keep") or {}).items():
            content.replace(host, variables)
