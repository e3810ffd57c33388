# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.live_command: a program on the controller whose lines are shown while it runs."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):
    """Display of a forked worker reaches the terminal at once; the result of a task only when the task has ended."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return rc and seconds; fail with the last line of the output when the program fails."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "argv": {"type": "list", "elements": "str", "required": True},
                "chdir": {"type": "path"},
            }
        )
        argv, folder = arguments["argv"], arguments.get("chdir")
        if self._task.check_mode:
            return {**result, "skipped": True, "msg": "a program is not run in check mode"}
        started = time.monotonic()
        said = "it said nothing"
        try:
            with subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as program:
                for line in program.stdout or ():
                    Display().display(line.rstrip("\n"))
                    said = line.strip() or said
        except OSError as error:
            return {**result, "failed": True, "msg": f"cannot run {argv[0]}: {error.strerror}: {error.filename}"}
        result.update(changed=True, rc=program.returncode, seconds=round(time.monotonic() - started, 2))
        if program.returncode != 0:
            result.update(failed=True, msg=f"{said} (exit code {program.returncode})")
        return result
