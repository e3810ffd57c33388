# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action: name this run, and find out whether the run that stands in its way is dead."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.plugin_utils import controller_process

MODULE = "openmined.pygrid.lease"


class ActionModule(ActionBase):
    """Run the module, and once more when its way was barred by a run of this controller that has ended."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result; a failure names the host."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        arguments = {**self._task.args, "run": controller_process.own_name(), "who": controller_process.person()}
        answer = self._module(arguments, task_vars)
        holder = answer.get("held_by")
        if holder and controller_process.is_dead(holder):
            answer = self._module({**arguments, "instead_of": holder}, task_vars)
        if answer.get("failed") and "msg" in answer:
            answer["msg"] = f"{task_vars.get('inventory_hostname', 'localhost')}: {answer['msg']}"
        return {**result, **answer}

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
