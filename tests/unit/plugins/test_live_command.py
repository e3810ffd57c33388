# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action openmined.pygrid.live_command, run by ansible itself: what matters is what reaches the terminal, and when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]


def ansible(tmp_path: Path, arguments: dict[str, object], *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            Path(sys.executable).parent / "ansible",
            *("localhost", "-i", "localhost,", "-c", "local", "-m", "openmined.pygrid.live_command"),
            *("-a", json.dumps(arguments), *options),
        ],
        cwd=CHECKOUT,
        env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(60)
def test_lines_are_shown_before_the_program_ends(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    wait = f"echo first; until [ -e {seen} ]; do sleep 0.1; done; echo second"
    with ansible(tmp_path, {"argv": ["sh", "-c", wait]}) as run:
        lines = []
        for line in run.stdout:
            lines.append(line.strip())
            if line.strip() == "first":
                seen.touch()  # only now can the program go on
    assert run.returncode == 0
    assert lines.index("first") < lines.index("second")


@pytest.mark.timeout(60)
def test_a_failure_is_told_by_the_last_line(tmp_path: Path) -> None:
    with ansible(tmp_path, {"argv": ["sh", "-c", "echo working; echo the reason >&2; exit 3"]}) as run:
        output, _unused = run.communicate()
    assert run.returncode != 0
    assert "the reason (exit code 3)" in output


@pytest.mark.timeout(60)
def test_a_missing_program_or_folder_is_named(tmp_path: Path) -> None:
    with ansible(tmp_path, {"argv": ["true"], "chdir": str(tmp_path / "nowhere")}) as run:
        output, _unused = run.communicate()
    assert run.returncode != 0
    assert "cannot run true: No such file or directory" in output
    assert "nowhere" in output


@pytest.mark.timeout(60)
def test_check_mode_runs_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with ansible(tmp_path, {"argv": ["touch", str(made)]}, "--check") as run:
        run.communicate()
    assert run.returncode == 0
    assert not made.exists()
