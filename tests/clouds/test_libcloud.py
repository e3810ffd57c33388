# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openmined.pygrid.libcloud, with its driver of Rackspace against mimic."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clouds import rackspace
from tests.support.inventory import Listing, list_inventory, refusal, write_source
from tests.support.unruly import RESET, TRUNCATED, Fault, UnrulyProxy

USER = "libcloud"
BROKEN = Fault(status=500, body='{"computeFault": {"code": 500, "message": "broken"}}', content_type="application/json")
REFUSED = Fault(status=401, body='{"error": {"code": 401, "message": "no"}}', content_type="application/json")


@pytest.fixture(scope="module")
def account(mimic: int) -> int:
    rackspace.fill(mimic, USER)
    return mimic


@pytest.fixture
def proxy(account: int) -> Iterator[UnrulyProxy]:
    with UnrulyProxy(("127.0.0.1", account)).running() as running:
        yield running


def listing(proxy: UnrulyProxy, folder: Path, **options: Any) -> Listing:
    arguments = {"ex_force_auth_url": f"{proxy.url}/identity", "secure": False}
    wanted = {"provider": "rackspace", "arguments": arguments, "regions": ["dfw", "ord"], **options}
    source = write_source(folder / "grid.yml", "libcloud", **wanted)
    return list_inventory(source, environment={"PYGRID_LIBCLOUD_KEY": USER, "PYGRID_LIBCLOUD_SECRET": "key"})


def test_the_grid_appears(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(proxy, tmp_path)
    assert found.groups == rackspace.GROUPS, found.errors
    alice = found.hosts["alice"]
    assert alice["ansible_host"].startswith("10.")
    assert alice["pygrid_machine"]["cloud"] == "rackspace"
    assert alice["pygrid_machine"]["region"] == "dfw"
    assert found.hosts["alice-w1"]["pygrid_worker_domain"] == "alice"
    assert set(listing(proxy, tmp_path, regions=["ord"]).hosts) == {"bob", "bob-w1", "spare-1"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(BROKEN, marks=pytest.mark.thorough),
        TRUNCATED,
        pytest.param(RESET, marks=pytest.mark.thorough),
    ],
    ids=["500", "truncated", "reset"],
)
def test_a_failure_of_one_region(proxy: UnrulyProxy, tmp_path: Path, fault: Fault) -> None:
    lists = 0

    def once(request: Any) -> Fault | None:
        nonlocal lists
        lists += "/servers/detail" in request.path
        return fault if "/servers/detail" in request.path and lists == 2 else None

    proxy.choose = once
    assert set(listing(proxy, tmp_path).hosts) == rackspace.NAMES
    assert lists == 3
    proxy.choose = lambda request: fault if "/ORD/" in request.path and "/servers/detail" in request.path else None
    said = refusal(listing(proxy, tmp_path, limit_seconds=8))
    assert "ord: " in said
    assert re.search("tried [0-9]+ times|the last try|no answer within", said), said


def test_what_is_missing_is_said(proxy: UnrulyProxy, tmp_path: Path) -> None:
    assert "nowhere" in refusal(listing(proxy, tmp_path, provider="nowhere"))
    assert "cannot be used like this" in refusal(listing(proxy, tmp_path, provider="dummy"))
    proxy.choose = lambda request: REFUSED if "/tokens" in request.path else None
    assert "PYGRID_LIBCLOUD_KEY" in refusal(listing(proxy, tmp_path))
