# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a playbook as a user does, and how it ended."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """How a playbook ended. ``recap``: changed tasks by host."""

    returncode: int
    output: str
    seconds: float

    @property
    def recap(self) -> dict[str, int]:
        return {match[1]: int(match[3]) for match in RECAP.finditer(self.output)}

    @property
    def changed(self) -> int:
        return sum(self.recap.values())


def run_playbook(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, timeout_seconds: int = 600
) -> Run:
    """Run ansible-playbook to its end, whatever that is. ``environment`` is all of it, ours by default."""
    started = time.monotonic()
    process = subprocess.run(
        command,
        cwd=folder,
        # molecule asks for colours at a terminal, in which the recap would not be found.
        env={
            **(os.environ if environment is None else environment),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_seconds,
        check=False,
        start_new_session=True,  # tests of faults kill the whole group
    )
    return Run(process.returncode, process.stdout, time.monotonic() - started)


def killing(record: Path, moment: int | str) -> dict[str, str]:
    """Variables with which a run is killed at a moment, as callbacks/kill_at.py counts or names it; 0: counts only."""
    return {
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).resolve().parent / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "kill_at",
        "KILL_RECORD": str(record),
        "KILL_AT": str(moment),
    }
