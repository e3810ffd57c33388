# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""provision.yml and deprovision.yml against a double that prism checks, as far as they go without a machine that boots.

A whole life of a grid, with machines, is in the scenario cloud_digitalocean.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.clouds.conftest import Authority
from tests.hands.digitalocean_books import DEBIAN, REGION, TOKEN, Books
from tests.support.playbook import Run, killing, run_playbook

CHECKOUT = Path(__file__).resolve().parents[2]
MACHINES = [
    {"role": "network", "size": "s-1vcpu-2gb"},
    {"role": "domain", "name": "alice", "size": "s-2vcpu-4gb"},
    {"role": "worker", "domain": "alice", "size": "s-2vcpu-2gb"},
]


class Account:
    """An account whose machines nobody can log in to, and the folder of somebody's inventory."""

    def __init__(self, books: Books, folder: Path, environment: dict[str, str]) -> None:
        self.books = books
        self.folder = folder
        self.environment = {
            **os.environ, **environment, "DIGITALOCEAN_TOKEN": TOKEN, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")
        }  # fmt: skip

    def play(self, playbook: str, *arguments: str, killed_at: str = "") -> Run:
        command = ["ansible-playbook", "-i", str(self.folder), str(CHECKOUT / "playbooks" / f"{playbook}.yml")]
        more = killing(self.folder.parent / "moments", killed_at) if killed_at else {}
        return run_playbook([*command, *arguments], CHECKOUT, {**self.environment, **more})

    def has(self) -> dict[str, list[str]]:
        """Names of everything that is there, without what an account has from its beginning."""
        books = self.books
        with_names = {
            "droplets": books.droplets, "images": books.images, "volumes": books.volumes, "firewalls": books.firewalls,
            "keys": books.keys, "vpcs": books.vpcs, "projects": books.projects,
        }  # fmt: skip
        found = {kind: sorted(one["name"] for one in things.values()) for kind, things in with_names.items()}
        # Other tags are no grid's.
        tags = [tag for tag in books.tags if "heart" in tag]
        found |= {"tags": sorted(tags), "addresses": sorted(books.addresses)}
        return {kind: sorted(set(names) - set(OWN)) for kind, names in found.items() if set(names) - set(OWN)}


OWN = ["12 x64", "default-fra1", "first-project", "somebody's", "blog"]


@pytest.fixture
def account(tmp_path: Path, digitalocean: tuple[Books, str], authority: Authority) -> Account:
    folder, key = tmp_path / "inventory", tmp_path / "key"
    folder.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (folder / "grid.yml").write_text(yaml.safe_dump({"plugin": "openmined.pygrid.digitalocean", "grids": ["heart"]}))
    variables = {
        "pygrid_cloud": "digitalocean",
        "pygrid_cloud_grid": "heart",
        "pygrid_cloud_region": REGION,
        "pygrid_cloud_zones": [REGION],
        "pygrid_cloud_ssh_key": f"{key}.pub",
        "pygrid_cloud_administrators": ["198.51.100.0/24"],
        "pygrid_cloud_egress": "none",
        "pygrid_machines": MACHINES,
        "pygrid_confirm": True,
    }
    (folder / "vars.yml").write_text(
        yaml.safe_dump({"all": {"vars": variables}, "pygrid": {"vars": {"pygrid_scope": "system"}}})
    )
    books, url = digitalocean
    books.clear()
    return Account(books, folder, {"DIGITALOCEAN_API_URL": url, **authority.surroundings()})


BOOT = "start of: openmined.pygrid.cloud : Wait until it can be logged in to"
ALL_NAMES = {
    "droplets": ["pygrid-heart-alice", "pygrid-heart-alice-w1", "pygrid-heart-net"],
    "volumes": ["pygrid-heart-alice-data", "pygrid-heart-net-data"],
    "firewalls": ["pygrid-heart-domain", "pygrid-heart-network", "pygrid-heart-worker"],
    "vpcs": ["pygrid-heart"],
    "projects": ["pygrid-heart-net"],
}


