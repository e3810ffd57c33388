# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid in a cloud with hands (tests/hands), for tests that go through its whole life."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs

import boto3
import yaml

from tests.hands import aws
from tests.lab.lab import Lab
from tests.lab.machine import network_of
from tests.support.intranet import CHECKOUT, Intranet
from tests.support.unruly import Fault, Request, UnrulyProxy

HANDS = [sys.executable, "-m", "tests.hands", "--lab"]
Result = TypeVar("Result")
GRID = "heart"


class CloudGrid(Intranet):
    """A grid whose hosts are called after their nodes and are machines of a cloud.

    Args:
        lab: name of the lab that is the cloud; the controller stands in its network, with an inventory in its folder.
        machines: what pygrid_machines of that inventory says.
    """

    def __init__(self, lab: str, machines: list[dict[str, Any]]) -> None:
        folder = Lab(lab).folder / "inventory"
        super().__init__(lab, folder, folder / ".pygrid" / "pki")
        self.folder = folder
        done = subprocess.run([*HANDS, lab, "start"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        self.environment: dict[str, str] = json.loads(done.stdout)
        self.lab = Lab(lab)
        with self.inside_network():
            self.ec2 = boto3.client("ec2", endpoint_url=self.environment["AWS_ENDPOINT_URL"], **aws.CREDENTIALS)
        self.write_inventory(machines)

    def inside_network(self) -> Any:
        """Let this thread open its connections where the API is."""
        return network_of(self.lab.network.namespace)

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
            action = parse_qs(request.body).get("Action", [""])[0]
            if not re.fullmatch(actions, action) or containing not in request.body:
                return None
            failed[action] += 1
            return Fault(status=status, body=body) if not times or failed[action] <= times else None

        former = self.environment
        upstream = (self.lab.network.address(1), aws.PORT)
        with self.inside_network(), UnrulyProxy(upstream, choose).running() as proxy:
            self.environment = {**former, "AWS_ENDPOINT_URL": proxy.url}
            try:
                yield proxy
            finally:
                self.environment = former

    def ask(self, question: Callable[[Any], Result]) -> Result:
        """Put a question to the API."""
        with self.inside_network():
            return question(self.ec2)

    def tagged(self, question: str, answer: str) -> list[dict[str, Any]]:
        """What of a kind the API has of the grid: ``tagged("describe_vpcs", "Vpcs")``."""
        ours = [{"Name": "tag:pygrid_grid", "Values": [GRID]}]
        return self.ask(lambda ec2: getattr(ec2, question)(Filters=ours))[answer]

    def write_inventory(self, machines: list[dict[str, Any]], **variables: Any) -> None:
        """The folder that a person would have filled in."""
        self.wanted = machines
        self.folder.mkdir(parents=True, exist_ok=True)
        key = self.folder.parent / "administrator"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        source = {"plugin": "openmined.pygrid.aws", "grids": [GRID], "regions": [aws.REGION]}
        (self.folder / "grid.yml").write_text(yaml.safe_dump(source))
        trust = f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={self.folder.parent / 'known_hosts'}"
        everywhere = {
            "pygrid_cloud": "aws",
            "pygrid_cloud_grid": GRID,
            "pygrid_cloud_region": aws.REGION,
            "pygrid_cloud_zones": [f"{aws.REGION}a", f"{aws.REGION}b"],
            "pygrid_cloud_cidr": f"{self.lab.subnet}.0/24",
            "pygrid_cloud_ssh_key": f"{key}.pub",
            "pygrid_cloud_administrators": ["198.51.100.0/24"],
            "pygrid_machines": machines,
            "pygrid_confirm": True,
            **variables,
        }
        nodes = {
            "pygrid_scope": "system",
            "pygrid_pki_directory": str(self.pki),
            "pygrid_worker_packages": ["scikit-learn==1.5.2"],
            "ansible_user": "admin",
            "ansible_become": True,
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": f"{trust} -o HostKeyAlias={{{{ pygrid_machine.id }}}}",
        }
        groups = {"all": {"vars": everywhere}, "pygrid": {"vars": nodes}, "pygrid_spare": {"vars": nodes}}
        (self.folder / "vars.yml").write_text(yaml.safe_dump(groups))

    def command(self, playbook: str, *arguments: str) -> list[str]:
        command = ["ansible-playbook", "-i", str(self.folder), str(CHECKOUT / "playbooks" / f"{playbook}.yml")]
        return self.lab.inside(*command, *arguments)

    def surroundings(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**super().surroundings(more), **self.environment}

    def machines(self) -> dict[str, dict[str, Any]]:
        """The machines of the grid that exist, by the names of their nodes."""
        filters = [
            {"Name": "tag:pygrid_grid", "Values": [GRID]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
        answer = self.ask(lambda ec2: ec2.describe_instances(Filters=filters))
        found = [machine for reservation in answer["Reservations"] for machine in reservation["Instances"]]
        named = {machine["InstanceId"]: {tag["Key"]: tag["Value"] for tag in machine["Tags"]} for machine in found}
        return {named[machine["InstanceId"]]["pygrid_name"]: machine for machine in found}

    def images(self) -> list[str]:
        """Ids of the grid's own images."""
        return [image["ImageId"] for image in self.tagged("describe_images", "Images")]

    def place(self, host: str) -> str:
        self.lab.read()
        return self.machines()[host]["InstanceId"]

    def terminate(self, node: str) -> str:
        """Take a machine away behind everybody's back, as a cloud may; returns its id."""
        identity = self.place(node)
        self.ask(lambda ec2: ec2.terminate_instances(InstanceIds=[identity]))
        self.eventually(lambda: identity not in Lab(self.lab.name).hosts)
        return identity

    def probe(self, domain: str, *workers: str) -> None:
        """Let each of the Workers do a job."""
        wanted = shlex.quote(json.dumps({"workers": workers, "seconds": 60}))
        socket = f"--unix-socket /run/pygrid/{domain}/control.sock http://node/control/probe"
        answer = json.loads(self.must(domain, f"curl -s --max-time 90 --json {wanted} {socket}"))
        assert not [result for result in answer["results"] if result["problem"]], answer


def give_back(lab: str) -> None:
    """Take a cloud and its machines away."""
    subprocess.run([*HANDS, lab, "stop"], cwd=CHECKOUT, check=True)
    Lab(lab).down()
