# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action: tell people what a node that is waited for is at."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.plugin_utils import listening


class ActionModule(ActionBase):
    """Run the module, and listen to it when it waits."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result = super().run(tmp, task_vars)
        name, arguments = "openmined.pygrid.node_info", dict(self._task.args)
        if arguments.get("wait_for", "nothing") == "nothing":
            answer = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
        else:
            answer = listening.execute(self, name, arguments, task_vars or {})
        return {**result, **answer}
