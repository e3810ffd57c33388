# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From 0.9.2 to 0.9.5 under load; a broken release that goes back by itself; rollback.yml. In this order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.inside import People

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.intranet import Intranet

pytestmark = pytest.mark.timeout(0)

OLD, NEW = "0.9.2", "0.9.5"
NODES = {"net": "net", "alice": "alice", "bob": "bob", "alice-w1": "workers", "bob-w1": "workers"}
DOMAINS = ("alice", "bob")
HOSTS = ("net", "alice", "bob", "workers")
# Six for each Domain.
CLIENTS = 6
# A broken release: it imports and starts, but no job of it comes to a good end.
PLACE = "/opt/pygrid/releases/{release}-*/env/lib/python3*/site-packages/syft/service/code"
BREAK = f"""
cd {PLACE} && cp -p user_code.py user_code.whole && rm -f __pycache__/user_code.*
printf 'def execute_byte_code(*words, **options):\\n    raise RuntimeError("broken on purpose")\\n' >> user_code.py
"""
MEND = f"cd {PLACE} && mv user_code.whole user_code.py && rm -f __pycache__/user_code.*"


@pytest.fixture(scope="module")
def people(grid: Intranet) -> Iterator[People]:
    """Who uses the grid, with the syft of the version that it began with."""
    people = People(grid, "workers", OLD)
    yield people
    people.leave()


def versions(grid: Intranet) -> dict[str, str]:
    return {node: grid.status(host, node)["syft_version"] for node, host in NODES.items()}


def serving(grid: Intranet, version: str) -> None:
    """Insist that every node runs that version, lets people in, and is joined."""
    for node, host in NODES.items():
        grid.wait_ready(host, node, 30)
    assert set(versions(grid).values()) == {version}, versions(grid)
    assert not any(grid.status(node, node)["trial"] for node in ("net", *DOMAINS))
    peers = {peer["name"]: peer["status"] for peer in grid.status("net", "net")["peers"]}
    assert peers == dict.fromkeys(DOMAINS, "ACTIVE")


def known(people: People, among: dict[str, Any] | None = None) -> dict[str, Any]:
    """What both Domains know; ``among``: of the jobs only those that were there at that time."""
    found = {}
    for domain in DOMAINS:
        seen = people("fingerprint", domain)
        if among is not None:
            seen["jobs"] = {job: status for job, status in seen["jobs"].items() if job in among[domain]["jobs"]}
        found[domain] = seen
    return found


def test_an_upgrade_that_nobody_notices(grid: Intranet, people: People) -> None:
    serving(grid, OLD)
    for domain, seen in known(people).items():
        if not seen["datasets"]:
            people("seed", domain)
    ended = {domain: people("submit", domain, "0")["job"] for domain in DOMAINS}
    for domain, job in ended.items():
        assert people("result", domain, job, "60")["status"] == "completed"
    before = known(people)
    # Ahead of time, as one does it: all hosts, and the clients, are on two processors here.
    staged = grid.must_play("upgrade", "-e", f"pygrid_version={NEW}", "-e", "pygrid_upgrade_stage_only=true")
    assert "no node runs with it yet" in staged.output
    serving(grid, OLD)
    # alice-w1 has two processes: both are at work, the others wait behind them.
    running = [people("submit", "alice", "25")["job"] for _number in range(2)]
    queued = [people("submit", "alice", "1")["job"] for _number in range(3)]
    load = {domain: people.call(domain, CLIENTS) for domain in DOMAINS}
    began = time.monotonic()
    run = grid.must_play("upgrade", "-e", f"pygrid_version={NEW}")
    seconds = time.monotonic() - began
    reports = {domain: calls.end() for domain, calls in load.items()}
    serving(grid, NEW)
    for domain, report in reports.items():
        print(f"{domain}: {report}")
        assert report["failed"] == [], f"{domain}: {report['failed'][:5]}"
        assert report["calls"] > 50
    print(f"upgrade of 5 nodes on 4 hosts under load of {2 * CLIENTS} clients: {seconds:.0f} s")
    print({domain: (report["calls"], report["longest_seconds"]) for domain, report in reports.items()})
    assert f"Upgraded to syft {NEW}" in run.output
    people.use(NEW)
    after = known(people, before)
    assert after == before
    for job in (*running, *queued):
        assert people("result", "alice", job, "60") == {"status": "completed", "value": 45.0}
    for domain, report in reports.items():
        assert len(set(report["jobs"])) == len(report["jobs"]) > 0
        people.insist_on_jobs(domain, report["jobs"])
    assert grid.must_play("upgrade", "-e", f"pygrid_version={NEW}").changed == 0


def test_a_way_back(grid: Intranet, people: People) -> None:
    before = known(people)
    job = people("submit", "alice", "0")["job"]
    assert people("result", "alice", job, "60")["status"] == "completed"
    dry = grid.must_play("rollback", "--check")
    assert "alice: 0.9.5 -> 0.9.2; LOSES" in dry.output
    assert "1 job" in dry.output
    refused = grid.play("rollback")
    assert refused.returncode != 0
    assert "-e pygrid_confirm=true" in refused.output
    serving(grid, NEW)
    grid.must_play("rollback", "-e", "pygrid_confirm=true")
    serving(grid, OLD)
    people.use(OLD)
    for domain, seen in known(people).items():
        assert seen["jobs"].items() <= before[domain]["jobs"].items()
        assert {**seen, "jobs": None} == {**before[domain], "jobs": None}
    assert grid.must_play("rollback").changed == 0
    assert grid.must_play("deploy").changed == 0


def test_a_broken_release_goes_back_by_itself(grid: Intranet, people: People) -> None:
    """The release is on the hosts from the upgrade before, and is broken there."""
    before = known(people)
    for host in HOSTS:
        grid.must(host, BREAK.format(release=NEW))
    load = {domain: people.call(domain, 2) for domain in DOMAINS}
    run = grid.play("upgrade", "-e", f"pygrid_version={NEW}")
    reports = {domain: calls.end() for domain, calls in load.items()}
    assert run.returncode != 0
    assert "its probe job is errored" in run.output
    assert "Back at its former release: alice, alice-w1." in run.output
    assert "Not touched: bob, bob-w1, net." in run.output
    serving(grid, OLD)
    assert known(people, before) == before
    for domain, report in reports.items():
        assert report["failed"] == [], f"{domain}: {report['failed'][:5]}"
        people.insist_on_jobs(domain, report["jobs"])
    for host in HOSTS:
        grid.must(host, MEND.format(release=NEW))
    grid.must_play("upgrade", "-e", f"pygrid_version={NEW}")
    serving(grid, NEW)
