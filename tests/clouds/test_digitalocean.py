# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openmined.pygrid.digitalocean against a double that prism checks with DigitalOcean's own description."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.conftest import Authority, Prism
from tests.clouds.digitalocean_double import TOKEN, DigitalOcean, droplets
from tests.support.inventory import Listing, list_inventory, refusal, write_source
from tests.support.servers import json_server
from tests.support.unruly import RESET, TRUNCATED, Fault, UnrulyProxy

NODES = [("network", "net", ""), ("domain", "alice", ""), ("worker", "alice-w1", "alice"), ("spare", "s1", "")]
# More than a page.
SPARES = 250


def droplet(
    number: int, role: str, name: str, domain: str, grid: str = "heart", region: str = "fra1"
) -> dict[str, Any]:
    tags = {"pygrid_grid": grid, "pygrid_role": role, "pygrid_name": name, "pygrid_domain": domain}
    return {
        "name": f"machine-{number}",
        "region": region,
        "tags": ["production", *(f"{tag}:{value}" for tag, value in tags.items() if value)],
        "private": f"10.1.{number // 250}.{number % 250 + 1}",
        "public": f"198.51.100.{number % 250 + 1}",
    }


@pytest.fixture(scope="module")
def account(prism: Prism, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of the account's API: a grid, another one, and a machine that is none of theirs."""
    folder = tmp_path_factory.mktemp("digitalocean")
    machines = [droplet(number, *node) for number, node in enumerate(NODES)]
    machines += [droplet(number, "spare", f"many-{number}", "", "lung", "ams3") for number in range(10, 10 + SPARES)]
    machines.append({"name": "blog", "region": "fra1", "tags": ["blog"], "public": "198.51.100.99"})
    cloud = DigitalOcean(droplets(prism.description("digitalocean"), machines))
    with json_server(cloud.asked) as cloud.port, prism.before("digitalocean", cloud.port, folder) as checked:
        yield checked


@pytest.fixture
def proxy(account: int, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnrulyProxy]:
    for name, value in authority.surroundings().items():
        monkeypatch.setenv(name, value)
    with UnrulyProxy(("127.0.0.1", account), tls=authority.context).running() as running:
        yield running


def listing(proxy: UnrulyProxy, folder: Path, token: str = TOKEN, **options: Any) -> Listing:
    source = write_source(folder / "grid.yml", "digitalocean", endpoint=proxy.url, **{"grids": ["heart"], **options})
    return list_inventory(source, environment={"DIGITALOCEAN_TOKEN": token})


def test_the_grid_appears(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(proxy, tmp_path)
    assert found.groups == {
        "pygrid_network": ["net"],
        "pygrid_domain": ["alice"],
        "pygrid_worker": ["alice-w1"],
        "pygrid_spare": ["s1"],
    }, found.errors
    assert found.hosts["alice"]["ansible_host"] == "10.1.0.2"
    assert found.hosts["alice-w1"]["pygrid_worker_domain"] == "alice"
    assert found.hosts["alice"]["pygrid_machine"]["region"] == "fra1"


def test_pages_and_regions(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(proxy, tmp_path, grids=["heart", "lung"], addresses=["public"])
    assert len(found.hosts) == len(NODES) + SPARES
    assert set(listing(proxy, tmp_path, grids=["heart", "lung"], regions=["fra1"]).hosts) == {n[1] for n in NODES}
    assert "more than one grid: heart (4 machines), lung (250 machines)" in refusal(listing(proxy, tmp_path, grids=[]))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            Fault(status=500, body='{"id": "server_error", "message": "x"}', content_type="application/json"),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            Fault(status=429, body='{"id": "too_many_requests", "message": "x"}', content_type="application/json"),
            marks=pytest.mark.thorough,
        ),
        TRUNCATED,
        pytest.param(RESET, marks=pytest.mark.thorough),
    ],
    ids=["500", "429", "truncated", "reset"],
)
def test_a_failure_in_the_middle_of_pages(proxy: UnrulyProxy, tmp_path: Path, fault: Fault) -> None:
    proxy.choose = lambda request: fault if "page=2" in request.path and len(proxy.requests) < 4 else None
    assert len(listing(proxy, tmp_path, grids=["lung"]).hosts) == SPARES
    proxy.choose = lambda request: fault if "page=2" in request.path else None
    found = listing(proxy, tmp_path, grids=["lung"], limit_seconds=8)
    assert not found.hosts
    assert re.search("tried [0-9]+ times|the last try", refusal(found)), found.errors


def test_what_is_missing_is_said(proxy: UnrulyProxy, tmp_path: Path) -> None:
    assert "may it read Droplets" in refusal(listing(proxy, tmp_path, token="another"))
    assert "DIGITALOCEAN_TOKEN" in refusal(listing(proxy, tmp_path, token=""))
