# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""provision.yml and deprovision.yml against a double of Google Compute Engine that Google's description checks.

As far as they go without a machine that boots. The whole life of a grid, with machines, is in the scenario cloud_gcp.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hands.gcp_books import PROJECT, Books, Fault
from tests.hands.gcp_server import Google, Identity, running
from tests.support.playbook import Run, killing, run_playbook

CHECKOUT = Path(__file__).resolve().parents[2]
REGION = "europe-west4"
MACHINES = [
    {"role": "network", "size": "e2-medium"},
    {"role": "domain", "name": "alice", "size": "e2-standard-2"},
    {"role": "worker", "domain": "alice", "size": "e2-medium", "spot": True},
]
READING = ("get", "list", "aggregatedList", "wait")
NETWORK = {"networks": 1, "subnetworks": 1, "routers": 1, "firewalls": 6}
WHOLE = {**NETWORK, "instances": 3, "disks": 3 + 2, "addresses": 1}


class Project:
    """An empty project, and the folder of somebody's inventory. Its machines never let anybody in."""

    def __init__(self, google: Google, environment: dict[str, str], folder: Path) -> None:
        self.google, self.books, self.folder = google, google.books, folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")},
            **environment,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        }

    def play(self, playbook: str, *arguments: str, killed_at: str = "") -> Run:
        command = ["ansible-playbook", "-i", str(self.folder), str(CHECKOUT / "playbooks" / f"{playbook}.yml")]
        more = killing(self.folder.parent / "moments", killed_at) if killed_at else {}
        return run_playbook([*command, *arguments], CHECKOUT, {**self.environment, **more})

    def must_play(self, playbook: str, *arguments: str) -> Run:
        run = self.play(playbook, *arguments)
        assert run.returncode == 0, run.output[-6000:]
        return run

    def has(self) -> dict[str, int]:
        """How many things of each kind there are."""
        self.books.settle()
        return dict(Counter(place.kind for place in self.books.things if place.project == PROJECT))

    def machine(self, node: str) -> dict[str, Any]:
        machines = self.books.of_kind("instances")
        return next(one for one in machines if one["labels"]["pygrid_name"] == node)

    def changes(self) -> list[str]:
        """What was asked for that changes something, since this was asked last."""
        asked = [method for method in self.google.asked if method.split(".")[2] not in READING]
        self.google.asked.clear()
        return asked


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    folder, key = tmp_path / "inventory", tmp_path / "key"
    folder.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (folder / "grid.yml").write_text(yaml.safe_dump({"plugin": "openmined.pygrid.gcp", "grids": ["heart"]}))
    variables = {
        "pygrid_cloud": "gcp",
        "pygrid_cloud_grid": "heart",
        "pygrid_cloud_region": REGION,
        "pygrid_cloud_zones": [f"{REGION}-a", f"{REGION}-b"],
        "pygrid_cloud_ssh_key": f"{key}.pub",
        "pygrid_cloud_administrators": ["192.0.2.0/24"],
        # A machine that does not boot is taken back: here only those that a killed run has made stay.
        "pygrid_cloud_boot_seconds": 1,
        "pygrid_machines": MACHINES,
        "pygrid_confirm": True,
    }
    nodes = {"pygrid_scope": "system", "ansible_ssh_common_args": "-o ConnectTimeout=1"}
    (folder / "vars.yml").write_text(yaml.safe_dump({"all": {"vars": variables}, "pygrid": {"vars": nodes}}))
    identity = Identity(tmp_path / "google")
    google = Google(identity, Books(seconds=0.1))
    with running(google) as port:
        yield Project(google, identity.environment(port), folder)


def test_killed_runs_leave_nothing_that_others_do_not_find(project: Project) -> None:
    check = project.must_play("provision", "--check")
    assert "3 machines to make" in check.output
    assert project.has() == {}

    assert project.play("provision", killed_at="start of: openmined.pygrid.cloud : Have the volumes").returncode < 0
    assert project.has() == {**WHOLE, "disks": 3}
    # The machines of a run that was killed are not this one's, and so are not taken back.
    again = project.play("provision")
    assert "They were there before and stay as they are" in again.output, again.output[-4000:]
    assert project.has() == WHOLE
    machines = {node: project.machine(node) for node in ("net", "alice", "alice-w1")}
    assert [node for node, one in machines.items() if "accessConfigs" in one["networkInterfaces"][0]] == ["net"]
    assert (
        machines["net"]["networkInterfaces"][0]["accessConfigs"][0]["natIP"]
        == (project.books.of_kind("addresses")[0]["address"])
    )
    assert [disk["deviceName"] for disk in machines["alice"]["disks"]] == ["persistent-disk-0", "pygrid-data"]
    assert [one["scheduling"]["preemptible"] for one in machines.values()] == [False, False, True]

    project.changes()
    more = project.play("provision", "-e", '{"pygrid_cloud_administrators": ["198.51.100.0/24"]}')
    # SSH to each kind of node: what others are open for stays as it is.
    assert sorted(project.changes()) == ["compute.firewalls.delete"] * 3 + ["compute.firewalls.insert"] * 3
    assert not [rule for rule in project.books.of_kind("firewalls") if "192.0.2.0/24" in rule.get("sourceRanges", [])]
    assert more.recap["localhost"] == 2, more.output[-4000:]

    assert project.play("deprovision", killed_at="start of: openmined.pygrid.cloud : Give addresses").returncode < 0
    ended = project.must_play("deprovision")
    assert "is kept: it holds data" in ended.output
    assert project.has() == {"disks": 2}


def test_a_zone_without_room_a_quota_and_names_that_google_does_not_have(project: Project) -> None:
    wrong = project.play("provision", "-e", "pygrid_cloud_grid=Heart")
    assert wrong.returncode != 0
    assert "pygrid_cloud_grid: 'Heart' cannot be in names and labels of Google" in wrong.output, wrong.output[-4000:]
    assert project.has() == {}

    insert = "compute.instances.insert"
    project.books.faults += [
        Fault(insert, "ZONE_RESOURCE_POOL_EXHAUSTED", f"{REGION}-a/instances/pygrid-heart-net"),
        Fault(insert, "QUOTA_EXCEEDED", "instances/pygrid-heart-alice-w1"),
    ]
    project.changes()
    run = project.play("provision")
    assert run.returncode != 0
    assert "alice-w1 (e2-medium, tried in " in run.output, run.output[-4000:]
    assert "QUOTA_EXCEEDED" in run.output
    assert "net (e2-medium" not in run.output, "the other zone has room for it"
    assert project.changes().count(insert) == 4
    # What this run had made is removed again, and nothing of it stays; the network does.
    assert project.has() == NETWORK
