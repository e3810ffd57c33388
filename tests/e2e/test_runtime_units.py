# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runtime's unit tests, in an environment that has syft: with the tools alone some of them cannot be imported."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.runtime import CHECKOUT, syft_python

# pytest comes from the tools, appended last, so that everything the node's environment has of its own wins.
RUN = """
import sys
sys.path.append(sys.argv.pop(1))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_unit_tests_of_the_runtime_pass_where_a_node_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Path(pytest.__file__).parents[1]
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    command = [syft_python(), "-c", RUN, str(tools), "-q", "-p", "no:cacheprovider", "tests/unit/pygrid_node"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert re.search(r"\b\d\d+ passed", summary), summary
    assert "skipped" not in summary, done.stdout[-2000:]
