# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mishaps of servers, tried one after another on a running grid; what was seen is written to docs/mishaps.md."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.mishaps import KINDS, PLACES, Watch, pid_of

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

pytestmark = pytest.mark.timeout(0)

HEADER = """\
# Mishaps on servers

Written by `make scenario S=mishaps`: a grid of four hosts (PostgreSQL, TLS, remote Workers, two processors for all of
them) is hurt, and has to be whole again by itself. After each mishap users, datasets with their bytes, identities and
finished jobs of both Domains are compared with what was there before.

| mishap | whole again after (s) | what was seen |
|---|---|---|
"""


@pytest.fixture(scope="session")
def owner(grid: Intranet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The accounts of both Domains' owners; each Domain has data."""
    folder = tmp_path_factory.mktemp("owners")
    files = {domain: grid.identity(domain, folder) for domain in ("alice", "bob")}
    for domain, file in files.items():
        grid.client("seed", grid.url(domain), file)
    return files


@pytest.fixture(scope="session")
def record(checkout: Path) -> Iterator[list[str]]:
    """Rows of the table; written after all tests, also when some of them failed."""
    rows: list[str] = []
    yield rows
    (checkout / "docs" / "mishaps.md").write_text(HEADER + "".join(f"{row}\n" for row in rows))


@pytest.fixture
def watch(grid: Intranet, owner: dict[str, Path], record: list[str]) -> Watch:
    for node, host in PLACES.items():
        grid.wait_ready(host, node)
    return Watch(grid, owner, record)


@pytest.mark.parametrize("node", PLACES)
def test_process_is_killed(grid: Intranet, watch: Watch, node: str) -> None:
    former = pid_of(grid, node)
    grid.must(PLACES[node], f"kill -9 {former}")
    watch.hurt()
    end = time.monotonic() + 30
    while pid_of(grid, node) in (former, "0"):
        assert time.monotonic() < end
        time.sleep(0.3)
    watch.whole(f"`kill -9` of {node} ({KINDS[node]})")


def test_ingress_is_killed(grid: Intranet, watch: Watch) -> None:
    grid.must("alice", "systemctl kill -s KILL pygrid-ingress")
    watch.hurt()
    end = time.monotonic() + 30
    while not grid.run(
        "alice", f"curl -sf --cacert /etc/pygrid/grid-ca.pem {grid.url('alice')}/api/v2/metadata"
    ).succeeded:
        assert time.monotonic() < end
        time.sleep(0.2)
    watch.whole("`kill -9` of alice's ingress")


def test_postgresql_is_killed(grid: Intranet, watch: Watch) -> None:
    job = watch.submit("alice", 8)
    grid.must("alice", "kill -9 $(head -1 /var/lib/postgresql/*/main/postmaster.pid)")
    watch.hurt()
    done = watch.result("alice", job)
    assert done["status"] == "completed"
    watch.whole("`kill -9` of PostgreSQL, which has both Domains' rows, during a job", "the job ended well")


def test_postgresql_restarts_under_load(grid: Intranet, watch: Watch) -> None:
    jobs = [watch.submit("alice", 4), watch.submit("bob", 4)]
    grid.must("alice", "systemctl restart postgresql")
    watch.hurt()
    ends = [watch.result(domain, job)["status"] for domain, job in zip(("alice", "bob"), jobs, strict=True)]
    assert ends == ["completed", "completed"]
    watch.whole("PostgreSQL restarted during jobs of both Domains", "both jobs ended well")


def test_workers_host_dies_for_good(grid: Intranet, watch: Watch) -> None:
    job = watch.submit("alice", 60)
    grid.lab.kill(["workers"])
    watch.hurt()
    end = time.monotonic() + 60
    while grid.status("alice", "alice")["jobs"].get("processing", 0):
        assert time.monotonic() < end, "the job is still said to run"
        time.sleep(0.5)
    noticed = time.monotonic() - watch.started
    grid.lab.boot(["workers"])
    watch.hurt()
    assert watch.result("alice", job, 200)["status"] == "completed"
    watch.whole(
        "power cut of the Workers' host during a job, for good; later on again",
        f"the job was taken back after {noticed:.0f} s and done by the next Worker",
    )


def test_network_is_cut_for_two_minutes_during_a_job(grid: Intranet, watch: Watch) -> None:
    job = watch.submit("alice", 20)
    grid.lab.plug(["workers"], False)
    time.sleep(120)
    grid.lab.plug(["workers"], True)
    watch.hurt()
    done = watch.result("alice", job)
    assert done["status"] == "completed"
    watch.whole("network between Workers and Domains cut for 2 minutes in the middle of a job", "the job ended well")


def test_host_is_rebooted(grid: Intranet, watch: Watch) -> None:
    job = watch.submit("alice", 15)
    watch.hurt()
    grid.lab.reboot(["alice"])
    assert watch.result("alice", job, 180)["status"] == "completed"
    watch.whole("reboot of alice's host (Domain, PostgreSQL, ingress) during a job", "the job ended well")


def test_all_hosts_lose_power(grid: Intranet, watch: Watch) -> None:
    hosts = ["net", "alice", "bob", "workers"]
    grid.lab.kill(hosts)
    watch.hurt()
    grid.lab.boot(hosts)
    watch.whole("power cut of all hosts at the same moment")


def test_disk_is_full(grid: Intranet, watch: Watch) -> None:
    disk = grid.lab.machine("alice")
    disk.free_space(1)
    try:
        with pytest.raises(AssertionError, match=r"cannot write blob .*No space left on device"):
            grid.client("seed", grid.url("alice"), watch.owner["alice"])
    finally:
        disk.free_space(None)
    watch.hurt()
    watch.whole(
        "disk of alice's host full while a dataset is uploaded",
        "the upload fails and says so to the owner; nothing is half stored",
    )


def test_clock_is_wrong(grid: Intranet, watch: Watch, tmp_path: Path) -> None:
    report = tmp_path / "preflight.json"
    grid.lab.machine("bob").set_clock(600)
    try:
        run = grid.play("preflight", "-e", f"pygrid_preflight_file={report}")
    finally:
        grid.lab.machine("bob").set_clock(0)
    assert run.returncode != 0
    wrong = [machine for machine in json.loads(report.read_text())["machines"] if "clock" in str(machine["problems"])]
    assert [machine["nodes"] for machine in wrong] == [["bob"]]
    watch.hurt()
    grid.must_play("preflight")
    said = wrong[0]["problems"][0]
    watch.whole("clock of bob's host 10 minutes ahead", f"preflight, before anything is changed: {said}")


def with_another_worker(grid: Intranet, folder: Path) -> Intranet:
    """The same grid, and one more Worker of alice's on the fifth host."""
    inventory: dict[str, Any] = yaml.safe_load(grid.inventory.read_text())
    workers = inventory["pygrid"]["children"]["pygrid_worker"]["hosts"]
    workers["alice-w2"] = {"ansible_host": "client", "pygrid_worker_domain": "alice"}
    larger = folder / "grid.yml"
    larger.write_text(yaml.safe_dump(inventory))
    return type(grid)(grid.lab.name, larger, grid.pki)


def test_disk_fills_up_while_a_release_is_staged(grid: Intranet, watch: Watch, tmp_path: Path) -> None:
    larger = with_another_worker(grid, tmp_path)
    disk = grid.lab.machine("client")
    disk.free_space(500)
    early = larger.play("deploy")
    assert early.returncode != 0
    assert re.search(r"alice-w2: .*(space|MB)", early.output), early.output[-3000:]
    assert early.changed == 0
    disk.free_space(None)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(larger.play, "deploy")
        while not grid.run("client", "ls -d /opt/pygrid/releases/.staging-*/env/lib").succeeded:
            assert not running.done(), running.result().output[-3000:]
            time.sleep(0.3)
        disk.free_space(20)
        failed = running.result()
    assert failed.returncode != 0
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", failed.output).split())
    [reason] = set(re.findall(r"alice-w2: cannot[^;]*No space left on device[^;]*; free some space", said))
    reason = reason.replace("`", "'")  # uv's; the table has its own
    disk.free_space(None)
    watch.hurt()
    larger.must_play("deploy")
    grid.wait_ready("client", "alice-w2")
    assert grid.must("client", "ls -A /opt/pygrid/releases | grep -c staging || true") == "0"
    watch.whole("disk full while a release is staged; deployed again with room", f"`{reason[:200]} ...`")
