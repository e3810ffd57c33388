# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every task of a first deploy, and moments in the middle of its long ones: killed, run again, compared."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(CHECKOUT / "tests"))

from support.faults import Kill, moments, try_kill  # noqa: E402 - the path is known only now
from support.grid import LocalGrid  # noqa: E402
from support.playbook import killing  # noqa: E402

HEADER = """\
# Killed deploys

Written by `make scenario S=kills`: a first deploy of the local grid is killed (SIGKILL to `ansible-playbook` and all
its children) before the task named, or after the seconds named, run again, and compared with an undisturbed deploy:
same release, every node ready, both Domains active on the Network, nothing left over in the releases folder, and 0
changes by one more run.

| killed at | second run (s) | differences |
|---|---|---|
"""


@pytest.mark.timeout(0)
def test_every_moment_of_a_first_deploy(tmp_path: Path) -> None:
    record = tmp_path / "moments"
    grid = LocalGrid(tmp_path / "g", first_port=17400)
    try:
        whole = grid.play("deploy", environment=killing(record, 0))
        assert whole.returncode == 0, whole.output
        release = grid.ready("net")["release"]
        kills: list[int | float] = [*telling(moments(record))]
        # In the middle of long tasks: staging, starting, joining.
        kills += [whole.seconds * part / 7 for part in range(1, 7)]
        results = []
        for kill in kills:
            results.append(try_kill(grid, release, kill, record))
            # After each one, so that a long run can be watched.
            (CHECKOUT / "docs" / "faults.md").write_text(HEADER + "".join(f"{row(one)}\n" for one in results))
        assert [one for one in results if one.problems] == []
    finally:
        grid.remove()


def telling(all_moments: list[str]) -> list[int]:
    """The start of each task; where the same task comes again in another play, that one too."""
    return [number for number, what in enumerate(all_moments, start=1) if what.startswith("start of")]


def row(kill: Kill) -> str:
    return f"| {kill.what} | {kill.again_seconds:.0f} | {'; '.join(kill.problems) or 'none'} |"
