# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a module and telling people meanwhile what it says that it is at (module_utils/reports.py)."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.openmined.pygrid.plugins.plugin_utils import run_state

# Connections over which a second command may run while the first one does.
SIDE_BY_SIDE = ("local", "ssh")
# Most modules have ended before anybody would ask.
FIRST_SECONDS = 4.0
POLL_SECONDS = 3.0
# Without the callback openmined.pygrid.progress each report is a line that stays.
LINE_SECONDS = 20.0


def execute(action: ActionBase, name: str, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """The result of the module ``name``, which takes the option ``report``."""
    connection = action._connection
    if action._task.check_mode or getattr(connection, "transport", "") not in SIDE_BY_SIDE:
        return action._execute_module(module_name=name, module_args=arguments, task_vars=variables)
    report = f"pygrid-{uuid.uuid4().hex}"
    ended = threading.Event()
    host = str(variables.get("inventory_hostname", "localhost"))
    listener = threading.Thread(target=_listen, args=(connection, report, host, ended), daemon=True)
    listener.start()
    try:
        return action._execute_module(
            module_name=name, module_args={**arguments, "report": report}, task_vars=variables
        )
    finally:
        ended.set()


def _listen(connection: Any, report: str, host: str, ended: threading.Event) -> None:
    said, told_at = "", 0.0
    pause = FIRST_SECONDS
    while not ended.wait(pause):
        pause = POLL_SECONDS
        try:
            # As the account that logs in: to become another one takes part of the connection for itself.
            code, output, _error = connection.exec_command(f"cat /dev/shm/{report} 2>/dev/null", sudoable=False)
        except (AnsibleError, OSError):
            continue  # whether the host can be reached is for the module to find out
        text = output.decode(errors="replace").strip() if code == 0 else ""
        if not text or text == said or ended.is_set():
            continue
        if run_state.report(host, text):
            said = text
        elif time.monotonic() - told_at >= LINE_SECONDS:
            Display().display(f"{host}: {text}")
            said, told_at = text, time.monotonic()
