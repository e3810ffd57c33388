# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exit codes and the one line on standard error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import RUNTIME


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the runtime's command line."""
    return subprocess.run(
        [sys.executable, "-m", "pygrid_node", *arguments],
        env={"PYTHONPATH": str(RUNTIME)}, input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["run", "check"])
def test_unusable_settings_are_one_line_and_78(tmp_path: Path, command: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"schema": 1, "kind": "network"}')
    done = run(command, str(file))
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"pygrid_node: settings {file}: node_directory is missing\n"


def test_missing_settings(tmp_path: Path) -> None:
    done = run("run", str(tmp_path / "none.json"))
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("stdin", ["", "[]", "{"])
def test_unusable_standard_input(tmp_path: Path, stdin: str) -> None:
    done = run("identity", "create", "--kind", "worker", "--file", str(tmp_path / "i"), "--from-stdin", stdin=stdin)
    assert (done.returncode, done.stderr.startswith("pygrid_node: standard input:")) == (78, True)


def test_usage_is_not_a_configuration_error() -> None:
    assert run("fly").returncode == 2
