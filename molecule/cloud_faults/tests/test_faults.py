# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cloud may fail at, and runs that are killed at every task. In this order."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.support.aws_grid import Grid, action_of, tags_of
from tests.support.sweep import sweep

pytestmark = pytest.mark.timeout(0)

NODES = {"net", "alice", "alice-w1"}
MACHINES: list[dict[str, Any]] = [
    {"role": "network", "size": "t3.medium"},
    {"role": "domain", "name": "alice", "size": "t3.large"},
    {"role": "worker", "domain": "alice", "size": "t3.medium"},
]
# In the order in which provision.yml comes to them.
ACTIONS = (
    "CreateSubnet", "CreateNatGateway", "CreateRoute", "AuthorizeSecurityGroupIngress", "ImportKeyPair", "CreateVolume",
    "AttachVolume",
)  # fmt: skip


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid(os.environ["MOLECULE_SCENARIO_NAME"], MACHINES)


def workers(number: int) -> tuple[str, ...]:
    return ("-e", json.dumps({"pygrid_domain_workers": {"alice": number}}))


def whole(grid: Grid, playbook: str, *arguments: str) -> None:
    """Run a playbook to its end, and insist that there is nothing left to do."""
    grid.must_play(playbook, *arguments, timeout_seconds=1800)
    again = grid.must_play(playbook, *arguments)
    assert again.changed == 0, again.output[-6000:]


def test_a_quota_is_told_and_no_machine_is_left(grid: Grid) -> None:
    with grid.failing("RunInstances", "VcpuLimitExceeded", containing="InstanceType=t3.large"):
        run = grid.play("provision")
    assert run.returncode != 0
    assert "alice (t3.large, tried in eu-west-1" in run.output
    assert "VcpuLimitExceeded" in run.output
    assert grid.machines() == {}
    assert "is removed" in grid.must_play("deprovision", "--check").output
    whole(grid, "deprovision")


@pytest.mark.parametrize("action", ACTIONS)
def test_the_account_may_not_do_everything(grid: Grid, action: str) -> None:
    with grid.failing(action, "UnauthorizedOperation", status=403):
        run = grid.play("provision", timeout_seconds=1800)
    assert run.returncode != 0
    # Some modules of amazon.aws say less.
    assert re.search("UnauthorizedOperation|Failed to authorize|Error while (creat|attach)ing", run.output)


def test_what_was_begun_is_gone_on_with_by_an_api_that_fails_all_the_time(grid: Grid) -> None:
    with grid.failing("[A-Z].*", "InternalError", status=500, times=2) as proxy:
        grid.must_play("provision", timeout_seconds=1800)
    assert any("Action=AttachVolume" in request.body for request in proxy.requests)
    whole(grid, "provision")
    assert set(grid.machines()) == NODES
    assert grid.data_volumes() == ["alice", "net"]
    assert len(grid.tagged("describe_vpcs", "Vpcs")) == 1
    assert len(grid.tagged("describe_addresses", "Addresses")) == 2  # of the Network and of the NAT gateway
    whole(grid, "deploy")


def test_a_zone_without_room_is_not_the_end(grid: Grid) -> None:
    subnets = grid.tagged("describe_subnets", "Subnets")
    full = next(
        one for one in subnets if one["AvailabilityZone"].endswith("a") and tags_of(one)["pygrid_public"] == "false"
    )
    zones = ("-e", json.dumps({"pygrid_cloud_zones": ["eu-west-1a", "eu-west-1b"]}))
    for number, first in ((2, "eu-west-1b"), (3, "eu-west-1a")):
        with grid.failing("RunInstances", "InsufficientInstanceCapacity", 500, full["SubnetId"]) as proxy:
            grid.must_play("scale", *workers(number), *zones)
        tried = [request for request in proxy.requests if "Action=RunInstances&" in request.body]
        assert (len(tried) > 1) == (first == "eu-west-1a"), "the first zone is another one for each machine"
    placed = {name: machine.zone for name, machine in grid.machines().items()}
    assert {placed["alice-w2"], placed["alice-w3"]} == {"eu-west-1b"}
    whole(grid, "scale", *workers(1))


