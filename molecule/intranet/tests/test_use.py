# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grid in use, from a host that has the CA's certificate and the owners' accounts, and nothing else of the grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.inventory import list_inventory, write_source

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

PYTHON = "/opt/client/releases/0.9.5-*/env/bin/python"


@pytest.fixture(scope="module")
def researcher(grid: Intranet) -> str:
    """A folder on the fifth host with the demo, the CA and what the owners bring: their accounts."""
    return grid.bring_demo("client")


def test_federated_training_through_tls(grid: Intranet) -> None:
    assert grid.train("client", PYTHON, rounds=2)["rounds"]


def test_nobody_answers_without_the_ca(grid: Intranet, researcher: str) -> None:
    program = f"import syft as sy; sy.login_as_guest(url='{grid.url('net')}')"
    answer = grid.run("client", f'cd {researcher} && {PYTHON} -c "{program}"')
    assert not answer.succeeded
    assert "CERTIFICATE_VERIFY_FAILED" in answer.text


def test_jobs_read_and_write_large_objects_on_another_host(grid: Intranet, tmp_path: Path) -> None:
    """3.2 MB lie in the Domain's blob folder; the Worker has its own disk."""
    identity = grid.identity("alice", tmp_path)
    expected = grid.client("seed", grid.url("alice"), identity)["sum"]
    job = grid.client("submit", grid.url("alice"), identity, "1")["job"]
    done = grid.client("result", grid.url("alice"), identity, job, "60")
    assert done == {"status": "completed", "value": expected}
    copy = grid.client("big_job", grid.url("alice"), identity, "60")
    assert copy == {"status": "completed", "same": True}


def test_the_inventory_asks_the_grid_who_belongs_to_it(grid: Intranet, tmp_path: Path) -> None:
    """Through TLS, as a controller does that is one of the intranet's machines."""
    token = grid.pki.with_name(f"observer-{grid.lab.name}")
    options = {"network": grid.url("net"), "token_file": str(token), "partial": "fail"}
    source = write_source(tmp_path / "zz.yml", "grid", ca_file=str(grid.authority), **options)
    found = list_inventory(source, environment={}, within=grid.lab.inside())
    assert found.groups == {"pygrid_unmanaged": ["alice", "alice-w1", "bob", "bob-w1", "net"]}, found.errors
    seen = {node["name"]: node for node in found.hosts["net"]["pygrid_seen"]["nodes"]}
    assert {seen[name]["status"] for name in ("alice", "bob")} == {"ACTIVE"}
    without = list_inventory(
        write_source(tmp_path / "zz.yml", "grid", **options), environment={}, within=grid.lab.inside()
    )
    assert not without.hosts
    assert "certificate" in without.errors.lower()


def test_status_shows_the_grid(grid: Intranet) -> None:
    assert grid.client("peers", grid.url("net")) == {"alice": "ACTIVE", "bob": "ACTIVE"}
    alice = grid.status("alice", "alice")
    assert sorted(worker["name"] for worker in alice["workers"]) == ["alice-w1", "alice-w1-2"]
