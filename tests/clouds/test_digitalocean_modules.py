# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules for DigitalOcean against a double that prism checks: once, again, in check mode, and when it says no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.conftest import Authority
from tests.hands.digitalocean_books import DEBIAN, REGION, TOKEN, Books

CHECKOUT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6XcTvp0Lk1y6WZ5a7y9mJq2d5tHc8F3b0n1v4w5x6y"


class Machines:
    """An account with two Droplets, and modules that look at it."""

    def __init__(self, books: Books, environment: dict[str, str]) -> None:
        self.books = books
        self.environment = environment
        for name in ("a", "b"):
            wanted = {"name": name, "region": REGION, "size": "s-2vcpu-2gb", "image": DEBIAN}
            books.make_droplet({}, wanted)
        books.delay_seconds = 0
        for _when, effect in books._pending:
            effect()
        books._pending.clear()
        books.delay_seconds = 0.2
        self.first, self.second = books.droplets

    def run(self, module: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
        """What a module says; its arguments as a playbook would have them."""
        collection = CHECKOUT / "collections"
        program = f"ansible_collections.openmined.pygrid.plugins.modules.digitalocean_{module}"
        document = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check}}
        done = subprocess.run(
            [sys.executable, "-m", program],
            input=json.dumps(document),
            env={**self.environment, "PYTHONPATH": str(collection)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def twice(self, module: str, **arguments: Any) -> dict[str, Any]:
        """What a module says that changes something, after check mode, and then nothing any more."""
        before = json.dumps([*self.books.droplets.values(), *self.books.volumes.values(), *self.books.tags])
        assert self.run(module, check=True, **arguments)["changed"]
        assert json.dumps([*self.books.droplets.values(), *self.books.volumes.values(), *self.books.tags]) == before
        done = self.run(module, **arguments)
        assert done.get("changed"), done
        again = self.run(module, **arguments)
        assert again["changed"] is False, again
        return again


@pytest.fixture
def machines(digitalocean: tuple[Books, str], authority: Authority) -> Machines:
    books, url = digitalocean
    books.clear()
    more = {"DIGITALOCEAN_API_URL": url, "DIGITALOCEAN_TOKEN": TOKEN, **authority.surroundings()}
    return Machines(books, {**os.environ, **more})


def test_a_droplet_gets_another_size_and_its_former_one_again(machines: Machines) -> None:
    droplet = machines.books.droplets[machines.first]
    larger = machines.twice("power", id=machines.first, size="s-4vcpu-8gb", state="running")["droplet"]
    assert (larger["size_slug"], larger["status"], larger["memory"]) == ("s-4vcpu-8gb", "active", 8192)
    assert [one["type"] for one in machines.books.actions.values()][-3:] == ["shutdown", "resize", "power_on"]
    machines.twice("power", id=machines.first, size="s-2vcpu-2gb", state="running")
    assert droplet["size_slug"] == "s-2vcpu-2gb"

    refused = machines.run("power", id=machines.first, size="s-1vcpu-1gb", state="running")
    assert "smaller disk" in refused["msg"]
    assert droplet["status"] == "off", "whoever asked for it goes on from here"
    machines.run("power", id=machines.first, size="s-2vcpu-2gb", state="running")
    assert droplet["status"] == "active"


def test_power_is_cut_when_a_droplet_does_not_shut_down(machines: Machines) -> None:
    machines.books.deaf.add(machines.first)
    done = machines.run("power", id=machines.first, state="stopped", shutdown_seconds=1)
    assert done["droplet"]["status"] == "off"
    assert [one["type"] for one in machines.books.actions.values()][-2:] == ["shutdown", "power_off"]


def test_a_volume_follows_its_machine_and_grows(machines: Machines) -> None:
    wanted = {"name": "data", "region": REGION, "size": 5, "tags": ["pygrid_data_of:alice"]}
    made = machines.twice("volume", **wanted, droplet=machines.first)["volume"]
    assert (made["droplet_ids"], made["tags"]) == ([machines.first], ["pygrid_data_of:alice"])
    moved = machines.twice("volume", **{**wanted, "size": 7}, droplet=machines.second)["volume"]
    assert (moved["droplet_ids"], moved["size_gigabytes"], moved["id"]) == ([machines.second], 7, made["id"])
    assert machines.run("volume", **{**wanted, "size": 6}, droplet=machines.second)["changed"] is False
    machines.twice("volume", name="data", region=REGION, state="absent")
    assert not machines.books.volumes


def test_an_address_follows_its_node(machines: Machines) -> None:
    wanted = {"name": "pygrid-heart-net", "description": "pygrid_grid:heart", "region": REGION}
    made = machines.twice("address", **wanted, droplet=machines.first)["address"]
    moved = machines.twice("address", **wanted, droplet=machines.second)["address"]
    assert made == moved
    (address,) = machines.books.addresses.values()
    assert address["droplet"]["id"] == machines.second
    # A run that was killed after the project and after the address.
    address["droplet"] = None
    assert machines.run("address", **wanted, droplet=machines.first)["address"] == made
    machines.twice("address", name=wanted["name"], state="absent")
    assert not machines.books.addresses
    assert [one["name"] for one in machines.books.projects.values()] == ["first-project"]


def test_an_image_that_a_killed_run_has_not_tagged_is_tagged(machines: Machines) -> None:
    wanted = {"name": "image", "droplet": machines.first, "tags": ["pygrid_grid:heart", "pygrid_image_of:x"]}
    made = machines.twice("image", **wanted)["id"]
    machines.books.images[int(made)]["tags"] = []
    assert machines.twice("image", **wanted)["id"] == made
    assert machines.books.images[int(made)]["tags"] == wanted["tags"]


def test_a_key_of_somebody_is_used_and_not_removed(machines: Machines) -> None:
    machines.books.make_key({}, {"name": "laptop", "public_key": f"{KEY} me@laptop"})
    (identity,) = machines.books.keys
    assert machines.run("key", name="pygrid-heart", public_key=KEY) == {
        "changed": False,
        "id": str(identity),
        "invocation": {"module_args": machines_arguments(machines, name="pygrid-heart", public_key=KEY)},
    }
    assert machines.run("key", name="pygrid-heart", state="absent")["changed"] is False
    machines.run("key", name="laptop", state="absent")
    assert not machines.books.keys
    machines.twice("key", name="pygrid-heart", public_key=KEY)


def machines_arguments(machines: Machines, **given: Any) -> dict[str, Any]:
    """What a module says that it was told: no token."""
    hidden = {"token": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER", "endpoint": machines.environment["DIGITALOCEAN_API_URL"]}
    return {"state": "present", **hidden, **given}


def test_all_pages_are_listed(machines: Machines) -> None:
    for number in range(250):
        machines.books.canonical(f"tag-{number}")
    found = machines.run("info", kinds=["tag", "machine"], image=DEBIAN)["found"]
    assert (len(found["tag"]), [one["name"] for one in found["machine"]]) == (250, ["a", "b"])
    assert found["base"][0]["slug"] == DEBIAN
    assert machines.run("info", image="no-such-image")["found"]["base"] == []


def test_what_the_cloud_says_is_said(machines: Machines) -> None:
    machines.environment["DIGITALOCEAN_TOKEN"] = "another"
    refused = machines.run("info", kinds=["tag"])
    assert refused["failed"]
    assert "Unable to authenticate you" in refused["msg"]
    machines.environment["DIGITALOCEAN_TOKEN"] = ""
    assert "DIGITALOCEAN_TOKEN" in machines.run("info", kinds=["tag"])["msg"]
