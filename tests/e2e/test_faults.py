# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of the kills; molecule/kills tries all of them and writes docs/faults.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.faults import differences, killed_deploy, moments
from support.grid import LocalGrid
from support.playbook import killing


@pytest.mark.thorough
def test_deploy_killed_again_and_again_gets_there(tmp_path: Path) -> None:
    """One first deploy, killed at every fifth moment of what is left of it, each time a little further on."""
    grid = LocalGrid(tmp_path / "g", first_port=17300)
    record = tmp_path / "moments"
    killed = []
    try:
        for moment in (4, 9, 10, 12, 14, 16, 18, 20, 22, 24):
            try:
                killed.append(killed_deploy(grid, moment, record))
            except AssertionError:
                break
        final = grid.play("deploy", environment=killing(record, 0))
        assert final.returncode == 0, final.output
        assert len(killed) >= 8, killed
        assert len(moments(record)) > 10
        release = grid.ready("net")["release"]
        assert differences(grid, release) == []
        identities = {name: grid.identity(name)["uid"] for name in ("net", "alice", "bob")}
        assert {name: grid.ready(name)["uid"] for name in identities} == identities
    finally:
        grid.remove()


def test_kill_callback_kills(tmp_path: Path) -> None:
    """Else every test of this kind would pass without a kill."""
    grid = LocalGrid(tmp_path / "g", first_port=17310)
    with pytest.raises(AssertionError, match="ended by itself"):
        killed_deploy(
            LocalGrid(tmp_path / "x", 17320, variables={"pygrid_python": "/no"}), 10_000, tmp_path / "moments"
        )
    assert killed_deploy(grid, 1, tmp_path / "moments").startswith("start of:")
    assert not grid.home.exists()
