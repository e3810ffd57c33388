# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killing a deploy at a chosen moment, and what has to be true after it was run again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from support.grid import CHECKOUT, LocalGrid
from support.playbook import killing


@dataclass(frozen=True)
class Kill:
    """Where a run was killed and how the next ones went."""

    moment: int
    what: str
    again_seconds: float
    problems: tuple[str, ...]


def moments(record: Path) -> list[str]:
    """What happened in a run, in order; empty when it ended before its first task."""
    if not record.exists():
        return []
    return [line.partition("\t")[2] for line in record.read_text().splitlines()]


def killed_deploy(grid: LocalGrid, moment: int, record: Path) -> str:
    """Deploy, killed at ``moment``; returns what that was."""
    record.unlink(missing_ok=True)
    process = subprocess.Popen(
        grid.command("deploy"),
        cwd=CHECKOUT,
        env={**os.environ, **killing(record, moment)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(timeout=600)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert code == -signal.SIGKILL, f"the deploy ended by itself ({code}) before moment {moment}"
    return moments(record)[-1]


def timed_kill(grid: LocalGrid, seconds: float, record: Path) -> str:
    """Deploy, killed after some time, so in the middle of a task; returns the last moment before."""
    record.unlink(missing_ok=True)
    process = subprocess.Popen(
        grid.command("deploy"),
        cwd=CHECKOUT,
        env={**os.environ, **killing(record, 0)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    seen = moments(record)
    return f"{seconds:.1f} s, in: {seen[-1]}" if seen else f"{seconds:.1f} s"


def differences(grid: LocalGrid, release: str) -> list[str]:
    """In what the grid differs from one that was deployed without a disturbance, after one more deploy."""
    found = []
    for name in ("net", "alice", "bob", "alice-w1", "bob-w1"):
        health = grid.ready(name)
        if health["status"] != "ready":
            found.append(f"{name} is {health['status']}: {health['reasons']}")
        if health["release"] != release:
            found.append(f"{name} runs release {health['release']}, not {release}")
    leftovers = [path.name for path in (grid.home / "releases").iterdir() if path.name != release]
    if leftovers:
        found.append(f"left in releases: {leftovers}")
    if grid.client("peers", "net") != {"alice": "ACTIVE", "bob": "ACTIVE"}:
        found.append("the Network does not see both Domains")
    again = grid.deploy()
    if again.changed:
        found.append(f"the run after still changed something: {again.recap}")
    return found


def try_kill(grid: LocalGrid, release: str, kill: int | float, record: Path) -> Kill:
    """Kill a first deploy at a moment (int) or after seconds (float), run it again, compare, and clean up."""
    grid.remove()
    what = killed_deploy(grid, kill, record) if isinstance(kill, int) else timed_kill(grid, kill, record)
    again = grid.deploy()
    problems = differences(grid, release)
    return Kill(int(kill), what, again.seconds, tuple(problems))
