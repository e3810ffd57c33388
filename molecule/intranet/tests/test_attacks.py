# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not be possible, tried: from a stranger's host, as another tenant, from inside a job."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

ATTACKS = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "tests" / "support" / "attacks.py"
AUTHORITY = "/root/grid-ca.pem"


@pytest.fixture(scope="module", autouse=True)
def stranger(grid: Intranet) -> None:
    """The fifth host knows the CA and nothing else."""
    grid.must("client", f"cat > {AUTHORITY}", text=grid.authority.read_text())


def fetch(grid: Intranet, url: str, options: str = f"--cacert {AUTHORITY}", host: str = "client") -> str:
    """HTTP status and body, or what curl says."""
    return grid.run(host, f"curl -sS --max-time 10 -w '\\n%{{http_code}}' {options} {url}").text


@pytest.mark.parametrize("node", ["net", "alice", "bob"])
def test_answers_through_tls_that_the_ca_vouches_for(grid: Intranet, node: str) -> None:
    assert fetch(grid, f"{grid.url(node)}/api/v2/metadata").endswith("200")
    assert "unable to get local issuer certificate" in fetch(grid, f"{grid.url(node)}/api/v2/metadata", options="")


@pytest.mark.parametrize("node", ["net", "alice", "bob"])
def test_old_tls_and_plain_http_are_refused(grid: Intranet, node: str) -> None:
    address = grid.address(node)
    old = f"--cacert {AUTHORITY} --tls-max 1.1 --ciphers DEFAULT:@SECLEVEL=0"
    assert not fetch(grid, f"{grid.url(node)}/api/v2/metadata", options=old).endswith("200")
    for port in (80, 443, 5000, 7000):
        assert not fetch(grid, f"http://{address}:{port}/api/v2/metadata").endswith("200"), port
    headers = grid.must("client", f"curl -sS --max-time 10 -D - -o /dev/null --cacert {AUTHORITY} https://{address}/")
    assert "strict-transport-security: max-age=" in headers.lower()


@pytest.mark.parametrize("node", ["net", "alice"])
def test_inner_matters_are_not_public(grid: Intranet, node: str) -> None:
    for path in ("/metrics", "/status", "/healthz/ready", "/control/association", "/docs", "/openapi.json"):
        assert fetch(grid, f"{grid.url(node)}{path}").endswith(("404", "403")), path


@pytest.mark.parametrize(("host", "port"), [("alice", 5432), ("alice", 5500), ("bob", 5500), ("workers", 5600)])
def test_stranger_reaches_no_inner_port(grid: Intranet, host: str, port: int) -> None:
    assert not grid.reaches("client", host, port)
    if (host, port) in (("alice", 5432), ("alice", 5500), ("bob", 5500)):
        assert grid.reaches("workers", host, port), "a Worker's host must reach it"


def test_other_tenants_account_reads_nothing(grid: Intranet) -> None:
    """bob's Worker on the host that it shares with alice's."""
    pid = grid.must("workers", "systemctl show -p MainPID --value pygrid-worker@alice-w1")
    for attempt in (
        "cat /etc/pygrid/nodes/alice-w1/settings.json",
        "cat /etc/pygrid/nodes/alice-w1/identity.json",
        "cat /etc/pygrid/nodes/alice-w1/database.url",
        "ls /var/lib/pygrid/alice-w1",
        "ls /run/pygrid/alice-w1",
        "curl -sf --unix-socket /run/pygrid/alice-w1/control.sock http://node/status",
        "ls /run/credentials/pygrid-worker@alice-w1.service",
        f"cat /proc/{pid}/environ",
        f"ls /proc/{pid}/fd",
        "journalctl -q -u pygrid-worker@alice-w1 | grep .",
        "curl -sf --max-time 5 http://127.0.0.1:5600/metrics",
    ):
        answer = grid.run("workers", attempt, account="pygrid-bob-w1")
        assert not answer.succeeded, f"{attempt}: {answer.text[:200]}"


def test_own_account_reads_no_secret_of_root(grid: Intranet) -> None:
    for attempt in ("cat /etc/pygrid/nodes/alice/identity.json", "cat /etc/pygrid/tls/alice.pem", "cat /etc/shadow"):
        assert not grid.run("alice", attempt, account="pygrid-alice").succeeded, attempt


def test_worker_reaches_its_domain_and_nothing_else(grid: Intranet) -> None:
    def reach(host: str, port: int) -> bool:
        return grid.reaches("workers", host, port, "pygrid-alice-w1")

    assert reach("alice", 443)
    assert reach("alice", 5500)
    assert not reach("bob", 5500)
    assert not reach("bob", 443)
    assert not reach("net", 443)
    assert not reach("client", 22)


def test_default_and_guessed_passwords_open_nothing(grid: Intranet) -> None:
    for node in ("net", "alice", "bob"):
        assert grid.attack("login", grid.url(node), "info@openmined.org", "changethis")["refused"]
        assert grid.attack("login", grid.url(node), f"{node}@pygrid.example", "changethis")["refused"]


def test_guest_cannot_rewrite_a_route(grid: Intranet) -> None:
    answers = grid.attack("hijack", grid.url("net"), "alice", "203.0.113.9")
    assert set(answers) == {"update_peer", "add_route", "delete_route", "update_route_priority"}
    assert all(answer["refused"] for answer in answers.values()), answers
    assert grid.client("peers", grid.url("net")) == {"alice": "ACTIVE", "bob": "ACTIVE"}


def test_rogue_consumer_gets_nothing(grid: Intranet) -> None:
    """From the Workers' host, where the port is open: without a key, and with a key that is not on the list."""
    public = json.loads(grid.must("alice", "cat /etc/pygrid/nodes/alice/identity.json"))["queue_public_key"]
    for how in ("plain", "stranger"):
        words = f"rogue tcp://{grid.address('alice')}:5500 {how} {shlex.quote(public)}"
        python = "/etc/pygrid/nodes/alice-w1/current/env/bin/python"
        said = json.loads(grid.must("workers", f"{python} - {words}", text=ATTACKS.read_text()).splitlines()[-1])
        assert said == {"messages": 0}, how
