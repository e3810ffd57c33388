# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module tells while it runs: it can be read meanwhile, and nothing of it is left."""

from __future__ import annotations

import subprocess
import time
import uuid
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import reports


@pytest.fixture
def name() -> str:
    return f"pygrid-{uuid.uuid4().hex}"


def test_it_can_be_read_while_the_module_runs_and_is_gone_afterwards(name: str) -> None:
    file = Path("/dev/shm") / name

    def fail() -> None:
        with reports.reporting(name):
            reports.say("12 of 185 packages installed")
            reports.say("done")
            assert file.read_text() == "done"
            assert file.stat().st_mode & 0o777 == 0o644
            raise RuntimeError("as a module does")

    with pytest.raises(RuntimeError):
        fail()
    assert not file.exists()
    reports.say("to nobody")
    assert not file.exists()


@pytest.mark.parametrize("given", [None, "", "../etc/passwd", "pygrid-1"])
def test_it_writes_nowhere_else(given: str | None) -> None:
    with reports.reporting(given):
        reports.say("to nobody")
    assert not (Path("/dev/shm") / "pygrid-1").exists()


def test_it_follows_no_link_and_takes_no_file_of_somebody_else(name: str, tmp_path: Path) -> None:
    link = Path("/dev/shm") / name
    link.symlink_to(tmp_path / "target")
    try:
        with reports.reporting(name):
            reports.say("to nobody")
        assert not (tmp_path / "target").exists()
        assert link.is_symlink()
    finally:
        link.unlink()


def test_a_long_program_is_told_of_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "TICK_SECONDS", 0.1)
    ticks: list[float] = []
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    program = "printf %0200000d 0; sleep 0.5; printf end; echo problem >&2"
    with subprocess.Popen(["sh", "-c", program], **pipes) as child:
        answer, problem = reports.communicate(child, lambda: ticks.append(time.monotonic()))
    assert (len(answer), answer[-4:], problem) == (200_003, "0end", "problem\n")
    assert len(ticks) >= 3
    with subprocess.Popen(["sleep", "60"], **pipes) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            reports.communicate(child, lambda: None, seconds=0.3)
        child.kill()
