# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an administrator does to a grid in use: renew certificates and passwords, lock a Worker out, ask for status."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.mishaps import PLACES, pid_of

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

SYFT = "cd /root && REQUESTS_CA_BUNDLE=/root/second-ca.pem /opt/client/releases/0.9.5-*/env/bin/python -B"
#: As docs/tls.md says it.
GUEST = """
import functools, requests
requests.Session.request = functools.partialmethod(requests.Session.request, cert=("/root/ann.pem", "/root/ann.key"))
import syft as sy
print("guest of", sy.login_as_guest(url="{url}").name)
"""
LOGIN = """
import sys, psycopg2
try:
    psycopg2.connect(sys.stdin.read().strip()).close()
    print("it is let in")
except psycopg2.OperationalError as error:
    print(error)
"""
OLD_FILE = "/root/first-ca.pem"
VISITS = """
rm -f /run/visits.stop /run/visits.failed /run/visits.made
nohup sh -c 'while [ ! -e /run/visits.stop ]; do for address in {addresses}; do
  curl -sf --max-time 10 -o /run/visits.body --cacert {authority} https://$address/api/v2/metadata \\
    || echo "$(date +%T) $address ended with $?" >> /run/visits.failed
  echo >> /run/visits.made
done; done' > /run/visits.log 2>&1 &
"""


@contextmanager
def visitors(grid: Intranet, authority: str) -> Iterator[None]:
    """Somebody asks all three nodes over and over meanwhile, and must be answered each time."""
    addresses = " ".join(grid.address(node) for node in ("net", "alice", "bob"))
    grid.must("client", VISITS.format(addresses=addresses, authority=authority))
    yield
    grid.must("client", "touch /run/visits.stop; sleep 0.5")
    assert grid.run("client", "cat /run/visits.failed").text.startswith("cat: "), grid.run(
        "client", "cat /run/visits.failed"
    )
    assert int(grid.must("client", "wc -l < /run/visits.made")) > 50


@pytest.fixture(scope="module", autouse=True)
def first_authority(grid: Intranet) -> None:
    """What data scientists were given after the first deploy."""
    grid.put("client", grid.authority.read_bytes(), OLD_FILE)


def main_pids(grid: Intranet) -> dict[str, str]:
    return {node: pid_of(grid, node) for node in PLACES}


def serial(grid: Intranet, node: str) -> str:
    """Which certificate a node shows."""
    show = f"openssl s_client -connect {grid.address(node)}:443 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    return grid.must("alice", show)


def connected(grid: Intranet, domain: str) -> list[str]:
    """Workers at a Domain's queue."""
    return [worker["name"] for worker in grid.status(domain, domain)["workers"] if worker["state"] != "detached"]


def database_url(grid: Intranet, node: str) -> str:
    return grid.must(PLACES[node], f"cat /etc/pygrid/nodes/{node}/database.url")


def logs_in(grid: Intranet, node: str, url: str) -> str:
    """What PostgreSQL says to somebody on a node's host who has this URL."""
    python = f"/etc/pygrid/nodes/{node}/current/env/bin/python -B"
    return grid.run(PLACES[node], f"{python} -c {shlex.quote(LOGIN)}", text=url).text.strip()


def test_certificates_are_renewed_while_everybody_is_served(grid: Intranet) -> None:
    before, pids = {node: serial(grid, node) for node in ("net", "alice", "bob")}, main_pids(grid)
    with visitors(grid, OLD_FILE):
        grid.must_play("certificates", "-e", "pygrid_certificates_renew=true")
    assert all(serial(grid, node) != before[node] for node in before)
    assert main_pids(grid) == pids
    assert grid.must_play("certificates").changed == 0


@pytest.mark.thorough
def test_a_new_grid_ca_locks_nobody_out(grid: Intranet, tmp_path: Path) -> None:
    former, pids = grid.authority.read_text(), main_pids(grid)
    with visitors(grid, OLD_FILE):
        grid.must_play("certificates", "-e", "pygrid_certificates_new_ca=true")
    assert grid.authority.read_text() != former
    # Who was given the new file meanwhile is served while the former CA is forgotten.
    grid.put("client", grid.authority.read_bytes(), "/root/second-ca.pem")
    with visitors(grid, "/root/second-ca.pem"):
        grid.must_play("certificates")
    assert former.strip() not in grid.must("alice", "cat /etc/pygrid/grid-ca.pem")
    # Blobs and database connections of Workers on another host are verified by the new one.
    identity = grid.identity("alice", tmp_path)
    assert grid.client("big_job", grid.url("alice"), identity, "60") == {"status": "completed", "same": True}
    assert main_pids(grid) == pids


