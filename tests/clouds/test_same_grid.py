# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid is the same grid, whether a file, an account or several clouds together say what it is made of."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from tests.clouds import rackspace
from tests.support.inventory import CHECKOUT, list_inventory, run, write_source

REGION = "eu-west-2"
AS_JSON = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true"}
NODES = [
    ("network", "net", ""),
    ("domain", "alice", ""),
    ("domain", "bob", ""),
    ("worker", "alice-w1", "alice"),
    ("worker", "alice-w2", "alice"),
    ("worker", "bob-w1", "bob"),
    ("spare", "spare-1", ""),
]


def tags(role: str, name: str, domain: str, grid: str) -> dict[str, str]:
    named = {"pygrid_grid": grid, "pygrid_role": role, "pygrid_name": name, "pygrid_domain": domain}
    return {tag: value for tag, value in named.items() if value}


def surroundings(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="module")
def addresses(moto: int) -> dict[str, str]:
    """Private addresses of the grid `lung` in an account; it has the Network and a Domain of `heart-study` as well."""
    ec2 = boto3.client(
        "ec2",
        region_name=REGION,
        endpoint_url=f"http://127.0.0.1:{moto}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    found = {}
    for grid, nodes in {"lung": NODES, "heart-study": NODES[:2]}.items():
        for node in nodes:
            entries = [{"Key": key, "Value": value} for key, value in tags(*node, grid).items()]
            made = ec2.run_instances(
                ImageId="ami-12c6146b", MinCount=1, MaxCount=1, InstanceType="t3.large",
                TagSpecifications=[{"ResourceType": "instance", "Tags": entries}],
            )  # fmt: skip
            if grid == "lung":
                found[node[1]] = made["Instances"][0]["PrivateIpAddress"]
    return found


@pytest.fixture
def sources(addresses: dict[str, str], tmp_path: Path) -> dict[str, Path]:
    """The grid `lung` as an account and as a file, each in a folder with the same variables."""
    groups: dict[str, Any] = {}
    for role, name, domain in NODES:
        variables = {"ansible_host": addresses[name]} | ({"pygrid_worker_domain": domain} if domain else {})
        groups.setdefault(f"pygrid_{role}", {"hosts": {}})["hosts"][name] = variables
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "hosts.yml").write_text(yaml.safe_dump({"pygrid": {"children": groups}}, sort_keys=False))
    write_source(tmp_path / "aws" / "grid.yml", "aws", grids=["lung"], regions=[REGION])
    for folder in ("static", "aws"):
        (tmp_path / folder / "vars.yml").write_text(yaml.safe_dump({"pygrid": {"vars": {"pygrid_scope": "system"}}}))
    return {name: tmp_path / name for name in ("static", "aws")}


def said(command: list[str], source: Path, environment: dict[str, str]) -> str:
    done = run([command[0], "-i", str(source), *command[1:]], environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_machine(variables: dict[str, Any]) -> dict[str, Any]:
    """A file does not know what the cloud calls a machine; all else has to be equal."""
    return {name: value for name, value in variables.items() if name != "pygrid_machine"}


def test_graph_and_hosts_of_a_playbook(sources: dict[str, Path], moto: int) -> None:
    for command in (
        ["ansible-inventory", "--graph"],
        ["ansible-playbook", "playbooks/deploy.yml", "--list-hosts"],
        ["ansible-playbook", "playbooks/deploy.yml", "--list-hosts", "--limit", "alice,alice-w1"],
    ):
        answers = {name: said(command, source, surroundings(moto)) for name, source in sources.items()}
        # Hosts of a play stand in no certain order: sets of them do.
        sets = {name: re.sub(r"(?:^      \S+\n)+", _sorted, text, flags=re.MULTILINE) for name, text in answers.items()}
        assert sets["aws"] == sets["static"]
        assert "alice-w1" in sets["aws"]


def _sorted(match: re.Match[str]) -> str:
    return "".join(sorted(match[0].splitlines(keepends=True)))


def test_list_and_host(sources: dict[str, Path], moto: int) -> None:
    lists = {name: list_inventory(source, environment=surroundings(moto)) for name, source in sources.items()}
    assert lists["aws"].groups == lists["static"].groups
    assert {host: without_machine(found) for host, found in lists["aws"].hosts.items()} == lists["static"].hosts
    for _role, host, _domain in NODES:
        ask = ["ansible-inventory", "--host", host]
        answers = {name: json.loads(said(ask, source, surroundings(moto))) for name, source in sources.items()}
        assert without_machine(answers["aws"]) == answers["static"]
        assert answers["aws"]["pygrid_machine"]["region"] == REGION


@pytest.fixture
def several(addresses: dict[str, str], moto: int, mimic: int, tmp_path: Path) -> dict[str, str]:
    """Surroundings in which the example of several clouds finds a Domain and a Worker on OpenStack as well."""
    rackspace.create(mimic, "several", rackspace.HERE, [tags(*node, "heart-study") for node in NODES[2:4]])
    clouds = tmp_path / "clouds.yaml"
    rackspace.write_clouds(clouds, f"http://127.0.0.1:{mimic}", "several", rackspace.HERE)
    return {**surroundings(moto), "OS_CLIENT_CONFIG_FILE": str(clouds), "OS_CLOUD": "hospital"}


def test_several_clouds_are_one_grid(several: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "multicloud"
    shutil.copytree(CHECKOUT / "inventories" / "multicloud", folder)
    with (folder / "aws.yml").open("a") as file:
        file.write(f"regions: [{REGION}]\n")  # the test's machines are nowhere else
    found = list_inventory(folder, environment=several)
    assert found.groups == {"pygrid_network": ["net"], "pygrid_domain": ["alice", "bob"], "pygrid_worker": ["alice-w1"]}
    clouds = {host: variables["pygrid_machine"]["cloud"] for host, variables in found.hosts.items()}
    assert clouds == {"net": "aws", "alice": "aws", "bob": "openstack", "alice-w1": "openstack"}
    who = json.loads(
        said(
            ["ansible", "all", "-m", "ansible.builtin.debug", "-a", "var=ansible_user"], folder, {**several, **AS_JSON}
        )
    )
    users = {host: answer["ansible_user"] for host, answer in who["plays"][0]["tasks"][0]["hosts"].items()}
    assert users == {"net": "admin", "alice": "admin", "bob": "debian", "alice-w1": "debian"}
    hosts = said(["ansible-playbook", "playbooks/deploy.yml", "--list-hosts"], folder, several)
    assert set(clouds) <= set(hosts.split())
