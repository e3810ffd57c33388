# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scaling and resizing a grid that runs: killed at every task, with busy Workers, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.grid import CHECKOUT, LocalGrid
from support.playbook import Run, killing, run_playbook

# tests/e2e/test_grid.py has a sample of it.
pytestmark = pytest.mark.thorough

OTHERS = ("net", "alice", "bob", "bob-w1")
MOST_KILLS = 60


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGrid]:
    """A deployed grid with a dataset."""
    grid = LocalGrid(tmp_path_factory.mktemp("g"), first_port=17400)
    try:
        grid.deploy()
        grid.client("seed", "alice")
        yield grid
    finally:
        grid.remove()


def workers(number: int) -> tuple[str, ...]:
    return ("scale", "-e", json.dumps({"pygrid_domain_workers": {"alice": number}}))


def must(grid: LocalGrid, *words: str) -> Run:
    run = grid.play(*words)
    assert run.returncode == 0, run.output
    return run


def busy(grid: LocalGrid, seconds: int) -> str:
    """Let alice's only Worker begin a job; returns its id."""
    job = grid.client("submit", "alice", seconds)["job"]
    end = time.monotonic() + 60
    while grid.ready("alice-w1")["state"] != "busy":
        assert time.monotonic() < end, "the job was never started"
        time.sleep(0.2)
    return job


