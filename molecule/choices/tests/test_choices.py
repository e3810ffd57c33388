# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the house has already is used, what it set up stays, and limits hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

NODES = (("net", "network", "net"), ("alice", "domain", "alice"), ("alice-w1", "worker", "work"))
LISTEN = "systemd-run --quiet --unit=listen-{port} python3 -m http.server {port}"


@pytest.fixture(scope="module")
def owner(grid: Intranet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for node, _kind, host in NODES:
        grid.wait_ready(host, node)
    file = grid.identity("alice", tmp_path_factory.mktemp("owner"))
    grid.client("seed", grid.url("alice"), file)
    return file


def house(grid: Intranet, statement: str) -> str:
    """What the house's PostgreSQL says."""
    return grid.must("house", f'cd / && runuser -u postgres -- psql -XAtqd grid_alice -c "{statement}"')


def test_nothing_went_around_the_proxy_and_the_mirror(grid: Intranet) -> None:
    leaked = grid.lab.leaked()
    assert {host: leaked[host] for host in ("net", "alice", "work")} == {"net": 0, "alice": 0, "work": 0}
    assert int(grid.must("house", "journalctl -u mirror -o cat | grep -c 'GET /index/'")) > 100
    assert int(grid.must("house", "journalctl -u tinyproxy -o cat | grep -c 'Established connection'")) > 5


def test_rows_are_in_the_houses_database_by_tls(grid: Intranet, owner: Path) -> None:
    assert house(grid, 'select count(*) from \\"Dataset\\"') == "1"
    secured = "select bool_and(ssl), count(*) > 1 from pg_stat_ssl join pg_stat_activity using (pid)"
    assert house(grid, f"{secured} where usename = 'grid_alice'") == "t|t"
    assert not grid.run("alice", "ls -d /etc/postgresql/*/main").succeeded, "no server of our own beside it"


def test_blobs_are_in_the_houses_store(grid: Intranet, owner: Path) -> None:
    assert grid.client("big_job", grid.url("alice"), owner, "60") == {"status": "completed", "same": True}
    assert grid.must("alice", "find /var/lib/pygrid/alice/data/blobs -type f | wc -l") == "0"
    listed = grid.must("house", "curl -sf --cacert /etc/house/ca.pem 'https://house:9000/blobs?list-type=2'")
    assert listed.count("<Key>alice/") >= 2


@pytest.mark.parametrize(
    ("unit", "host", "limits"),
    [
        (
            "pygrid-domain@alice",
            "alice",
            {"CPUQuotaPerSecUSec": "1.500000s", "MemoryMax": "3145728000", "TasksMax": "700"},
        ),
        (
            "pygrid-worker@alice-w1",
            "work",
            {"CPUQuotaPerSecUSec": "infinity", "MemoryMax": "1572864000", "TasksMax": "1024"},
        ),
    ],
)
def test_limits_are_set(grid: Intranet, unit: str, host: str, limits: dict[str, str]) -> None:
    shown = grid.must(host, f"systemctl show -p {','.join(limits)} {unit}")
    assert dict(line.split("=", 1) for line in shown.splitlines()) == limits


def test_a_job_that_wants_more_memory_is_ended_and_the_worker_goes_on(grid: Intranet, owner: Path) -> None:
    if "memory" not in grid.must("work", "cat /sys/fs/cgroup/cgroup.controllers"):
        pytest.skip("the kernel of this machine gives its hosts no memory controller (cgroup v2)")
    ended = grid.client("greedy", grid.url("alice"), owner, "4000", "120", seconds=300)
    assert ended["status"] in ("errored", "interrupted"), ended
    grid.wait_ready("work", "alice-w1")
    job = grid.client("submit", grid.url("alice"), owner, "0")["job"]
    assert grid.client("result", grid.url("alice"), owner, job, "60")["status"] == "completed"


def test_a_job_whose_worker_died_is_not_run_twice(grid: Intranet, owner: Path) -> None:
    job = grid.client("submit", grid.url("alice"), owner, "30")["job"]
    grid.eventually(lambda: grid.status("alice", "alice")["jobs"].get("processing") == 1)
    grid.must("work", "systemctl kill -s KILL pygrid-worker@alice-w1")
    assert grid.client("result", grid.url("alice"), owner, job, "120")["status"] == "interrupted"


@pytest.mark.parametrize(("host", "source"), [("net", "alice"), ("alice", "work")])
def test_the_houses_firewall_opens_what_the_grid_needs_and_nothing_else(grid: Intranet, host: str, source: str) -> None:
    for port in (9998, 9999):
        grid.must(host, f"{LISTEN.format(port=port)}; sleep 1")
    assert grid.reaches(source, host, 443, seconds=3)
    assert grid.reaches(source, host, 22, seconds=3)
    assert grid.reaches(source, host, 9999, seconds=3), "a rule of the house"
    assert not grid.reaches(source, host, 9998, seconds=3)
    assert not grid.reaches("house", host, 5500, seconds=3)


def test_removal_leaves_the_houses_things(grid: Intranet) -> None:
    grid.must_play("remove", "-e", "pygrid_remove_data=true", "-e", "pygrid_confirm=true")
    rules = grid.must("net", "ufw status")
    assert "# house" in rules
    assert "pygrid" not in rules
    assert grid.must("alice", "firewall-cmd --list-ports") == "9999/tcp"
    assert "pygrid" not in grid.must("alice", "firewall-cmd --get-policies")
    for host, source in (("net", "alice"), ("alice", "net")):
        assert grid.reaches(source, host, 22, seconds=3)
        assert not grid.reaches(source, host, 443, seconds=3)
    assert house(grid, "select count(*) > 0 from pg_database where datname = 'grid_alice'") == "t"