def test_a_machine_that_never_boots_is_taken_back(grid: Grid) -> None:
    sick = [*MACHINES[:2], {**MACHINES[2], "tags": {"hands": "never-boots"}}]
    grid.write_inventory(sick)
    run = grid.play("scale", *workers(2), "-e", "pygrid_cloud_boot_seconds=20")
    assert run.returncode != 0
    assert "alice-w2 (i-" in run.output
    assert "They were removed again" in run.output
    assert set(grid.machines()) == NODES
    grid.write_inventory(MACHINES)
    whole(grid, "scale", *workers(1))


def test_spot_machines_may_go_in_the_middle_of_a_job(grid: Grid, tmp_path: Path) -> None:
    grid.write_inventory([*MACHINES, {"role": "worker", "domain": "alice", "size": "t3.large", "spot": True}])
    with grid.watched():
        whole(grid, "scale", *workers(2))
    spot = grid.machines()["alice-w2"]
    (asked,) = (parse_qs(one.body) for one in grid.requests if action_of(one) == "RunInstances")
    templates = grid.tagged("describe_launch_templates", "LaunchTemplates")
    assert asked["LaunchTemplate.LaunchTemplateName"] == [templates[0]["LaunchTemplateName"]]
    versions = grid.ask(
        lambda ec2: ec2.describe_launch_template_versions(LaunchTemplateId=templates[0]["LaunchTemplateId"])
    )
    options = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]["InstanceMarketOptions"]
    assert options["MarketType"] == "spot"

    owner = grid.identity("alice", tmp_path)
    grid.client("seed", grid.url("alice"), owner)
    jobs = [grid.client("submit", grid.url("alice"), owner, "15")["job"] for _number in range(2)]
    grid.eventually(lambda: busy(grid) == {"alice-w1", "alice-w2"})
    grid.terminate("alice-w2")
    for job in jobs:
        assert grid.client("result", grid.url("alice"), owner, job, "150")["status"] == "completed"
    whole(grid, "scale", *workers(2))
    assert grid.machines()["alice-w2"].id != spot.id


def busy(grid: Grid) -> set[str]:
    return {worker["name"] for worker in grid.status("alice", "alice")["workers"] if worker.get("job")}


KILLED: dict[str, tuple[str, ...]] = {
    "provision": (),
    "image": (),
    "scale": workers(3),
    "resize": ("-e", json.dumps({"pygrid_machines": [MACHINES[0], {**MACHINES[1], "size": "t3.xlarge"}, MACHINES[2]]})),
    "deprovision": (),
}


@pytest.mark.skipif("PYGRID_TEST_THOROUGH" not in os.environ, reason="takes hours; PYGRID_TEST_THOROUGH=1")
@pytest.mark.parametrize("playbook", KILLED)
def test_runs_may_be_killed_at_every_task(grid: Grid, playbook: str, tmp_path: Path) -> None:
    grid.write_inventory(MACHINES)
    if playbook == "provision":
        grid.must_play("deprovision", "-e", "pygrid_deprovision_data=true")
    elif playbook == "image":
        grid.must_play("deploy", timeout_seconds=1800)
    kills = sweep(grid, tmp_path / "record", playbook, *KILLED[playbook])
    print(f"{playbook}: {len(kills)} kills")
    assert len(kills) > 5, kills
    whole(grid, playbook, *KILLED[playbook])
    expected = {"scale": NODES | {"alice-w2", "alice-w3"}, "resize": NODES | {"alice-w2", "alice-w3"}}
    assert set(grid.machines()) == expected.get(playbook, set() if playbook == "deprovision" else NODES)
    if playbook == "provision":
        assert grid.data_volumes() == ["alice", "net"]
        assert len(grid.tagged("describe_addresses", "Addresses")) == 2  # of the Network and of the NAT gateway
    if playbook == "image":
        assert len(grid.images()) == 1