def sweep(grid: LocalGrid, record: Path, *words: str) -> list[str]:
    """Run a playbook, killed at every new task; returns at which."""
    killed: list[str] = []
    while len(killed) < MOST_KILLS:
        run = grid.play(*words, environment=killing(record, "new"))
        if run.returncode >= 0:
            assert run.returncode == 0, f"after {killed[-1:]}: {run.output[-4000:]}"
            return killed
        killed.append(record.read_text().splitlines()[-1].partition("start of: ")[2])
    raise AssertionError(f"still not at its end: {killed[-5:]}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("scale", "-e", '{"pygrid_domain_workers": {"carol": 1, "alice": -1}, "pygrid_domains_joined": ["dora"]}'),
            (
                "pygrid_domain_workers names carol, which is no Domain of the inventory; the Domains are alice, bob",
                "pygrid_domain_workers is -1 for alice; it is a number from 0 on",
                "pygrid_domains_joined names dora",
            ),
        ),
        (
            ("resize", "-e", '{"pygrid_resize": {"x": {}, "alice": {"processes": 2}, "bob-w1": {"processes": 0}}}'),
            (
                "pygrid_resize names x, which is no node",
                "alice is a domain; only a Worker has processes",
                "processes is 0 for bob-w1; it is a number from 1 to 64",
            ),
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(tmp_path: Path, words: tuple[str, ...], said: tuple[str, ...]) -> None:
    grid = LocalGrid(tmp_path, first_port=17430)
    run = grid.play(*words)
    assert run.returncode != 0
    assert run.changed == 0
    assert r"\n" not in run.output, "each problem has a line of its own"
    text = " ".join(run.output.split())
    assert "Nothing was changed." in text
    for sentence in said:
        assert sentence in text
    assert not grid.scale_file.exists()


def test_half_an_inventory_is_refused(tmp_path: Path) -> None:
    """With a single file as the inventory, what was decided beside it must not be overlooked, nor be lost."""
    grid = LocalGrid(tmp_path, first_port=17440)
    hosts = grid.write_inventory()

    def play(playbook: str) -> str:
        path = CHECKOUT / "playbooks" / f"{playbook}.yml"
        more = ["-e", '{"pygrid_domain_workers": {"alice": 2}}']
        run = run_playbook(["ansible-playbook", "-i", str(hosts), str(path), *more], CHECKOUT)
        assert run.returncode != 0
        assert run.changed == 0
        return " ".join(run.output.split())

    assert f"or that file too, though it need not be there yet (-i {grid.scale_file})" in play("scale")
    grid.scale_file.write_text("pygrid_spare: {hosts: {alice-w1: {}}}\n")
    assert f"{grid.scale_file} belongs to it and was not read; add -i {grid.scale_file}" in play("deploy")


def test_killed_at_every_task(grid: LocalGrid, tmp_path: Path) -> None:
    """A Worker comes and goes, in runs that are killed one task further each time."""
    before = {name: grid.pid_of(name) for name in (*OTHERS, "alice-w1")}
    out = sweep(grid, tmp_path / "out", *workers(2))
    assert len(out) > 12, out
    assert grid.ready("alice")["workers"]["names"] == ["alice-w1", "alice-w2"]
    assert grid.ready("alice-w2")["status"] == "ready"
    assert "unfinished:" not in grid.scale_file.read_text()
    assert grid.deploy().changed == 0
    back = sweep(grid, tmp_path / "in", *workers(1))
    assert len(back) > 8, back
    assert grid.ready("alice")["workers"]["names"] == ["alice-w1"]
    assert not grid.node_file("alice-w2", "").exists()
    assert not grid.scale_file.exists()
    assert grid.deploy().changed == 0
    assert {name: grid.pid_of(name) for name in before} == before


def test_a_removal_that_was_cut_off_is_shown_and_undone_by_a_larger_number(grid: LocalGrid, tmp_path: Path) -> None:
    must(grid, *workers(2))
    cut = grid.play(*workers(1), environment=killing(tmp_path / "cut", "start of: openmined.pygrid.scale : Let in who"))
    assert cut.returncode < 0
    assert not grid.node_file("alice-w2", "").exists()
    assert "alice-w2: a run of scale.yml was cut off" in " ".join(must(grid, "status").output.split())
    must(grid, *workers(2))
    assert grid.ready("alice-w2")["status"] == "ready"
    must(grid, *workers(1))
    assert not grid.scale_file.exists()


def test_a_busy_worker_ends_its_job_before_it_goes_and_jobs_wait_for_the_next(grid: LocalGrid) -> None:
    job = busy(grid, 20)
    run = must(grid, *workers(0))
    assert "alice keeps no Worker: its jobs wait" in run.output
    assert "did not end in time" not in run.output
    assert grid.client("result", "alice", job, 1) == {"status": "completed", "value": 45.0}
    waits = grid.client("submit", "alice", 0)["job"]
    assert grid.client("result", "alice", waits, 3)["status"] == "created"
    must(grid, *workers(1))
    assert grid.client("result", "alice", waits, 60) == {"status": "completed", "value": 45.0}
    assert not grid.scale_file.exists(), "it is back as the inventory has it"


def test_a_job_that_takes_too_long_is_said_and_run_again(grid: LocalGrid) -> None:
    grid.variables["pygrid_worker_drain_seconds"] = 3
    grid.deploy()
    job = busy(grid, 30)
    run = must(grid, *workers(0))
    assert "alice-w1 is gone from this machine; its job did not end in time: another Worker runs it again" in run.output
    must(grid, *workers(1))
    assert grid.client("result", "alice", job, 120) == {"status": "completed", "value": 45.0}
    del grid.variables["pygrid_worker_drain_seconds"]
    grid.deploy()


def test_a_domain_leaves_and_joins_again(grid: LocalGrid, tmp_path: Path) -> None:
    before = {name: grid.pid_of(name) for name in (*OTHERS, "alice-w1")}
    sweep(grid, tmp_path / "leave", "scale", "-e", "pygrid_domains_joined=alice")
    assert grid.client("peers", "net") == {"alice": "ACTIVE"}
    assert grid.deploy().changed == 0
    assert grid.client("peers", "net") == {"alice": "ACTIVE"}
    sweep(grid, tmp_path / "join", "scale", "-e", "pygrid_domains_joined=alice,bob")
    assert grid.client("peers", "net") == {"alice": "ACTIVE", "bob": "ACTIVE"}
    assert grid.deploy().changed == 0
    assert not grid.scale_file.exists()
    assert {name: grid.pid_of(name) for name in before} == before


def test_resize_with_a_running_job_is_kept_and_one_that_fails_is_not(grid: LocalGrid) -> None:
    two = ("resize", "-e", '{"pygrid_resize": {"alice-w1": {"processes": 2}}}')
    others = {name: grid.pid_of(name) for name in OTHERS}
    failed = grid.play(*two, "-e", "pygrid_resize_probe_seconds=0")
    assert failed.returncode != 0
    assert "did not work with its new limits" in " ".join(failed.output.split())
    assert not grid.scale_file.exists()
    assert len(grid.get("alice-w1", "/status")["slots"]) == 1
    assert grid.deploy().changed == 0
    job = busy(grid, 15)
    must(grid, *two)
    assert grid.client("result", "alice", job, 1) == {"status": "completed", "value": 45.0}
    assert len(grid.get("alice-w1", "/status")["slots"]) == 2
    assert grid.deploy().changed == 0
    assert must(grid, *two).changed == 0
    grid.scale_file.unlink()
    must(grid, "resize")
    assert len(grid.get("alice-w1", "/status")["slots"]) == 1
    assert {name: grid.pid_of(name) for name in OTHERS} == others
    assert grid.deploy().changed == 0
