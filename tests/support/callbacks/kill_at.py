# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback for fault tests: kills ansible-playbook, with all its children, at a chosen moment of a run.

Moments are counted over the whole run: each start of a task and each end of a task on a host is one. The kill is
SIGKILL to the process group, as when a machine loses power: no handler, no clean-up. Time and name of the moment
are written before.

KILL_AT names the moment by its number (0: only count), or by a part of its text. KILL_AT=new kills at the first start
of a task that no earlier run with the same KILL_RECORD has come to, so that each run comes one task further.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kill_at
type: aggregate
short_description: Kill the run at a chosen moment
description: For fault tests only.
"""


class CallbackModule(CallbackBase):
    """Counts moments, and ends the run at the one named by KILL_AT."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_at"

    def __init__(self) -> None:
        super().__init__()
        self._moment = 0
        kill_at = os.environ.get("KILL_AT", "0")
        self._at_new = kill_at == "new"
        self._kill_at = int(kill_at) if kill_at.isdigit() else 0
        self._at_text = "" if kill_at.isdigit() or self._at_new else kill_at
        self._record = Path(os.environ["KILL_RECORD"])
        lines = self._record.read_text().splitlines() if self._record.exists() else []
        self._seen = {line.partition("\t")[2] for line in lines}

    def _pass(self, what: str) -> None:
        self._moment += 1
        with self._record.open("a") as stream:
            stream.write(f"{time.time():.3f}\t{what}\n")
        is_new = self._at_new and what.startswith("start of") and what not in self._seen
        is_named = bool(self._at_text) and self._at_text in what
        if is_new or is_named or self._moment == self._kill_at:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._pass(f"start of: {task.get_name()}")

    def v2_runner_on_ok(self, result: Any) -> None:
        task = getattr(result, "task", None) or result._task
        host = getattr(result, "host", None) or result._host
        self._pass(f"end of: {task.get_name()} on {host.get_name()}")
