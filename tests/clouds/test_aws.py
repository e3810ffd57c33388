# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openmined.pygrid.aws against moto: the grid of an account, and what happens when the API misbehaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.inventory import Listing, list_inventory, run, write_source
from tests.support.unruly import RESET, SLOW, TRUNCATED, Fault, Request, UnrulyProxy

HERE, THERE = "eu-west-1", "us-east-1"
NODES = {
    HERE: [("network", "net", ""), ("domain", "alice", ""), ("worker", "alice-w1", "alice")],
    THERE: [("domain", "bob", ""), ("worker", "bob-w1", "bob"), ("spare", "spare-1", "")],
}
MANY, MANY_MACHINES = "eu-central-1", 12
EVALUATED = Path("/tmp/pygrid-tag-was-evaluated")
HOSTILE = f"{{{{ lookup('ansible.builtin.pipe', 'touch {EVALUATED}') }}}}"
ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>
<RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"""


def refusal(status: int, code: str, message: str = "said the server") -> Fault:
    return Fault(status=status, body=ERROR.format(code=code, message=message))


def of_lists(fault: Fault, *numbers: int, region: str = "") -> Callable[[Request], Fault | None]:
    """Let the lists of these numbers (counted from 1; all without any) of a region have a fault."""
    count = 0

    def choose(request: Request) -> Fault | None:
        nonlocal count
        if "Action=DescribeInstances" not in request.body or f"/{region}" not in request.headers["authorization"]:
            return None
        count += 1
        return fault if not numbers or count in numbers else None

    return choose


@pytest.fixture(scope="module")
def account(moto: int) -> int:
    """An account with a grid in two regions, and machines that are none of its."""
    for region, nodes in {**NODES, MANY: [("spare", f"many-{n}", "") for n in range(MANY_MACHINES)]}.items():
        ec2 = boto3.client(
            "ec2", region_name=region, endpoint_url=f"http://127.0.0.1:{moto}", aws_access_key_id="a",
            aws_secret_access_key="b",
        )  # fmt: skip
        run = {"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.large"}
        ec2.run_instances(**run)
        for role, name, domain in nodes:
            tags = {"pygrid_grid": "heart", "pygrid_role": role, "pygrid_name": name, "pygrid_domain": domain}
            entries = [{"Key": key, "Value": value} for key, value in {**tags, "Note": HOSTILE}.items() if value]
            ec2.run_instances(**run, TagSpecifications=[{"ResourceType": "instance", "Tags": entries}])
    return moto


@pytest.fixture
def proxy(account: int) -> Iterator[UnrulyProxy]:
    with UnrulyProxy(("127.0.0.1", account)).running() as running:
        yield running


def surroundings(url: str, **more: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        **more,
    }


def listing(proxy: UnrulyProxy, folder: Path, **options: Any) -> Listing:
    source = write_source(folder / "grid.yml", "aws", **{"regions": [HERE, THERE], **options})
    return list_inventory(source, environment=surroundings(proxy.url))


def test_the_grid_appears(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(proxy, tmp_path)
    assert found.groups == {
        "pygrid_network": ["net"],
        "pygrid_domain": ["alice", "bob"],
        "pygrid_worker": ["alice-w1", "bob-w1"],
        "pygrid_spare": ["spare-1"],
    }
    assert found.hosts["bob-w1"]["pygrid_worker_domain"] == "bob"
    machine = found.hosts["alice"]["pygrid_machine"]
    assert found.hosts["alice"]["ansible_host"] == machine["addresses"]["private"]
    assert (machine["region"], machine["type"], machine["state"]) == (HERE, "t3.large", "running")


def test_a_tag_is_never_evaluated(proxy: UnrulyProxy, tmp_path: Path) -> None:
    source = write_source(tmp_path / "grid.yml", "aws", regions=[HERE])
    show = ["ansible", "net", "-i", str(source), "-m", "ansible.builtin.debug", "-a", "var=pygrid_machine.tags.Note"]
    done = run(show, surroundings(proxy.url))
    assert f"touch {EVALUATED}" in done.stdout, done.stderr
    assert not EVALUATED.exists()


def test_all_regions_of_the_account_by_default(proxy: UnrulyProxy, tmp_path: Path) -> None:
    source = write_source(tmp_path / "grid.yml", "aws")
    found = list_inventory(source, environment=surroundings(proxy.url, AWS_REGION=HERE))
    assert len(found.hosts) == sum(map(len, NODES.values())) + MANY_MACHINES


def test_only_what_is_wanted_is_asked_for(proxy: UnrulyProxy, tmp_path: Path) -> None:
    found = listing(
        proxy, tmp_path, regions=[HERE], filters={"tag:pygrid_role": ["domain", "worker"]}, addresses=["public"]
    )
    assert set(found.hosts) == {"alice", "alice-w1"}
    assert found.hosts["alice"]["ansible_host"] == found.hosts["alice"]["pygrid_machine"]["addresses"]["public"]
    assert all("Filter.1.Name=tag-key" in request.body for request in proxy.requests)


def test_a_cache_hit_asks_nobody(proxy: UnrulyProxy, tmp_path: Path) -> None:
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = listing(proxy, tmp_path, **cache)
    asked = len(proxy.requests)
    again = listing(proxy, tmp_path, **cache)
    assert len(proxy.requests) == asked
    assert again.document == first.document
    other = listing(proxy, tmp_path, **cache, filters={"tag:pygrid_role": "domain"})
    assert set(other.hosts) == {"alice", "bob"}
    assert len(proxy.requests) > asked


@pytest.mark.parametrize(
    "fault",
    [
        refusal(500, "InternalError"),
        refusal(503, "RequestLimitExceeded"),
        refusal(429, "TooManyRequestsException"),
        TRUNCATED,
        RESET,
    ],
    ids=["500", "503", "429", "truncated", "reset"],
)
def test_a_failure_that_passes_is_not_seen(proxy: UnrulyProxy, tmp_path: Path, fault: Fault) -> None:
    proxy.choose = of_lists(fault, 1, 2)
    assert len(listing(proxy, tmp_path).hosts) == 6


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        pytest.param(refusal(500, "InternalError"), "InternalError", marks=pytest.mark.thorough),
        (TRUNCATED, "the answer breaks off"),
        pytest.param(SLOW, "no whole answer within", marks=pytest.mark.thorough),
        (refusal(403, "RequestExpired"), "get new temporary credentials"),
        (refusal(401, "AuthFailure"), "is the region enabled for the account"),
        (refusal(403, "UnauthorizedOperation"), "allow ec2:DescribeInstances"),
    ],
    ids=["500", "truncated", "slow", "expired", "disabled", "denied"],
)
def test_a_failure_that_stays_is_told_and_nobody_is_left_out_in_silence(
    proxy: UnrulyProxy, tmp_path: Path, fault: Fault, sentence: str
) -> None:
    proxy.choose = of_lists(fault, region=HERE)
    found = listing(proxy, tmp_path, limit_seconds=8)
    assert HERE in found.errors
    assert sentence in " ".join(found.errors.split()), found.errors
    assert not found.hosts
    warned = listing(proxy, tmp_path, limit_seconds=8, partial="warn")
    assert set(warned.hosts) == {"bob", "bob-w1", "spare-1"}
    assert sentence in " ".join(warned.errors.split())


def test_pages(proxy: UnrulyProxy, tmp_path: Path) -> None:
    """moto's pages are of reservations, so that small ones can be had of few machines."""
    proxy.rewrite = lambda request: replace(request, body=request.body.replace("MaxResults=1000", "MaxResults=5"))
    whole = listing(proxy, tmp_path, regions=[MANY])
    assert len(whole.hosts) == MANY_MACHINES
    pages = [request for request in proxy.requests if "NextToken=" in request.body]
    assert len(pages) == 2
    proxy.choose = of_lists(TRUNCATED, 2)
    assert listing(proxy, tmp_path, regions=[MANY]).document == whole.document
    proxy.choose = of_lists(refusal(403, "RequestExpired"), 3)
    assert not listing(proxy, tmp_path, regions=[MANY]).hosts


