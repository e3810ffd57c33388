# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openmined.pygrid.openstack on a genuine OpenStack; machines are made with its own client."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.lab import Lab
from tests.support.inventory import CHECKOUT, Listing, list_inventory, refusal, write_source

SCENARIO = os.environ["MOLECULE_SCENARIO_NAME"]
FOLDER = CHECKOUT / ".cache" / "lab" / f"openstack-{SCENARIO}"
NODES = [("network", "net", ""), ("domain", "alice", ""), ("worker", "alice-w1", "alice")]
SPARES = 25
FILL = """
import json, sys
import openstack
nodes, spares = json.loads(sys.argv[1]), int(sys.argv[2])
cloud = openstack.connect(cloud="lab")
compute = cloud.compute
if not compute.find_flavor("small"):
    compute.create_flavor(name="small", vcpus=1, ram=512, disk=1)
    cloud.create_image("debian", data=b"x" * 1024, disk_format="raw", container_format="bare", wait=True)
    network = cloud.network.create_network(name="grid")
    cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.200.0.0/22", name="grid")
flavor, image = compute.find_flavor("small").id, cloud.image.find_image("debian").id
wanted = {"flavor_id": flavor, "image_id": image, "networks": [{"uuid": cloud.network.find_network("grid").id}]}
for role, name, domain in nodes:
    tags = {"pygrid_grid": "heart", "pygrid_role": role, "pygrid_name": name}
    tags |= {"pygrid_domain": domain} if domain else {}
    compute.create_server(name=f"machine-{name}", metadata=tags, **wanted)
compute.create_server(name="many", min_count=spares, max_count=spares,
                      metadata={"pygrid_grid": "lung", "pygrid_role": "spare"}, **wanted)
compute.create_server(name="blog", **wanted)
reader = cloud.identity.find_role("reader")
project = cloud.identity.find_project("admin")
user = cloud.identity.create_user(name="inventory", password="of-the-tests", domain_id="default")
cloud.identity.assign_project_role_to_user(project, user, reader)
cloud.identity.create_user(name="nobody", password="of-the-tests", domain_id="default")
"""
COUNT = """
import openstack
print([server.status for server in openstack.connect(cloud="lab").compute.servers()].count("ACTIVE"))
"""


@pytest.fixture(scope="module")
def inside() -> list[str]:
    """The words that bring a command to the cloud's network."""
    return Lab(SCENARIO).inside()


@pytest.fixture(scope="module")
def cloud(inside: list[str]) -> Callable[..., str]:
    """A cloud with machines; called with a program it runs that beside it."""

    def run(program: str, *words: str) -> str:
        environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(FOLDER / "clouds.yaml")}
        command = [*inside, os.environ.get("PYGRID_TOOLS_PYTHON", "python"), "-c", program, *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    run(FILL, json.dumps(NODES), str(SPARES))
    until = time.monotonic() + 300
    while int(run(COUNT)) < len(NODES) + SPARES + 1:
        assert time.monotonic() < until, "the machines do not become active"
        time.sleep(3)
    return run


@pytest.fixture
def listing(cloud: Callable[..., str], inside: list[str], tmp_path: Path) -> Callable[..., Listing]:
    def ask(
        user: str = "inventory",
        password: str = "of-the-tests",  # noqa: S107 - of a cloud that ends with the test
        region: str = "RegionOne",
        **options: Any,
    ) -> Listing:
        described = yaml.safe_load((FOLDER / "clouds.yaml").read_text())
        described["clouds"]["lab"]["auth"] |= {"username": user, "password": password}
        described["clouds"]["lab"]["region_name"] = region
        clouds = tmp_path / "clouds.yaml"
        clouds.write_text(yaml.safe_dump(described))
        source = write_source(tmp_path / "grid.yml", "openstack", **{"clouds": ["lab"], "grids": ["heart"], **options})
        return list_inventory(source, environment={"OS_CLIENT_CONFIG_FILE": str(clouds)}, within=inside)

    return ask


def test_the_grid_appears_to_somebody_who_may_only_read(listing: Callable[..., Listing]) -> None:
    found = listing()
    assert found.groups == {"pygrid_network": ["net"], "pygrid_domain": ["alice"], "pygrid_worker": ["alice-w1"]}, (
        found.errors
    )
    alice = found.hosts["alice"]
    assert alice["ansible_host"].startswith("10.200.")
    machine = alice["pygrid_machine"]
    assert (machine["region"], machine["type"], machine["state"]) == ("RegionOne", "small", "active")
    assert machine["image"]
    assert machine["zone"]


def test_a_node_without_a_name_goes_by_its_machine(listing: Callable[..., Listing]) -> None:
    found = listing(grids=["lung"])
    assert sorted(found.hosts) == sorted(f"many-{number}" for number in range(1, SPARES + 1)), found.errors


def test_who_may_not_is_told(listing: Callable[..., Listing]) -> None:
    assert "are the credentials right" in refusal(listing(password="wrong"))
    assert "are the credentials right" in refusal(listing(user="nobody"))
    assert "is the region right?" in refusal(listing(region="RegionTwo"))
    assert "Valid choices are RegionOne" in refusal(listing(regions=["RegionTwo"]))
