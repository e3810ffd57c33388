# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""provision.yml and deprovision.yml against moto, as far as they go without a machine that boots.

Whole lives of grids, with machines, are in the scenarios cloud_aws and cloud_faults.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml

from tests.support.aws_grid import KINDS, forbidden
from tests.support.playbook import Run, killing, run_playbook
from tests.support.runtime import free_port
from tests.support.servers import server
from tests.support.unruly import Fault, Request, UnrulyProxy

CHECKOUT = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
IDENTITY = {"aws_access_key_id": "of-the-tests", "aws_secret_access_key": "secret-of-the-tests"}
QUOTA = "<Response><Errors><Error><Code>VcpuLimitExceeded</Code><Message>too many</Message></Error></Errors></Response>"


class Account:
    """An empty account that gives nobody a machine, and the folder of somebody's inventory."""

    def __init__(self, proxy: UnrulyProxy, port: int, folder: Path) -> None:
        self.folder, self.proxy = folder, proxy
        self.environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": IDENTITY["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": IDENTITY["aws_secret_access_key"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        }
        self._ec2 = boto3.client("ec2", region_name=REGION, endpoint_url=f"http://127.0.0.1:{port}", **IDENTITY)

    def play(self, playbook: str, *arguments: str, killed_at: str = "") -> Run:
        command = ["ansible-playbook", "-i", str(self.folder), str(CHECKOUT / "playbooks" / f"{playbook}.yml")]
        more = killing(self.folder.parent / "moments", killed_at) if killed_at else {}
        return run_playbook([*command, *arguments], CHECKOUT, {**self.environment, **more})

    def has(self) -> dict[str, int]:
        """How many things of each kind carry the tag of the grid."""
        ours = [{"Name": "tag:pygrid_grid", "Values": ["heart"]}]
        return {kind: len(getattr(self._ec2, question)(Filters=ours)[kind]) for question, kind in KINDS.items()}


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    def choose(request: Request) -> Fault | None:
        return Fault(status=400, body=QUOTA) if "Action=RunInstances&" in request.body else None

    port, folder = free_port(), tmp_path / "inventory"
    folder.mkdir()
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (folder / "grid.yml").write_text(
        yaml.safe_dump({"plugin": "openmined.pygrid.aws", "grids": ["heart"], "regions": [REGION]})
    )
    variables = {
        "pygrid_cloud": "aws",
        "pygrid_cloud_grid": "heart",
        "pygrid_cloud_region": REGION,
        "pygrid_cloud_zones": [f"{REGION}a"],
        "pygrid_cloud_ssh_key": f"{key}.pub",
        "pygrid_cloud_image": "ami-12c6146b",
        "pygrid_machines": [
            {"role": "network", "size": "t3.small"},
            {"role": "domain", "name": "alice", "size": "t3.large"},
        ],
        "pygrid_confirm": True,
    }
    (folder / "vars.yml").write_text(
        yaml.safe_dump({"all": {"vars": variables}, "pygrid": {"vars": {"pygrid_scope": "system"}}})
    )
    words = [sys.executable, "-m", "tests.hands.moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        server(tmp_path / "log", *words, port=port),
        UnrulyProxy(("127.0.0.1", port), choose).running() as proxy,
    ):
        yield Account(proxy, port, folder)


def test_killed_runs_and_a_quota_leave_nothing_that_deprovision_does_not_find(account: Account) -> None:
    check = account.play("provision", "--check")
    assert check.returncode == 0, check.output[-4000:]
    assert "2 machines to make" in check.output
    assert not any(account.has().values())

    assert account.play("provision", killed_at="start of: openmined.pygrid.cloud : Open exactly").returncode < 0
    run = account.play("provision")
    assert run.returncode != 0
    assert "net (t3.small, tried in eu-west-1a): " in run.output, run.output[-4000:]
    assert "VcpuLimitExceeded" in run.output
    assert account.has() == {
        "Vpcs": 1, "Subnets": 2, "SecurityGroups": 3, "InternetGateways": 1, "RouteTables": 2, "KeyPairs": 1,
        "Addresses": 1, "LaunchTemplates": 0,
    }  # fmt: skip

    assert account.play("deprovision", killed_at="start of: openmined.pygrid.cloud : Remove subnets").returncode < 0
    ended = account.play("deprovision")
    assert ended.returncode == 0, ended.output[-4000:]
    assert "pygrid-heart-private-eu-west-1a" in ended.output
    assert not any(account.has().values())
    assert forbidden(account.proxy.requests) == []


def test_what_cannot_be_meant_is_refused_before_anything_is_made(account: Account) -> None:
    wrong = '{"pygrid_machines": [{"role": "worker", "size": "t3.small", "data_disk": 5}]}'
    run = account.play("provision", "-e", wrong)
    assert run.returncode != 0
    assert "a worker has no domain" in run.output
    assert "only a Network and Domains keep data" in run.output
    assert not any(account.has().values())