def test_what_is_missing_is_said(account: int, tmp_path: Path) -> None:
    source = write_source(tmp_path / "grid.yml", "aws", regions=[HERE])
    nobody = surroundings(f"http://127.0.0.1:{account}", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert "Unable to locate credentials" in list_inventory(source, environment=nobody).errors
    source = write_source(tmp_path / "grid.yml", "aws", regions=[HERE], filters={"colour": "red"})
    assert "colour is none of id, name" in list_inventory(source, environment=surroundings("http://127.0.0.1:9")).errors
    source = write_source(tmp_path / "grid.yml", "aws", regions=[HERE], limit_seconds=3)
    assert "Could not connect" in list_inventory(source, environment=surroundings("http://127.0.0.1:9")).errors


def test_playbooks_refuse_a_grid_of_which_a_part_is_missing(proxy: UnrulyProxy, tmp_path: Path) -> None:
    proxy.choose = of_lists(refusal(403, "UnauthorizedOperation"))
    broken = write_source(tmp_path / "inventory" / "aws.yml", "aws", regions=[HERE])
    (broken.parent / "other.yml").write_text("pygrid: {children: {pygrid_network: {hosts: {net: {}}}}}")
    done = run(["ansible-playbook", "-i", str(broken.parent), "playbooks/preflight.yml"], surroundings(proxy.url))
    assert done.returncode != 0
    assert "not all of it could be seen" in " ".join(done.stdout.split())


def test_machines_of_another_account(proxy: UnrulyProxy, moto: int, tmp_path: Path) -> None:
    """moto has an account for each number; a role belongs to one, and who takes it on is at home there."""
    role = "arn:aws:iam::222222222222:role/pygrid-inventory"
    common = {"region_name": HERE, "endpoint_url": f"http://127.0.0.1:{moto}"}
    own = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    answer = boto3.client("sts", **common, **own).assume_role(RoleArn=role, RoleSessionName="test")
    given = answer["Credentials"]
    theirs = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    tags = [{"Key": "pygrid_grid", "Value": "lung"}, {"Key": "pygrid_role", "Value": "spare"}]
    boto3.client("ec2", **common, **theirs).run_instances(
        ImageId="ami-12c6146b", MinCount=1, MaxCount=1, InstanceType="t3.large",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [*tags, {"Key": "pygrid_name", "Value": "carol"}]}],
    )  # fmt: skip
    found = listing(proxy, tmp_path, role_arn=role)
    assert found.groups == {"pygrid_spare": ["carol"]}, found.errors
    assert "carol" not in listing(proxy, tmp_path).hosts
