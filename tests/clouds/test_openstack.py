# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openmined.pygrid.openstack against mimic; molecule/openstack has the genuine OpenStack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.clouds import rackspace
from tests.support.inventory import Listing, list_inventory, refusal, write_source
from tests.support.unruly import RESET, SLOW, TRUNCATED, Fault, Request, UnrulyProxy

USER = "openstack"
JSON = "application/json"
THROTTLED = Fault(status=429, body='{"overLimit": {"code": 429, "message": "slowly"}}', content_type=JSON)
BROKEN = Fault(status=500, body='{"computeFault": {"code": 500, "message": "broken"}}', content_type=JSON)
EXPIRED = Fault(status=401, body='{"error": {"code": 401, "message": "expired"}}', content_type=JSON)
FORBIDDEN = Fault(status=403, body='{"forbidden": {"code": 403, "message": "not for you"}}', content_type=JSON)


@pytest.fixture(scope="module")
def account(mimic: int) -> int:
    rackspace.fill(mimic, USER)
    return mimic


@pytest.fixture
def proxy(account: int) -> Iterator[UnrulyProxy]:
    """Pages have two servers: a cloud's operator may say so, whatever we ask for."""
    with UnrulyProxy(("127.0.0.1", account)).running() as running:
        running.rewrite = lambda request: replace(request, path=request.path.replace("limit=1000", "limit=2"))
        yield running


def listing(proxy: UnrulyProxy, folder: Path, user: str = USER, cloud: str = "hospital", **options: Any) -> Listing:
    clouds = folder / "clouds.yaml"
    rackspace.write_clouds(clouds, proxy.url, user, rackspace.HERE, rackspace.THERE)
    source = write_source(folder / "grid.yml", "openstack", **{"clouds": [cloud], **options})
    return list_inventory(source, environment={"OS_CLIENT_CONFIG_FILE": str(clouds)})


def of_lists(fault: Fault, *numbers: int) -> Callable[[Request], Fault | None]:
    """Let the pages of these numbers (counted from 1, all regions together; all without any) have a fault."""
    count = 0

    def choose(request: Request) -> Fault | None:
        nonlocal count
        if "/servers/detail" not in request.path:
            return None
        count += 1
        return fault if not numbers or count in numbers else None

    return choose


def test_the_grid_appears(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(proxy, tmp_path)
    assert found.groups == rackspace.GROUPS, found.errors
    alice = found.hosts["alice"]
    machine = alice["pygrid_machine"]
    assert alice["ansible_host"] == machine["addresses"]["private"]
    assert machine["addresses"]["private"].startswith("10.")
    assert machine["region"] == rackspace.HERE
    assert machine["state"] == "active"
    assert found.hosts["alice-w1"]["pygrid_worker_domain"] == "alice"
    assert sum("/servers/detail" in request.path for request in proxy.requests) > len(rackspace.NODES)
    outside = listing(proxy, tmp_path, addresses=["public"]).hosts["alice"]
    assert outside["ansible_host"] == machine["addresses"]["public"]
    assert not outside["ansible_host"].startswith("10.")


def test_one_region(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(proxy, tmp_path, regions=[rackspace.THERE])
    assert set(found.hosts) == {name for _role, name, _domain in rackspace.NODES[rackspace.THERE]}, found.errors


def test_networks(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(proxy, tmp_path, networks=["public"])
    assert not found.hosts["net"]["ansible_host"].startswith("10.")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(THROTTLED, marks=pytest.mark.thorough),
        pytest.param(BROKEN, marks=pytest.mark.thorough),
        TRUNCATED,
        pytest.param(RESET, marks=pytest.mark.thorough),
    ],
    ids=["429", "500", "truncated", "reset"],
)
def test_a_failure_in_the_middle_of_pages(proxy: UnrulyProxy, tmp_path: Path, fault: Fault) -> None:
    proxy.choose = of_lists(fault, 3)
    found = listing(proxy, tmp_path)
    assert set(found.hosts) == rackspace.NAMES, found.errors
    proxy.choose = of_lists(fault)
    found = listing(proxy, tmp_path, limit_seconds=8)
    assert re.search("tried [0-9]+ times|the last try", refusal(found)), found.errors


@pytest.mark.thorough
def test_answers_that_come_too_slowly(proxy: UnrulyProxy, tmp_path: Path) -> None:
    proxy.choose = of_lists(SLOW, 3)
    assert "no whole answer within" in refusal(listing(proxy, tmp_path, limit_seconds=8))


def test_a_token_that_expired_is_renewed(proxy: UnrulyProxy, tmp_path: Path) -> None:
    proxy.choose = of_lists(EXPIRED, 3)
    assert set(listing(proxy, tmp_path).hosts) == rackspace.NAMES
    proxy.choose = of_lists(EXPIRED)
    assert "are the credentials right, and not expired?" in refusal(listing(proxy, tmp_path))


def test_what_is_missing_is_said(proxy: UnrulyProxy, tmp_path: Path) -> None:
    proxy.choose = of_lists(FORBIDDEN)
    assert "needs the role reader" in refusal(listing(proxy, tmp_path))
    assert "university" in refusal(listing(proxy, tmp_path, cloud="university"))
    proxy.choose = lambda request: EXPIRED if "/tokens" in request.path else None
    assert "are the credentials right" in refusal(listing(proxy, tmp_path))


def test_partly(proxy: UnrulyProxy, tmp_path: Path) -> None:
    proxy.choose = lambda request: FORBIDDEN if f"/{rackspace.THERE}/" in request.path else None
    assert rackspace.THERE in refusal(listing(proxy, tmp_path))
    found = listing(proxy, tmp_path, partial="warn")
    assert set(found.hosts) == {name for _role, name, _domain in rackspace.NODES[rackspace.HERE]}
    assert rackspace.THERE in found.errors
