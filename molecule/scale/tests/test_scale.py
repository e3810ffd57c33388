# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers on a spare machine come and go, in a grid with systemd, PostgreSQL and firewalls."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

pytestmark = pytest.mark.timeout(0)

UNITS = {
    "net": ("pygrid-network@net", "pygrid-ingress"),
    "alice": ("pygrid-domain@alice", "pygrid-ingress", "postgresql@15-main"),
    "w": ("pygrid-worker@alice-w1",),
}


@pytest.fixture(autouse=True)
def kept(grid: Intranet, checkout: Path) -> Path:
    """The file of inventory that belongs to this lab."""
    file = checkout / ".cache" / "lab" / f"scale-{grid.lab.name}" / "pygrid-scale.yml"
    file.parent.mkdir(exist_ok=True)
    grid.more_inventory = [file]
    return file


def processes(grid: Intranet) -> dict[str, str]:
    return {
        unit: grid.must(host, f"systemctl show --property MainPID --value {unit}")
        for host, units in UNITS.items()
        for unit in units
    }


def wanted(number: int) -> tuple[str, ...]:
    return ("-e", json.dumps({"pygrid_domain_workers": {"alice": number}}))


def roles(grid: Intranet) -> list[str]:
    query = "select rolname from pg_roles where rolname like 'pygrid_alice_w%' order by 1"
    return grid.must("alice", f'cd / && runuser -u postgres -- psql -Atc "{query}"').split()


def test_a_worker_comes_to_the_spare_machine_and_nobody_else_notices(grid: Intranet, kept: Path) -> None:
    before = processes(grid)
    check = grid.must_play("scale", *wanted(2), "--check")
    assert "alice-w2" in check.output
    assert check.changed == 0
    assert not kept.exists()
    run = grid.must_play("scale", *wanted(2))
    print(f"a Worker more on a machine without a release: {run.seconds:.1f} s")
    assert processes(grid) == before
    assert grid.status("spare1", "alice-w2")["status"] == "ready"
    assert [worker["name"] for worker in grid.status("alice", "alice")["workers"]] == ["alice-w1", "alice-w2"]
    assert roles(grid) == ["pygrid_alice_w1", "pygrid_alice_w2"]
    assert grid.must_play("deploy").changed == 0
    assert grid.must_play("scale", *wanted(2)).changed == 0


def test_seconds_for_one_more_and_for_one_less(grid: Intranet) -> None:
    """Aimed at are 20 and 10 s; they are printed, as they depend on what else the machine of the lab does."""
    before = processes(grid)
    more = grid.must_play("scale", *wanted(3))
    assert grid.status("spare1", "alice-w3")["status"] == "ready"
    less = grid.must_play("scale", *wanted(2))
    assert grid.run("spare1", "test -e /etc/pygrid/nodes/alice-w3").code != 0
    load = os.getloadavg()[0]
    print(f"one more on a staged machine: {more.seconds:.1f} s; one less, idle: {less.seconds:.1f} s; load {load:.0f}")
    assert processes(grid) == before
    assert roles(grid) == ["pygrid_alice_w1", "pygrid_alice_w2"]


def test_the_spare_machine_is_given_back_as_it_was(grid: Intranet, kept: Path) -> None:
    before = processes(grid)
    address = grid.address("spare1")
    assert address in grid.must("alice", "nft list ruleset")
    grid.must_play("scale", *wanted(1))
    assert processes(grid) == before
    assert not kept.exists()
    for path in ("/opt/pygrid", "/etc/pygrid", "/var/lib/pygrid"):
        assert grid.run("spare1", f"test -e {path}").code != 0, path
    assert "pygrid" not in grid.must("spare1", "nft list tables; getent passwd | cut -d: -f1; ls /etc/systemd/system")
    assert address not in grid.must("alice", "nft list ruleset; cat /etc/postgresql/*/main/pg_hba.conf")
    assert roles(grid) == ["pygrid_alice_w1"]
    assert grid.must_play("deploy").changed == 0


def test_other_limits(grid: Intranet, kept: Path) -> None:
    limits = {"alice-w1": {"processes": 2, "cpu_percent_max": 150, "memory_max_mb": 1500, "tasks_max": 600}}
    run = grid.must_play("resize", "-e", json.dumps({"pygrid_resize": limits}))
    print(f"other limits: {run.seconds:.1f} s")
    shown = grid.must("w", "systemctl show --property MemoryMax,TasksMax,CPUQuotaPerSecUSec pygrid-worker@alice-w1")
    assert set(shown.splitlines()) == {"CPUQuotaPerSecUSec=1.500000s", "MemoryMax=1572864000", "TasksMax=600"}
    assert len(grid.status("w", "alice-w1")["slots"]) == 2
    assert grid.must_play("deploy").changed == 0
    assert grid.must_play("resize").changed == 0
    kept.unlink()
    back = grid.must_play("resize")
    assert back.changed > 0
    assert len(grid.status("w", "alice-w1")["slots"]) == 1
    refused = grid.play("resize", "-e", json.dumps({"pygrid_resize": {"alice": {"memory_max_mb": 10_000_000}}}))
    assert refused.returncode != 0
    assert "its machine has" in refused.output
    assert not kept.exists()
