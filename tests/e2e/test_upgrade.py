# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades in scope user, one going on from the other: killed at every task, a broken release, rollbacks.

molecule/upgrade does it on servers, while people use them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.grid import LocalGrid
from support.runtime import wait_for
from support.sweep import sweep

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(3600)]

OLD, NEW = "0.9.2", "0.9.5"
TO_NEW = ("-e", f"pygrid_version={NEW}")
NODES = ("net", "alice", "bob", "alice-w1", "bob-w1")
BREAK = '\n\ndef execute_byte_code(*words, **options):\n    raise RuntimeError("broken on purpose")\n'


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGrid]:
    """A grid of the older version, with data."""
    grid = LocalGrid(tmp_path_factory.mktemp("u"), 17600, variables={"pygrid_version": OLD})
    try:
        grid.deploy()
        for domain in ("alice", "bob"):
            grid.client("seed", domain)
        yield grid
    finally:
        grid.remove()


def known(grid: LocalGrid) -> dict[str, Any]:
    return {domain: grid.client("fingerprint", domain) for domain in ("alice", "bob")}


def serving(grid: LocalGrid, version: str) -> None:
    """Insist that every node runs that version, lets people in, and is joined."""
    states = {name: grid.wait_ready(name) for name in NODES}
    assert {state["syft_version"] for state in states.values()} == {version}
    assert not any(states[name]["trial"] for name in ("net", "alice", "bob"))
    assert grid.client("peers", "net") == {"alice": "ACTIVE", "bob": "ACTIVE"}
    for name in NODES:
        assert not grid.node_file(name, "trial.json").exists()
        assert not grid.node_file(name, "former-on-trial.json").exists()


def snapshots(grid: LocalGrid) -> list[str]:
    return sorted(str(path.relative_to(grid.home)) for path in grid.home.glob("nodes/*/snapshots/*"))


def test_a_deploy_keeps_the_version(grid: LocalGrid) -> None:
    refused = grid.play("deploy", *TO_NEW)
    assert refused.returncode != 0
    assert f"alice: it runs syft {OLD}, and a deploy does not change that; playbooks/upgrade.yml" in refused.output
    assert grid.deploy().changed == 0


def test_check_shows_the_plan_and_changes_nothing(grid: LocalGrid) -> None:
    before = {path: path.stat().st_mtime for path in grid.home.rglob("*.json")}
    run = grid.play("upgrade", *TO_NEW, "--check")
    assert run.returncode == 0, run.output
    assert f"canary: alice ({OLD}), alice-w1 ({OLD})" in run.output
    after = {path: path.stat().st_mtime for path in grid.home.rglob("*.json")}
    assert after == before


def test_an_upgrade_and_a_rollback_killed_at_every_task(grid: LocalGrid, tmp_path: Path) -> None:
    before = known(grid)
    kills = sweep(grid, tmp_path / "upgrade", "upgrade", *TO_NEW)
    assert len(kills) > 20, kills
    serving(grid, NEW)
    assert known(grid) == before
    assert len(snapshots(grid)) == 3, "one of each node that knows something"
    assert grid.play("upgrade", *TO_NEW).changed == 0
    assert grid.deploy(*TO_NEW).changed == 0
    kills = sweep(grid, tmp_path / "rollback", "rollback", "-e", "pygrid_confirm=true")
    assert len(kills) > 8, kills
    serving(grid, OLD)
    assert known(grid) == before
    assert snapshots(grid) == []
    again = grid.play("rollback")
    assert (again.returncode, again.changed) == (0, 0), again.output
    assert "there is nothing to go back to" in " ".join(again.output.split())
    assert grid.deploy().changed == 0


def test_a_broken_release_goes_back_by_itself_and_then_works(grid: LocalGrid) -> None:
    before = known(grid)
    (file,) = grid.home.glob(f"releases/{NEW}-*/env/lib/python3*/site-packages/syft/service/code/user_code.py")
    whole = file.read_text()
    file.write_text(whole + BREAK)
    run = grid.play("upgrade", *TO_NEW)
    assert run.returncode != 0
    assert "alice-w1: its probe job is errored" in run.output
    assert "Back at its former release: alice, alice-w1." in run.output
    assert "Not touched: bob, bob-w1, net." in run.output
    serving(grid, OLD)
    assert known(grid) == before
    file.write_text(whole)
    assert grid.play("upgrade", *TO_NEW).returncode == 0
    serving(grid, NEW)


def test_a_rollback_says_what_it_costs(grid: LocalGrid) -> None:
    before = known(grid)
    job = grid.client("submit", "alice", 0)["job"]
    assert grid.client("result", "alice", job, 60)["status"] == "completed"
    refused = grid.play("rollback")
    assert refused.returncode != 0
    assert f"alice: {NEW} -> {OLD}; LOSES" in refused.output
    assert "1 job" in refused.output
    serving(grid, NEW)
    assert grid.play("rollback", "-e", "pygrid_confirm=true").returncode == 0
    serving(grid, OLD)
    assert known(grid) == before


def test_two_runs_at_once(grid: LocalGrid, tmp_path: Path) -> None:
    log = tmp_path / "first.log"
    with log.open("w") as output:
        command = grid.command("upgrade", *TO_NEW)
        first = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    wait_for("the first run is at work", lambda: "[Stage the release]" in log.read_text(), 120)
    second = grid.play("upgrade", *TO_NEW)
    assert second.returncode != 0
    assert "Another run is at work" in second.output
    assert first.wait(600) == 0, log.read_text()[-4000:]
    serving(grid, NEW)
