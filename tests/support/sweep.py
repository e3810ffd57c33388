# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killing a playbook at each of its tasks, one further each time, until it gets to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .playbook import Run, killing

MOST = 300


class Plays(Protocol):
    """A grid on which playbooks can be run."""

    def play(self, playbook: str, *arguments: str, environment: dict[str, str]) -> Run: ...


def sweep(
    grid: Plays, record: Path, playbook: str, *arguments: str, after_each: Callable[[str], None] = lambda _task: None
) -> list[str]:
    """Run a playbook, killed at every task that no run before has come to; returns at which.

    Args:
        record: file for what the runs have come to; none to begin with.
        after_each: is called after each kill with the task that was about to begin.
    """
    killed: list[str] = []
    while len(killed) < MOST:
        run = grid.play(playbook, *arguments, environment=killing(record, "new"))
        if run.returncode >= 0:
            assert run.returncode == 0, f"after {killed[-1:]}: {run.output[-4000:]}"
            return killed
        task = record.read_text().splitlines()[-1].partition("start of: ")[2]
        killed.append(task)
        after_each(task)
    raise AssertionError(f"still not at its end after {MOST} kills: {killed[-5:]}")
