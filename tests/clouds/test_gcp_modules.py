# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gcp_info, gcp_machine and gcp_nat against a double of Google Compute Engine that Google's description checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hands.gcp_books import DEBIAN, PROJECT, Books, Fault, Place
from tests.hands.gcp_server import Google, Identity, running

CHECKOUT = Path(__file__).resolve().parents[2]
REGION, ZONE = "europe-west4", "europe-west4-a"
MARK = {"description": "pygrid_grid=heart: of the test"}
LABELS = {"pygrid_grid": "heart", "pygrid_name": "alice", "team": "cardiology"}
Run = Callable[..., dict[str, Any]]


class Project(Google):
    """A project with a machine, and with things that belong to others."""

    def made(self, scope: str, kind: str, name: str, **body: Any) -> dict[str, Any]:
        """Something that is ready."""
        place = Place(PROJECT, scope, kind, name)
        self.books.insert(f"compute.{kind}.insert", place, {"name": name, **body})
        self.settle()
        return self.books.things[place]

    def settle(self) -> None:
        while self.books._works:
            self.books.settle()

    def machine(self, zone: str, name: str, labels: dict[str, str]) -> dict[str, Any]:
        network = f"projects/{PROJECT}/regions/{zone.rpartition('-')[0]}/subnetworks/here"
        image = f"projects/{DEBIAN}/global/images/debian-12-bookworm-v20260910"
        begin = {"sourceImage": image, "diskType": f"zones/{zone}/diskTypes/pd-balanced"}
        return self.made(
            f"zones/{zone}", "instances", name, labels=labels, machineType=f"zones/{zone}/machineTypes/e2-medium",
            networkInterfaces=[{"subnetwork": network}], disks=[{"boot": True, "initializeParams": begin}],
        )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(Identity(tmp_path / "google"), Books(seconds=0.01))
    network = project.made("global", "networks", "here", **MARK)["selfLink"]
    for number, region in enumerate((REGION, "us-east1")):
        cidr = f"10.{number}.0.0/24"
        project.made(f"regions/{region}", "subnetworks", "here", ipCidrRange=cidr, network=network, **MARK)
    project.machine(ZONE, "alice", LABELS)
    return project


@pytest.fixture
def run(project: Project, tmp_path: Path) -> Iterator[Run]:
    """Run a module as Ansible runs it, with arguments; returns what it says."""
    with running(project) as port:

        def module(name: str, /, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
            words = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local"]
            given = json.dumps({"project": PROJECT, **arguments})
            python = ["-e", f"ansible_python_interpreter={sys.executable}"]
            done = subprocess.run(
                [*words, "-m", f"openmined.pygrid.{name}", "-a", given, *python, *(["--check"] if check else [])],
                cwd=CHECKOUT,
                env={
                    **os.environ,
                    **project.identity.environment(port),
                    "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
                    "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                    "ANSIBLE_NOCOLOR": "1",
                },
                capture_output=True,
                text=True,
                check=False,
            )
            _before, found, told = done.stdout.rpartition(" => {")
            assert found, done.stdout + done.stderr
            return json.loads("{" + told)

        yield module


def changed(project: Project) -> list[str]:
    """What was asked for that changes something, since this was asked last."""
    asked = [method for method in project.asked if method.rpartition(".")[2] not in ("get", "list", "wait")]
    project.asked.clear()
    return [method.rpartition(".")[2] for method in asked]


def test_a_machine_gets_another_type_and_keeps_its_labels(project: Project, run: Run) -> None:
    wanted = {"zone": ZONE, "name": "alice", "machine_type": "e2-standard-4", "state": "running"}
    wanted["labels"] = {"pygrid_resizing": "e2-standard-4"}
    check = run("gcp_machine", check=True, **wanted)
    assert check["changes"] == ["labels", "stopped", "machine type e2-standard-4", "started"], check
    assert changed(project) == []

    assert run("gcp_machine", **wanted)["changed"]
    assert changed(project) == ["setLabels", "stop", "setMachineType", "start"]
    machine = project.books.find(Place(PROJECT, f"zones/{ZONE}", "instances", "alice"))
    assert machine["machineType"].endswith("/e2-standard-4")
    assert (machine["status"], machine["labels"]) == ("RUNNING", {**LABELS, "pygrid_resizing": "e2-standard-4"})

    assert not run("gcp_machine", **wanted)["changed"]
    assert run("gcp_machine", zone=ZONE, name="alice", labels={"pygrid_resizing": ""})["changes"] == ["labels"]
    assert machine["labels"] == LABELS


def test_a_type_that_there_is_not_and_a_start_without_room_are_told(project: Project, run: Run) -> None:
    wanted = {"zone": ZONE, "name": "alice", "state": "running"}
    assert "'e2-huge' does not exist in zone" in run("gcp_machine", machine_type="e2-huge", **wanted)["msg"]
    # It is off now, as the run had to switch it off for this; then Google has no place for it.
    project.books.faults.append(Fault("compute.instances.start", "ZONE_RESOURCE_POOL_EXHAUSTED"))
    assert "ZONE_RESOURCE_POOL_EXHAUSTED" in run("gcp_machine", machine_type="e2-medium", **wanted)["msg"]


def test_an_address_and_a_disk_stay_with_a_machine(project: Project, run: Run) -> None:
    address = project.made(f"regions/{REGION}", "addresses", "alice", **MARK)["address"]
    project.made(f"zones/{ZONE}", "disks", "alice-data", sizeGb="20", labels=LABELS)
    wanted = {"zone": ZONE, "name": "alice", "address": address, "disk": "alice-data"}
    assert run("gcp_machine", **wanted)["changes"] == ["disk alice-data", f"address {address}"]
    assert not run("gcp_machine", **wanted)["changed"]
    machine = project.books.find(Place(PROJECT, f"zones/{ZONE}", "instances", "alice"))
    assert [disk["deviceName"] for disk in machine["disks"]] == ["persistent-disk-0", "pygrid-data"]

    project.machine(ZONE, "bob", {"pygrid_grid": "heart"})
    assert "already being used" in run("gcp_machine", zone=ZONE, name="bob", disk="alice-data")["msg"]


def test_what_is_somebody_elses_is_not_found(project: Project, run: Run) -> None:
    project.machine(ZONE, "other", {"pygrid_grid": "heart-2"})
    project.machine("us-east1-b", "elsewhere", LABELS)
    project.made("global", "networks", "other", description="pygrid_grid=heart-2")
    project.made("global", "networks", "pygrid-heart")
    things = run("gcp_info", region=REGION, grid="heart")["things"]
    assert {kind: [one["name"] for one in found] for kind, found in things.items() if found} == {
        "instances": ["alice"], "networks": ["here"], "subnetworks": ["here"]
    }  # fmt: skip


def test_a_way_out_is_made_once(project: Project, run: Run) -> None:
    network = project.books.of_kind("networks")[0]["selfLink"]
    wanted = {"region": REGION, "name": "pygrid-heart", "network": network, **MARK}
    assert run("gcp_nat", check=True, **wanted)["changes"] == ["router pygrid-heart"]
    assert changed(project) == []
    assert run("gcp_nat", **wanted)["changed"]
    assert not run("gcp_nat", **wanted)["changed"]
    assert changed(project) == ["insert"]
    router = project.books.of_kind("routers")[0]
    assert router["nats"][0]["sourceSubnetworkIpRangesToNat"] == "ALL_SUBNETWORKS_ALL_IP_RANGES"
