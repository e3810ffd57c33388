# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openmined.pygrid.gcp, with Google's SDK, against a double that Google's description checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.gcp_double import Compute
from tests.support.inventory import Listing, list_inventory, refusal, write_source
from tests.support.servers import json_server
from tests.support.unruly import RESET, TRUNCATED, Fault, UnrulyProxy

HEART, ARCHIVE, OFF = "heart-study", "heart-archive", "heart-off"
# More than a page.
MANY = 620


@pytest.fixture(scope="module")
def compute() -> Iterator[tuple[Compute, int]]:
    cloud = Compute()
    for zone, name, role, node, domain in (
        ("europe-west4-a", "m1", "network", "net", ""),
        ("europe-west4-b", "m2", "domain", "alice", ""),
        ("us-east1-b", "m3", "worker", "alice-w1", "alice"),
    ):
        labels = {"pygrid_grid": "heart", "pygrid_role": role, "pygrid_name": node, "pygrid_domain": domain}
        cloud.add(HEART, zone, name, {key: value for key, value in labels.items() if value}, public="198.51.100.7")
    cloud.add(HEART, "europe-west4-a", "blog", {"app": "blog"})
    # Of two machines that are off, one was taken away and one is being changed.
    off = {"status": "TERMINATED", "scheduling": {"preemptible": True}}
    for zone, node, more in (("a", "taken", {}), ("b", "changed", {"pygrid_resizing": "e2-standard-4"})):
        labels = {"pygrid_grid": "off", "pygrid_role": "spare", "pygrid_name": node, **more}
        cloud.add(OFF, f"us-east1-{zone}", f"m-{node}", labels, **off)
    for number in range(MANY):
        cloud.add(ARCHIVE, "us-east1-b", f"s{number}", {"pygrid_grid": "heart", "pygrid_role": "spare"})
    with json_server(cloud.asked) as port:
        yield cloud, port


@pytest.fixture
def proxy(compute: tuple[Compute, int]) -> Iterator[UnrulyProxy]:
    compute[0].unreachable.clear()
    with UnrulyProxy(("127.0.0.1", compute[1])).running() as running:
        yield running


@pytest.fixture(scope="module")
def key(compute: tuple[Compute, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of a service account that the double knows."""
    path = tmp_path_factory.mktemp("gcp") / "key.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(compute[0].service_account(HEART)))
    return path


def listing(proxy: UnrulyProxy, key: Path, folder: Path, **options: Any) -> Listing:
    source = write_source(folder / "grid.yml", "gcp", endpoint=proxy.url, service_account_file=str(key), **options)
    return list_inventory(source, environment={})


def test_the_grid_appears(proxy: UnrulyProxy, key: Path, tmp_path: Path) -> None:
    found = listing(proxy, key, tmp_path)
    assert found.groups == {"pygrid_network": ["net"], "pygrid_domain": ["alice"], "pygrid_worker": ["alice-w1"]}, (
        found.errors
    )
    machine = found.hosts["alice-w1"]["pygrid_machine"]
    assert (machine["region"], machine["zone"], machine["type"]) == ("us-east1", "us-east1-b", "e2-standard-4")
    assert found.hosts["alice-w1"]["ansible_host"] == machine["addresses"]["private"]
    assert machine["addresses"]["public"] == "198.51.100.7"


def test_a_machine_that_was_taken_away_is_left_out(proxy: UnrulyProxy, key: Path, tmp_path: Path) -> None:
    assert set(listing(proxy, key, tmp_path, projects=[OFF]).hosts) == {"changed"}


def test_projects_pages_and_regions(proxy: UnrulyProxy, key: Path, tmp_path: Path) -> None:
    assert len(listing(proxy, key, tmp_path, projects=[HEART, ARCHIVE]).hosts) == 3 + MANY
    assert set(listing(proxy, key, tmp_path, regions=["europe-west4"]).hosts) == {"net", "alice"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            Fault(status=500, body='{"error": {"code": 500, "message": "x"}}', content_type="application/json"),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            Fault(status=429, body='{"error": {"code": 429, "message": "x"}}', content_type="application/json"),
            marks=pytest.mark.thorough,
        ),
        TRUNCATED,
        pytest.param(RESET, marks=pytest.mark.thorough),
    ],
    ids=["500", "429", "truncated", "reset"],
)
def test_a_failure_in_the_middle_of_pages(proxy: UnrulyProxy, key: Path, tmp_path: Path, fault: Fault) -> None:
    proxy.choose = lambda request: fault if "pageToken=" in request.path and len(proxy.requests) < 4 else None
    assert len(listing(proxy, key, tmp_path, projects=[ARCHIVE]).hosts) == MANY
    proxy.choose = lambda request: fault if "pageToken=" in request.path else None
    assert ARCHIVE in refusal(listing(proxy, key, tmp_path, projects=[ARCHIVE], limit_seconds=8))


def test_a_zone_that_does_not_answer_is_told(
    compute: tuple[Compute, int], proxy: UnrulyProxy, key: Path, tmp_path: Path
) -> None:
    compute[0].unreachable.append("us-east1-b")
    assert "us-east1-b did not answer" in refusal(listing(proxy, key, tmp_path, limit_seconds=8))


def test_what_is_missing_is_said(proxy: UnrulyProxy, key: Path, tmp_path: Path) -> None:
    assert "compute.instances.list in elsewhere" in refusal(listing(proxy, key, tmp_path, projects=["elsewhere"]))
    source = write_source(tmp_path / "grid.yml", "gcp")
    nobody = {"GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent", "GCE_METADATA_HOST": "127.0.0.1:9"}
    assert "gcloud auth application-default login" in refusal(list_inventory(source, environment=nobody))
