# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes on four kinds of system are one grid: each is confined as on Debian 12, and jobs cross from one to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

SYSTEMS = {"net": "trixie", "alice": "jammy", "bob": "noble", "carol": "bullseye"}
# node, kind, host
NODES = (
    ("net", "network", "net"),
    ("alice", "domain", "alice"),
    ("bob", "domain", "bob"),
    ("carol", "domain", "carol"),
    ("alice-w1", "worker", "carol"),
    ("bob-w1", "worker", "net"),
    ("carol-w1", "worker", "bob"),
)
DOMAINS = ("alice", "bob", "carol")


@pytest.mark.parametrize("host", SYSTEMS)
def test_host_is_that_system(grid: Intranet, host: str) -> None:
    assert grid.must(host, ". /etc/os-release && echo $VERSION_CODENAME") == SYSTEMS[host]
    assert grid.must(host, "systemctl --failed --no-legend --plain") == ""


@pytest.mark.parametrize(("node", "kind", "host"), NODES, ids=[node for node, _kind, _host in NODES])
def test_node_is_ready_and_confined(grid: Intranet, node: str, kind: str, host: str) -> None:
    grid.wait_ready(host, node, 5)
    assert grid.must(host, f"systemctl is-enabled pygrid-{kind}@{node}") == "enabled"
    assert grid.exposure(host, f"pygrid-{kind}@{node}") <= 2.0


@pytest.mark.parametrize("domain", DOMAINS)
def test_job_runs_on_another_system(grid: Intranet, tmp_path: Path, domain: str) -> None:
    identity = grid.identity(domain, tmp_path)
    expected = grid.client("seed", grid.url(domain), identity)["sum"]
    job = grid.client("submit", grid.url(domain), identity, "1")["job"]
    assert grid.client("result", grid.url(domain), identity, job, "60") == {"status": "completed", "value": expected}
    assert grid.client("big_job", grid.url(domain), identity, "60") == {"status": "completed", "same": True}


def test_all_domains_are_joined(grid: Intranet) -> None:
    assert grid.client("peers", grid.url("net")) == dict.fromkeys(DOMAINS, "ACTIVE")


@pytest.mark.parametrize("host", SYSTEMS)
def test_old_tls_and_plain_http_are_refused(grid: Intranet, host: str) -> None:
    """HAProxy and OpenSSL are of another version on each system."""
    old = grid.run("alice", f"curl -sk --max-time 10 --tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0 {grid.url(host)}/")
    assert not old.succeeded
    assert grid.run("alice", f"curl -sk --max-time 10 {grid.url(host)}/ -o /dev/null").succeeded
    plain = grid.run("alice", f"curl -s --max-time 5 http://{grid.address(host)}:5000/api/v2/metadata")
    assert not plain.succeeded


@pytest.mark.parametrize(
    ("domain", "worker", "stranger"), [("alice", "carol", "bob"), ("bob", "net", "carol"), ("carol", "bob", "net")]
)
def test_firewall_lets_only_the_worker_through(grid: Intranet, domain: str, worker: str, stranger: str) -> None:
    assert grid.reaches(worker, domain, 5500, f"pygrid-{domain}-w1", seconds=3)
    assert not grid.reaches(stranger, domain, 5500, seconds=3)
    assert not grid.reaches(worker, domain, 22, f"pygrid-{domain}-w1", seconds=3)