def test_a_grid_comes_and_goes_whenever_runs_are_killed(account: Account) -> None:
    books = account.books
    books.make_key({}, {"name": "somebody's", "public_key": f"ssh-rsa {'A' * 372}"})
    books.make_tag({}, {"name": "blog"})
    books.make_volume({}, {"name": "blog", "size_gigabytes": 1, "tags": ["blog", "pygrid_grid:lung"]})

    check = account.play("provision", "--check")
    assert check.returncode == 0, check.output[-4000:]
    assert "3 machines to make" in check.output
    assert account.has() == {}

    begun = account.play("provision", killed_at="start of: openmined.pygrid.cloud : Wait until they are")
    assert begun.returncode < 0, begun.output[-6000:]
    begun = account.play("provision", killed_at=BOOT)
    assert begun.returncode < 0, begun.output[-6000:]
    made = account.has()
    assert {kind: made[kind] for kind in ALL_NAMES} == ALL_NAMES, made
    assert len(made["keys"]) == len(made["addresses"]) == 1
    assert next(iter(books.addresses.values()))["droplet"]["name"] == "pygrid-heart-net"
    ours = [one for one in books.volumes.values() if one["name"] != "blog"]
    assert {one["name"]: books.droplets[one["droplet_ids"][0]]["name"] for one in ours} == {
        "pygrid-heart-alice-data": "pygrid-heart-alice",
        "pygrid-heart-net-data": "pygrid-heart-net",
    }
    see_who_may_connect(books)
    ids = [*books.droplets, *books.volumes, *books.firewalls, *books.keys, *books.vpcs, *books.addresses]
    actions = len(books.actions)

    again = account.play("provision", killed_at=BOOT)
    assert "changed: [localhost]" not in again.output, again.output[-6000:]
    assert [*books.droplets, *books.volumes, *books.firewalls, *books.keys, *books.vpcs, *books.addresses] == ids
    assert len(books.actions) == actions, "the second run did something to what is there"

    assert account.play("deprovision", killed_at="start of: openmined.pygrid.cloud : Remove firewalls").returncode < 0
    ended = account.play("deprovision")
    assert ended.returncode == 0, ended.output[-4000:]
    assert "is kept: it holds data" in ended.output
    assert account.has() == {"volumes": ALL_NAMES["volumes"], "tags": ["pygrid_grid:heart"]}
    assert account.play("deprovision").changed == 0
    ended = account.play("deprovision", "-e", "pygrid_deprovision_data=true")
    assert account.has() == {}, ended.output[-4000:]
    assert len(books.keys) == len(books.volumes) == 1
    assert {"blog", "pygrid_grid:lung", "pygrid_role:worker"} <= set(books.tags)


def see_who_may_connect(books: Books) -> None:
    """Machines of a kind let in whom the firewalls of these machines let in, and reach what the egress says."""
    rules = {
        (one["name"], rule["ports"], source)
        for one in books.firewalls.values()
        for rule in one["inbound_rules"]
        for source in rule["sources"].get("tags", []) + rule["sources"].get("addresses", [])
    }
    groups = [f"pygrid-heart-{kind}" for kind in ("network", "domain", "worker")]
    ssh = {(group, "22", source) for group in groups for source in ("pygrid-heart-network", "198.51.100.0/24")}
    assert ssh <= rules
    assert {rule for rule in rules - ssh if rule[0] == "pygrid-heart-worker"} == set()
    assert ("pygrid-heart-domain", "5432", "pygrid-heart-worker") in rules
    assert [one["tags"] for one in books.firewalls.values()] == [[one["name"]] for one in books.firewalls.values()]
    out = {
        one["name"]: {address for rule in one["outbound_rules"] for address in rule["destinations"]["addresses"]}
        for one in books.firewalls.values()
    }
    everywhere, inside = {"0.0.0.0/0", "::/0"}, {"10.20.0.0/16"}
    assert out == {"pygrid-heart-network": everywhere, "pygrid-heart-domain": inside, "pygrid-heart-worker": inside}
    droplets = {one["name"]: one["tags"] for one in books.droplets.values()}
    assert "pygrid-heart-worker" in droplets["pygrid-heart-alice-w1"]


