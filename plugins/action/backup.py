# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action: keep the password of all backups on the controller, and give each node one of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.backup_password import (
    derived_password,
    ensure_password_file,
    read_password,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import collection_version

MODULE = "openmined.pygrid.backup"


class ActionModule(ActionBase):
    """Run the module with the node's own password."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result; a failure names the host."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            file = self._password(arguments)
        except PygridError as error:
            return {**result, "failed": True, "msg": str(error)}
        arguments["collection_version"] = collection_version()
        answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        return {**result, **answer, "password_file": file}

    def _password(self, arguments: dict[str, Any]) -> str:
        """Put the node's password into the arguments; returns the file that the one of all backups is from, if any."""
        password = arguments.get("password") or ""
        file = Path(arguments.pop("password_file", "")).expanduser()
        make = arguments.pop("make_password", False) and not self._task.check_mode
        if not password:
            if make and ensure_password_file(file):
                Display().warning(
                    f"{file} was made: it is the password of all backups. Keep a copy of it where a fire here does not"
                    " reach it; without it nobody can restore anything."
                )
            password = read_password(file, tolerant=self._task.check_mode)
        given = bool(arguments.get("password"))
        arguments["password"] = derived_password(password, str(arguments["name"]))
        return "" if given else str(file)
