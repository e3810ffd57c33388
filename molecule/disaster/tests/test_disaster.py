# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts are destroyed one after another; each comes back from its backup on an empty host, as the same node."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

pytestmark = pytest.mark.timeout(0)

# From the moment at which the host is gone until a job over the Domain's data has ended.
MOST_SECONDS = 300
TAKE_LEASE = """
import json, time, pathlib
lease = json.loads(input())
lease['since_boot_seconds'] = time.clock_gettime(time.CLOCK_BOOTTIME)
pathlib.Path('/opt/pygrid/locks/lease.json').write_text(json.dumps(lease))
"""
HOSTS = {"net": "net", "alice": "alice", "alice-w1": "work"}


@pytest.fixture(scope="module")
def owner(grid: Intranet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for node, host in HOSTS.items():
        grid.wait_ready(host, node)
    file = grid.identity("alice", tmp_path_factory.mktemp("owner"))
    grid.client("seed", grid.url("alice"), file)
    return file


def destroy(grid: Intranet, host: str) -> None:
    """The machine is gone with its disk; a bare one takes its place."""
    grid.lab.machine(host).destroy()
    grid.lab.up([{"name": host}])


def last(grid: Intranet, host: str, node: str) -> dict[str, Any]:
    return json.loads(grid.must(host, f"cat /etc/pygrid/nodes/{node}/backup/last.json"))


def test_timer_makes_backups_and_its_service_is_closed(grid: Intranet, owner: Path) -> None:
    assert grid.must("alice", "systemctl is-active pygrid-backup@alice.timer") == "active"
    grid.must("alice", "systemctl start --wait pygrid-backup@alice.service", seconds=300)
    assert last(grid, "alice", "alice")["good"]["kept"] == 1
    assert grid.exposure("alice", "pygrid-backup@alice.service") < 5
    for path in ("password", "id_ed25519", "last.json", "plan.json"):
        assert grid.must("alice", f"stat -c '%a %U' /etc/pygrid/nodes/alice/backup/{path}") == "600 root"
    assert not grid.run("alice", "cat /etc/pygrid/nodes/alice/backup/password", account="pygrid-alice").succeeded
    left = grid.must("alice", "ls /var/lib/pygrid/alice/snapshots")
    assert left == "", "a snapshot that was made for the backup"


def test_a_change_of_the_host_keeps_a_scheduled_backup_waiting(grid: Intranet, owner: Path) -> None:
    lease = {"holder": "somebody", "who": "somebody", "verb": "upgrade", "seconds": 20, "since": 0}
    grid.must("alice", f'python3 -c "{TAKE_LEASE}"', text=json.dumps(lease))
    before = last(grid, "alice", "alice")["good"]["at"]
    began = time.monotonic()
    grid.must("alice", "systemctl start --wait pygrid-backup@alice.service", seconds=300)
    assert time.monotonic() - began > 15
    assert last(grid, "alice", "alice")["good"]["at"] > before + 15


def test_a_lost_domain_is_back_within_five_minutes(grid: Intranet, owner: Path, capsys: pytest.CaptureFixture) -> None:
    done = grid.client("submit", grid.url("alice"), owner, "0")["job"]
    assert grid.client("result", grid.url("alice"), owner, done, "60")["status"] == "completed"
    running = grid.client("submit", grid.url("alice"), owner, "20")["job"]
    grid.eventually(lambda: grid.status("alice", "alice")["jobs"].get("processing") == 1)
    grid.must_play("backup", "--limit", "alice,alice-w1")
    known = grid.client("fingerprint", grid.url("alice"), owner)
    began = time.monotonic()
    destroy(grid, "alice")
    alone = grid.play("restore", "--limit", "alice")
    assert "run with --limit alice,alice-w1" in " ".join(alone.output.split())
    grid.must_play("restore", "--limit", "alice,alice-w1")
    restored = time.monotonic()
    job = grid.client("submit", grid.url("alice"), owner, "0")["job"]
    assert grid.client("result", grid.url("alice"), owner, job, "120")["status"] == "completed"
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\nfrom the loss of the host to a finished job {seconds:.0f} s, restored after {restored - began:.0f} s")
    now = grid.client("fingerprint", grid.url("alice"), owner)
    for key in ("id", "users", "datasets"):
        assert now[key] == known[key]
    assert set(known["jobs"]) <= set(now["jobs"])
    # What ran when the backup was made is given to a Worker again.
    assert grid.client("result", grid.url("alice"), owner, running, "120")["status"] == "completed"
    assert grid.client("peers", grid.url("net")) == {"alice": "ACTIVE"}
    assert seconds < MOST_SECONDS


def test_deploy_finds_nothing_to_change_after_it(grid: Intranet) -> None:
    again = grid.must_play("deploy")
    assert again.changed == 0, again.output


@pytest.mark.parametrize(("node", "host"), [("alice-w1", "work"), ("net", "net")])
def test_a_lost_worker_and_a_lost_network_are_back(grid: Intranet, owner: Path, node: str, host: str) -> None:
    identity = grid.must(host, f"cat /etc/pygrid/nodes/{node}/identity.json")
    grid.must_play("backup", "--limit", node)
    if host == "net":  # the backups are somewhere else, of course
        kept = grid.must("net", "tar -C /srv/vault -c backups | base64", seconds=300)
    destroy(grid, host)
    if host == "net":
        grid.must_play("../molecule/disaster/prepare", "--limit", "net")
        grid.must("net", "base64 -d | tar -C /srv/vault -x", text=kept, seconds=300)
    grid.must_play("restore", "--limit", node)
    assert grid.must(host, f"cat /etc/pygrid/nodes/{node}/identity.json") == identity
    grid.wait_ready(host, node)
    job = grid.client("submit", grid.url("alice"), owner, "0")["job"]
    assert grid.client("result", grid.url("alice"), owner, job, "120")["status"] == "completed"
    grid.eventually(lambda: grid.client("peers", grid.url("net")) == {"alice": "ACTIVE"}, 120)