# What resize.yml and image.yml let the cloud do, when a machine has been stopped cleanly or prepared.
DEEDS = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    __cloud_resize: {id: "{{ droplet }}", wanted: s-4vcpu-8gb}
    __cloud_made: {image: {id: "{{ droplet }}"}}
  tasks:
    - ansible.builtin.add_host: {name: image-plan, __cloud_image_of: "{{ 'x' | hash('sha256') }}"}
    - ansible.builtin.include_role: {name: openmined.pygrid.cloud, tasks_from: digitalocean/resize}
      vars: {_size: s-4vcpu-8gb}
    - ansible.builtin.include_role: {name: openmined.pygrid.cloud, tasks_from: digitalocean/resized}
      when: not killed
    - when: not killed
      block:
        - ansible.builtin.include_role: {name: openmined.pygrid.cloud, tasks_from: images}
          vars: {cloud_for_image: true}
        - ansible.builtin.include_role: {name: openmined.pygrid.cloud, tasks_from: digitalocean/image_make}
        - ansible.builtin.include_role: {name: openmined.pygrid.cloud, tasks_from: digitalocean/remove_machines}
          vars: {_machines: [{id: "{{ droplet }}"}]}
"""


@pytest.mark.thorough
def test_a_machine_gets_another_size_and_becomes_an_image(account: Account) -> None:
    books = account.books
    books.make_droplet({}, {"name": "pygrid-heart-w", "region": REGION, "size": "s-2vcpu-2gb", "image": DEBIAN})
    ((identity, droplet),) = books.droplets.items()
    playbook = account.folder.parent / "deeds.yml"
    playbook.write_text(DEEDS)
    inventory = str(account.folder / "vars.yml")

    def run(killed: bool) -> Run:
        extra = json.dumps({"droplet": identity, "killed": killed})
        return run_playbook(
            ["ansible-playbook", "-i", inventory, str(playbook), "-e", extra], CHECKOUT, account.environment
        )

    begun = run(killed=True)
    assert begun.returncode == 0, begun.output[-4000:]
    assert (droplet["size_slug"], droplet["status"], droplet["tags"]) == ("s-4vcpu-8gb", "active", ["pygrid_resizing"])
    done = run(killed=False)
    assert done.returncode == 0, done.output[-4000:]
    assert droplet["tags"] == []
    (image,) = (one for one in books.images.values() if not one["public"])
    assert re.fullmatch(r"pygrid-heart-[0-9a-f]{12}-\d{8}-\d{6}", image["name"])
    assert {tag.partition(":")[0] for tag in image["tags"]} == {"pygrid_grid", "pygrid_image_of", "pygrid_image_base"}
    assert f"pygrid_image_base:{DEBIAN}" in image["tags"]
    assert not books.droplets


@pytest.mark.thorough
def test_a_quota_leaves_no_machine(account: Account) -> None:
    account.books.droplet_limit = 1
    run = account.play("provision", "-e", "pygrid_cloud_egress=nat")
    assert run.returncode != 0
    assert "will exceed your droplet limit" in run.output, run.output[-6000:]
    assert "those that this run had made were removed again" in run.output
    assert "NAT gateway" not in run.output
    assert "droplets" not in account.has()


def test_what_digitalocean_cannot_have_is_refused_before_anything_is_made(account: Account) -> None:
    wrong = (
        '{"pygrid_cloud_zones": ["a", "b"], "pygrid_machines": [{"role": "domain", "name": "Alice.b", "size": "x"},'
        ' {"role": "worker", "domain": "Alice.b", "size": "x", "spot": true}]}'
    )
    run = account.play("provision", "-e", wrong)
    assert run.returncode != 0
    for sentence in ("'Alice.b' is no name for DigitalOcean", "DigitalOcean has no such machines", "has to be [fra1]"):
        assert sentence in run.output, run.output[-4000:]
    assert account.has() == {}
