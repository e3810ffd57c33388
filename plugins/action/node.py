# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action: tell people what the module is at while it runs."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.plugin_utils import listening


class ActionModule(ActionBase):
    """Run the module as it is, and listen to it."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result = super().run(tmp, task_vars)
        answer = listening.execute(self, "openmined.pygrid.node", dict(self._task.args), task_vars or {})
        return {**result, **answer}
