# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a grid in a cloud, from an empty account to an empty account. In this order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.cloud_grid import CloudGrid

pytestmark = pytest.mark.timeout(0)

NODES = {"net", "alice", "bob", "alice-w1", "bob-w1"}


def workers(number: int) -> tuple[str, ...]:
    return ("-e", json.dumps({"pygrid_domain_workers": {"alice": number}}))


def twice(grid: CloudGrid, playbook: str, *arguments: str) -> None:
    """Run a playbook, and insist that it changes nothing when it is run again."""
    run = grid.must_play(playbook, *arguments, timeout_seconds=1800)
    print(f"{playbook} {' '.join(arguments)}: {run.seconds:.0f} s")
    again = grid.must_play(playbook, *arguments)
    assert again.changed == 0, again.output[-6000:]


def work(grid: CloudGrid, owner: dict[str, Path], domain: str) -> None:
    """A job over the data of a Domain comes to a good end."""
    job = grid.client("submit", grid.url(domain), owner[domain], "0")["job"]
    assert grid.client("result", grid.url(domain), owner[domain], job, "60")["status"] == "completed"


def serving(grid: CloudGrid, domain: str) -> set[str]:
    """The Workers that a Domain has."""
    return {one["name"] for one in grid.status(domain, domain)["workers"] if one["state"] != "detached"}


def test_check_mode_makes_nothing(grid: CloudGrid) -> None:
    run = grid.must_play("provision", "--check")
    assert "5 machines to make" in run.output
    assert "alice-w1  worker" in run.output
    assert grid.machines() == {}
    assert grid.left() == []


def test_machines_appear(grid: CloudGrid) -> None:
    twice(grid, "provision")
    machines = grid.machines()
    assert set(machines) == NODES
    assert [name for name, machine in machines.items() if machine.public] == ["net"]
    check = grid.must_play("provision", "--check")
    assert check.changed == 0, check.output[-6000:]


def test_the_cloud_lets_in_only_who_has_to(grid: CloudGrid) -> None:
    found = grid.openings()
    ssh = {(kind, 22, source) for kind in ("network", "domain", "worker") for source in ("network", "198.51.100.0/24")}
    assert found - ssh == {
        ("network", 443, "0.0.0.0/0"),
        ("network", 443, "domain"),
        ("domain", 443, "0.0.0.0/0"),
        ("domain", 443, "network"),
        ("domain", 443, "worker"),
        ("domain", 5432, "worker"),
        ("domain", 5500, "worker"),
    }
    assert ssh <= found


def test_a_grid_runs_on_them(grid: CloudGrid) -> None:
    twice(grid, "deploy")


def test_people_work_with_it(grid: CloudGrid, owner: dict[str, Path]) -> None:
    for domain in ("alice", "bob"):
        grid.client("seed", grid.url(domain), owner[domain])
        work(grid, owner, domain)
    assert grid.client("peers", grid.url("net")) == {"alice": "ACTIVE", "bob": "ACTIVE"}


def test_a_model_is_trained_over_the_data_of_both(grid: CloudGrid) -> None:
    assert grid.train("net", "/opt/pygrid/releases/*/env/bin/python", rounds=2)["rounds"]
    grid.must("net", "rm -rf /root/work")


def test_a_domain_whose_machine_is_lost_comes_back_on_its_volume(grid: CloudGrid, owner: dict[str, Path]) -> None:
    before = grid.client("fingerprint", grid.url("alice"), owner["alice"])
    former = grid.terminate("alice")
    twice(grid, "provision")
    assert grid.place("alice") != former
    twice(grid, "deploy")
    assert grid.client("fingerprint", grid.url("alice"), owner["alice"]) == before
    work(grid, owner, "alice")


def test_an_image_has_the_release_on_it(grid: CloudGrid) -> None:
    twice(grid, "image")
    assert len(grid.images()) == 1
    assert set(grid.machines()) == NODES, "nothing is left of the machine that it was made of"


def test_more_workers_are_more_machines(grid: CloudGrid, owner: dict[str, Path]) -> None:
    twice(grid, "scale", *workers(4))
    assert [grid.machines()[f"alice-w{number}"].image for number in (2, 3, 4)] == grid.images() * 3
    assert set(grid.machines()) == NODES | {"alice-w2", "alice-w3", "alice-w4"}
    assert serving(grid, "alice") == {"alice-w1", "alice-w2", "alice-w3", "alice-w4"}
    work(grid, owner, "alice")


def test_a_machine_that_was_taken_away_is_replaced(grid: CloudGrid, owner: dict[str, Path]) -> None:
    grid.terminate("alice-w2")
    twice(grid, "scale", *workers(4))
    assert set(grid.machines()) == NODES | {"alice-w2", "alice-w3", "alice-w4"}
    grid.eventually(lambda: len(serving(grid, "alice")) == 4)
    work(grid, owner, "alice")


def test_a_machine_gets_another_size(grid: CloudGrid, owner: dict[str, Path]) -> None:
    before = grid.client("fingerprint", grid.url("bob"), owner["bob"])
    large = grid.SIZES[-1]
    larger = [{**machine, "size": large} if machine.get("name") == "bob" else machine for machine in grid.wanted]
    grid.write_inventory(larger)
    twice(grid, "resize")
    assert grid.machines()["bob"].size == large
    assert grid.client("fingerprint", grid.url("bob"), owner["bob"]) == before
    work(grid, owner, "bob")


def test_fewer_workers_are_fewer_machines(grid: CloudGrid, owner: dict[str, Path]) -> None:
    twice(grid, "scale", *workers(1))
    assert len(grid.machines()) == len(NODES)
    assert len(serving(grid, "alice")) == 1
    work(grid, owner, "alice")


def test_nothing_is_left_but_data(grid: CloudGrid) -> None:
    check = grid.must_play("deprovision", "--check")
    assert set(grid.machines())
    assert "is kept: it holds data" in check.output
    twice(grid, "deprovision")
    assert grid.machines() == {}
    assert grid.data_volumes() == ["alice", "bob", "net"]
    assert grid.images() == []
    assert grid.left() == []
    grid.must_play("deprovision", "-e", "pygrid_deprovision_data=true")
    assert grid.data_volumes() == []
    assert grid.beyond_rights() == []
