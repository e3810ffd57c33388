# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid on AWS, as moto has it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qs

import boto3

from tests.hands import aws
from tests.support.cloud_grid import GRID, CloudGrid, Made
from tests.support.intranet import CHECKOUT
from tests.support.unruly import Fault, Request, UnrulyProxy

Result = TypeVar("Result")
OURS = {"Name": "tag:pygrid_grid", "Values": [GRID]}
POLICY = CHECKOUT / "inventories" / "aws" / "policy.json"
# Nobody needs a right for it.
ALWAYS_ALLOWED = {"GetCallerIdentity"}
# What is left of a grid is asked for like this.
KINDS = {
    "describe_vpcs": "Vpcs",
    "describe_subnets": "Subnets",
    "describe_security_groups": "SecurityGroups",
    "describe_internet_gateways": "InternetGateways",
    "describe_route_tables": "RouteTables",
    "describe_key_pairs": "KeyPairs",
    "describe_addresses": "Addresses",
    "describe_launch_templates": "LaunchTemplates",
}


class Grid(CloudGrid):
    """A grid in an account of AWS."""

    CLOUD = "aws"
    SIZES = ("t3.medium", "t3.large", "t3.xlarge")
    SOURCE: ClassVar = {"regions": [aws.REGION]}
    VARIABLES: ClassVar = {
        "pygrid_cloud_region": aws.REGION,
        "pygrid_cloud_zones": [f"{aws.REGION}a", f"{aws.REGION}b"],
    }
    LOGIN = "admin"

    def open(self) -> None:
        self.ec2 = boto3.client("ec2", endpoint_url=self.environment["AWS_ENDPOINT_URL"], **aws.CREDENTIALS)

    @contextmanager
    def failing(
        self, actions: str, code: str, status: int = 400, containing: str = "", times: int = 0
    ) -> Iterator[UnrulyProxy]:
        """Let the API answer playbooks with an error.

        Args:
            actions: regular expression for those that fail.
            containing: only requests that have this text in them.
            times: how often each action fails; 0 for always.
        """
        error = f"<Error><Code>{code}</Code><Message>{code} of the test</Message></Error>"
        body = f"<Response><Errors>{error}</Errors></Response>"

        failed: Counter[str] = Counter()

        def choose(request: Request) -> Fault | None:
            action = action_of(request)
            if not re.fullmatch(actions, action) or containing not in request.body:
                return None
            failed[action] += 1
            return Fault(status=status, body=body) if not times or failed[action] <= times else None

        former = self.environment
        upstream = (self.lab.network.address(1), aws.PORT)
        with ExitStack() as stack:
            with self.inside_network():  # where its threads stay
                proxy = stack.enter_context(UnrulyProxy(upstream, choose).running())
            self.environment = {**former, "AWS_ENDPOINT_URL": proxy.url}
            try:
                yield proxy
            finally:
                self.environment = former

    @contextmanager
    def watched(self) -> Iterator[Grid]:
        # Everything that playbooks ask the API for goes through a proxy that writes it down.
        with self.failing("", "") as proxy:
            self.requests = proxy.requests
            yield self

    def beyond_rights(self) -> list[str]:
        return forbidden(self.requests)

    def ask(self, question: Callable[[Any], Result]) -> Result:
        """Put a question to the API."""
        with self.inside_network():
            return question(self.ec2)

    def tagged(self, question: str, answer: str) -> list[dict[str, Any]]:
        """What of a kind the API has of the grid: ``tagged("describe_vpcs", "Vpcs")``."""
        return self.ask(lambda ec2: getattr(ec2, question)(Filters=[OURS]))[answer]

    def machines(self) -> dict[str, Made]:
        states = {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}
        answer = self.ask(lambda ec2: ec2.describe_instances(Filters=[OURS, states]))
        found = [machine for reservation in answer["Reservations"] for machine in reservation["Instances"]]
        return {
            tags_of(machine)["pygrid_name"]: Made(
                machine["InstanceId"],
                machine["InstanceType"],
                machine["ImageId"],
                machine.get("PublicIpAddress", ""),
                machine["Placement"]["AvailabilityZone"],
                tags_of(machine),
            )
            for machine in found
        }

    def images(self) -> list[str]:
        return [image["ImageId"] for image in self.tagged("describe_images", "Images")]

    def data_volumes(self) -> list[str]:
        # The disks that machines begin with have tags as well.
        tags = [tags_of(volume) for volume in self.tagged("describe_volumes", "Volumes")]
        return sorted(each["pygrid_data_of"] for each in tags if "pygrid_data_of" in each)

    def left(self) -> list[str]:
        volumes = self.tagged("describe_volumes", "Volumes")
        disks = [volume for volume in volumes if "pygrid_data_of" not in tags_of(volume)]
        return [kind for question, kind in KINDS.items() if self.tagged(question, kind)] + ["Disks"] * bool(disks)

    def openings(self) -> set[tuple[str, int, str]]:
        groups = self.tagged("describe_security_groups", "SecurityGroups")
        names = {group["GroupId"]: group["GroupName"].rpartition("-")[2] for group in groups}
        found = set()
        for group in groups:
            for rule in group["IpPermissions"]:
                sources = [names[pair["GroupId"]] for pair in rule["UserIdGroupPairs"]]
                sources += [entry["CidrIp"] for entry in rule["IpRanges"]]
                found |= {(names[group["GroupId"]], rule["FromPort"], source) for source in sources}
        return found

    def take_away(self, machine: str) -> None:
        self.ask(lambda ec2: ec2.terminate_instances(InstanceIds=[machine]))


def forbidden(requests: Iterable[Request]) -> list[str]:
    """What of these requests the policy that inventories/aws recommends does not allow."""
    statements = json.loads(POLICY.read_text())["Statement"]
    allowed = [action.removeprefix("ec2:") for statement in statements for action in statement["Action"]]
    asked = {action_of(request) for request in requests} - ALWAYS_ALLOWED
    return sorted(action for action in asked if not any(fnmatchcase(action, pattern) for pattern in allowed))


def action_of(request: Request) -> str:
    """What a request asks EC2 to do."""
    return parse_qs(request.body).get("Action", [request.path])[0]


def tags_of(thing: dict[str, Any]) -> dict[str, str]:
    """The tags of something that AWS told of."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}
