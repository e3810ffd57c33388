# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid in a cloud with hands (tests/hands), for tests that go through its whole life."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml

from tests.lab.lab import Lab
from tests.lab.machine import network_of
from tests.support.intranet import CHECKOUT, Intranet

HANDS = [sys.executable, "-m", "tests.hands", "--lab"]
GRID = "heart"


@dataclass(frozen=True)
class Made:
    """A machine as its cloud tells of it. ``image``: what it was made from; ``public``: its address, or ""."""

    id: str
    size: str
    image: str
    public: str
    zone: str
    tags: Mapping[str, str]


class CloudGrid(Intranet):
    """A grid whose hosts are called after their nodes and are machines of a cloud; a subclass for each kind of cloud.

    Args:
        lab: name of the lab that is the cloud; the controller stands in its network, with an inventory in its folder.
        machines: what pygrid_machines of that inventory says; None for a grid with alice, bob and their Workers.
    """

    #: Name of the cloud, for the inventory plugin, the role cloud and tests/hands.
    CLOUD: str
    #: Three sizes: for a Network or a Worker, for a Domain, and a larger one.
    SIZES: tuple[str, str, str]
    #: What the inventory's source says beside the plugin and the grid.
    SOURCE: ClassVar[dict[str, Any]]
    #: Variables that say where machines are made.
    VARIABLES: ClassVar[dict[str, Any]]
    #: Who may log in to a new machine.
    LOGIN: str

    def __init__(self, lab: str, machines: list[dict[str, Any]] | None = None) -> None:
        folder = Lab(lab).folder / "inventory"
        super().__init__(lab, folder, folder / ".pygrid" / "pki")
        self.folder = folder
        done = subprocess.run(
            [*HANDS, lab, "start", self.CLOUD], cwd=CHECKOUT, capture_output=True, text=True, check=True
        )
        self.environment: dict[str, str] = json.loads(done.stdout)
        self.lab = Lab(lab)
        with self.inside_network():
            self.open()
        self.write_inventory(self.usual_machines() if machines is None else machines)

    def open(self) -> None:
        """Begin to talk to the API."""
        raise NotImplementedError

    @contextmanager
    def watched(self) -> Iterator[CloudGrid]:
        """While it is used, write down what beyond_rights() has to know."""
        yield self

    def beyond_rights(self) -> list[str]:
        """What playbooks asked for beyond the rights that the docs name; [] where a cloud has one role for all."""
        return []

    def cidr(self) -> str:
        """The grid's own network: the lab's, or a part of it."""
        return f"{self.lab.subnet}.0/24"

    def machines(self) -> dict[str, Made]:
        """The machines of the grid that exist, by the names of their nodes."""
        raise NotImplementedError

    def images(self) -> list[str]:
        """Ids of the grid's own images."""
        raise NotImplementedError

    def data_volumes(self) -> list[str]:
        """The hosts of whom there are volumes with data."""
        raise NotImplementedError

    def left(self) -> list[str]:
        """Kinds of things of the grid that are there, beside machines, images and volumes with data."""
        raise NotImplementedError

    def openings(self) -> set[tuple[str, int, str]]:
        """Who may open connections in the cloud's network: kind of node, port, and a kind of node or a CIDR."""
        raise NotImplementedError

    def take_away(self, machine: str) -> None:
        """Let the cloud take a machine away behind everybody's back, by its id."""
        raise NotImplementedError

    def usual_machines(self) -> list[dict[str, Any]]:
        small, medium, _large = self.SIZES
        return [
            {"role": "network", "size": small},
            {"role": "domain", "name": "alice", "size": medium, "data_disk": 30},
            {"role": "domain", "name": "bob", "size": medium},
            {"role": "worker", "domain": "alice", "size": small},
            {"role": "worker", "domain": "bob", "size": small},
        ]

    def inside_network(self) -> Any:
        """Let this thread open its connections where the API is."""
        return network_of(self.lab.network.namespace)

    def write_inventory(self, machines: list[dict[str, Any]], **variables: Any) -> None:
        """The folder that a person would have filled in."""
        self.wanted = machines
        self.folder.mkdir(parents=True, exist_ok=True)
        key = self.folder.parent / "administrator"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        source = {"plugin": f"openmined.pygrid.{self.CLOUD}", "grids": [GRID], **self.SOURCE}
        (self.folder / "grid.yml").write_text(yaml.safe_dump(source))
        trust = f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={self.folder.parent / 'known_hosts'}"
        everywhere = {
            "pygrid_cloud": self.CLOUD,
            "pygrid_cloud_grid": GRID,
            **self.VARIABLES,
            "pygrid_cloud_cidr": self.cidr(),
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
            "ansible_user": self.LOGIN,
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

    def place(self, host: str) -> str:
        self.lab.read()
        return self.machines()[host].id

    def terminate(self, node: str) -> str:
        """Like take_away(), by the node; returns the id of the machine when it is gone."""
        machine = self.place(node)
        self.take_away(machine)
        self.eventually(lambda: machine not in Lab(self.lab.name).hosts)
        return machine

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