@pytest.mark.thorough
def test_database_passwords_are_renewed_and_no_job_is_lost(grid: Intranet, tmp_path: Path) -> None:
    nodes = ("alice", "bob", "alice-w1", "bob-w1")
    before = {node: database_url(grid, node) for node in nodes}
    identity = grid.identity("alice", tmp_path)
    job = grid.client("submit", grid.url("alice"), identity, "10")["job"]
    grid.must_play("renew_database_passwords")
    assert grid.client("result", grid.url("alice"), identity, job, "60")["status"] == "completed"
    for node in nodes:
        former, now = urlsplit(before[node]), urlsplit(database_url(grid, node))
        assert (former.username, former.hostname) == (now.username, now.hostname)
        assert former.password != now.password
        assert "password authentication failed" in logs_in(grid, node, before[node])
        assert logs_in(grid, node, database_url(grid, node)) == "it is let in"
    for node, host in PLACES.items():
        grid.wait_ready(host, node)


def test_a_worker_that_left_is_locked_out_and_another_may_reach_more(grid: Intranet, tmp_path: Path) -> None:
    """bob's leaves the inventory: its process still runs and has its keys. alice's gets a network to talk to."""
    inventory: dict[str, Any] = yaml.safe_load(grid.inventory.read_text())
    workers = inventory["pygrid"]["children"]["pygrid_worker"]["hosts"]
    del workers["bob-w1"]
    workers["alice-w1"]["pygrid_worker_egress"] = [f"{grid.address('client')}/32"]
    other = tmp_path / "grid.yml"
    other.write_text(yaml.safe_dump(inventory))
    roles = "runuser -u postgres -- psql -Atc \"select rolname from pg_roles where rolname like 'pygrid_%'\""

    def reaches(host: str, port: int) -> bool:
        return grid.reaches("workers", host, port, "pygrid-alice-w1")

    assert connected(grid, "bob") == ["bob-w1"]
    assert not reaches("client", 22)
    try:
        type(grid)(grid.lab.name, other, grid.pki).must_play("deploy")
        grid.must("workers", "systemctl is-active pygrid-worker@bob-w1")
        log = grid.must("bob", "journalctl -q -o cat -n 200 -u pygrid-domain@bob")
        assert "workers allowed on the queue: none" in log
        grid.eventually(lambda: connected(grid, "bob") == [])
        assert "pygrid_bob_w1" not in grid.must("alice", roles).splitlines()
        assert reaches("client", 22)
        assert not reaches("bob", 443)
    finally:
        grid.must_play("deploy")
    grid.eventually(lambda: connected(grid, "bob") == ["bob-w1"])
    assert not reaches("client", 22)


@pytest.mark.thorough
def test_only_those_with_a_certificate_reach_the_network(grid: Intranet) -> None:
    """Mutual TLS towards the Network: Domains and people have a certificate, and a renewal restarts nobody."""
    url = f"{grid.url('net')}/api/v2/metadata"
    ask = f"curl -sS --max-time 10 -o /run/visits.body -w '%{{http_code}}' --cacert /root/second-ca.pem {url}"
    assert grid.must("client", ask) == "200"
    mutual = ("-e", "pygrid_network_client_certificates=true")
    try:
        grid.must_play("deploy", *mutual)
        assert not grid.run("client", ask).text.endswith("200")
        grid.must_play("certificates", *mutual, "-e", '{"pygrid_certificates_people": ["ann"]}')
        for suffix in ("pem", "key"):
            grid.put("client", (grid.pki / "people" / f"ann.{suffix}").read_bytes(), f"/root/ann.{suffix}")
        assert grid.must("client", f"{ask} --cert /root/ann.pem --key /root/ann.key") == "200"
        assert "guest of net" in grid.must("client", f"{SYFT} -c {shlex.quote(GUEST.format(url=grid.url('net')))}")
        peers = {peer["name"]: peer["status"] for peer in grid.status("net", "net")["peers"]}
        assert peers == {"alice": "ACTIVE", "bob": "ACTIVE"}
        pids = main_pids(grid)
        file = "/etc/pygrid/nodes/alice/client.pem"
        before = grid.must("alice", f"sha256sum {file}")
        grid.must_play("certificates", *mutual, "-e", "pygrid_certificates_renew=true")
        assert grid.must("alice", f"sha256sum {file}") != before
        assert grid.must("alice", f"stat -c '%U %G %a' {file}") == "root pygrid-alice 640"
        grid.must("alice", "systemctl reload-or-restart pygrid-ingress")
        assert main_pids(grid) == pids
        assert grid.must_play("deploy", *mutual).changed == 0
    finally:
        grid.must_play("deploy")
    assert grid.must("client", ask) == "200"


def test_status_shows_every_node_and_its_certificate(grid: Intranet, tmp_path: Path) -> None:
    report = tmp_path / "status.json"
    run = grid.must_play("status", "-e", f"pygrid_status_file={report}")
    for node in PLACES:
        assert re.search(rf"^\W*{node}\b.*ready", run.output, re.MULTILINE), run.output
    assert run.changed == 0
    assert {row["node"]: row["health"] for row in json.loads(report.read_text())} == dict.fromkeys(PLACES, "ready")
