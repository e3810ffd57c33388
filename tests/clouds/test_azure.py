# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openmined.pygrid.azure, with Microsoft's SDK, against a double whose answers are made of the SDK's models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.azure_double import SECRET, Azure
from tests.clouds.conftest import Authority
from tests.support.inventory import Listing, list_inventory, refusal, write_source
from tests.support.servers import json_server
from tests.support.unruly import RESET, TRUNCATED, Fault, UnrulyProxy

HEART, ARCHIVE = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
# More than a page.
MANY = 120


@pytest.fixture(scope="module")
def azure() -> Iterator[int]:
    cloud = Azure()
    for name, location, role, node, domain in (
        ("m1", "westeurope", "network", "net", ""),
        ("m2", "westeurope", "domain", "alice", ""),
        ("m3", "northeurope", "worker", "alice-w1", "alice"),
    ):
        tags = {"pygrid_grid": "heart", "pygrid_role": role, "pygrid_name": node, "pygrid_domain": domain}
        cloud.add(HEART, name, location, {key: value for key, value in tags.items() if value}, public="198.51.100.7")
    cloud.add(HEART, "blog", "westeurope", {"app": "blog"})
    for number in range(MANY):
        cloud.add(ARCHIVE, f"s{number}", "northeurope", {"pygrid_grid": "heart", "pygrid_role": "spare"})
    with json_server(cloud.asked) as port:
        yield port


@pytest.fixture
def proxy(azure: int, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnrulyProxy]:
    given = {
        **authority.surroundings(),
        "IDENTITY_ENDPOINT": f"http://127.0.0.1:{azure}/token",
        "IDENTITY_HEADER": SECRET,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with UnrulyProxy(("127.0.0.1", azure), tls=authority.context).running() as running:
        yield running


def listing(proxy: UnrulyProxy, folder: Path, **options: Any) -> Listing:
    chosen = {"subscriptions": [HEART], "endpoint": proxy.url, **options}
    return list_inventory(write_source(folder / "grid.yml", "azure", **chosen), environment={})


def test_the_grid_appears(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(proxy, tmp_path)
    groups = {"pygrid_network": ["net"], "pygrid_domain": ["alice"], "pygrid_worker": ["alice-w1"]}
    assert found.groups == groups, found.errors
    machine = found.hosts["alice"]["pygrid_machine"]
    assert machine["addresses"] == {"private": "10.3.0.3", "public": "198.51.100.7"}
    assert (machine["region"], machine["zone"], machine["state"]) == ("westeurope", "2", "running")
    assert (machine["type"], machine["image"]) == ("Standard_D4s_v5", "Debian:debian-12:12")


def test_subscriptions_pages_and_regions(proxy: UnrulyProxy, tmp_path: Path) -> None:
    assert len(listing(proxy, tmp_path, subscriptions=[HEART, ARCHIVE]).hosts) == 3 + MANY
    assert set(listing(proxy, tmp_path, regions=["westeurope"]).hosts) == {"net", "alice"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            Fault(status=500, body='{"error": {"code": "x", "message": "x"}}', content_type="application/json"),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            Fault(status=429, body='{"error": {"code": "x", "message": "x"}}', content_type="application/json"),
            marks=pytest.mark.thorough,
        ),
        TRUNCATED,
        pytest.param(RESET, marks=pytest.mark.thorough),
    ],
    ids=["500", "429", "truncated", "reset"],
)
def test_a_failure_in_the_middle_of_pages(proxy: UnrulyProxy, tmp_path: Path, fault: Fault) -> None:
    proxy.choose = lambda request: fault if "skiptoken" in request.path and len(proxy.requests) < 4 else None
    assert len(listing(proxy, tmp_path, subscriptions=[ARCHIVE]).hosts) == MANY
    proxy.choose = lambda request: fault if "skiptoken" in request.path else None
    assert ARCHIVE in refusal(listing(proxy, tmp_path, subscriptions=[ARCHIVE], limit_seconds=8))


def test_what_is_missing_is_said(proxy: UnrulyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the role Reader" in refusal(
        listing(proxy, tmp_path, subscriptions=["33333333-0000-0000-0000-000000000000"])
    )
    assert "option subscriptions" in refusal(listing(proxy, tmp_path, subscriptions=[]))
    monkeypatch.setenv("IDENTITY_HEADER", "another")
    assert "run az login" in refusal(listing(proxy, tmp_path))
