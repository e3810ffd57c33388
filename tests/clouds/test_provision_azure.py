# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""provision.yml and deprovision.yml on Azure, as far as they go without a machine that boots.

The API is tests/hands/azure_server.py, which Microsoft's SDK keeps honest. A whole life, with machines: cloud_azure.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clouds.conftest import Authority
from tests.hands import azure_server
from tests.hands.azure_server import (
    DISK,
    LOCATION,
    NET,
    NIC,
    NSG,
    SECRET,
    SUBSCRIPTION,
    VM,
    Azure,
    Refused,
    serve,
)  # fmt: skip
from tests.support.playbook import Run, killing, run_playbook
from tests.support.unruly import Request, UnrulyProxy

CHECKOUT = Path(__file__).resolve().parents[2]
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/pygrid-heart"
NETWORK = {
    "virtualNetworks": 1, "natGateways": 1, "publicIPAddresses": 1, "applicationSecurityGroups": 3,
    "networkSecurityGroups": 3,
}  # fmt: skip
MACHINES = [
    {"role": "network", "size": "Standard_B2als_v2"},
    {"role": "domain", "name": "Alice", "size": "Standard_B2als_v2"},
]


class Account:
    """A subscription with nothing in it, whose machines never boot, and the folder of somebody's inventory."""

    def __init__(self, azure: Azure, proxy: UnrulyProxy, authority: Authority, folder: Path) -> None:
        self.azure = azure
        self.proxy = proxy
        self.folder = folder
        self.environment = {
            **os.environ,
            **authority.surroundings(),
            "AZURE_RESOURCE_MANAGER_URL": proxy.url,
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "IDENTITY_ENDPOINT": f"{proxy.url}/token",
            "IDENTITY_HEADER": SECRET,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        }

    def play(self, playbook: str, *arguments: str, killed_at: str = "") -> Run:
        command = ["ansible-playbook", "-i", str(self.folder), str(CHECKOUT / "playbooks" / f"{playbook}.yml")]
        more = killing(self.folder.parent / "moments", killed_at) if killed_at else {}
        return run_playbook([*command, *arguments], CHECKOUT, {**self.environment, **more})

    def play_tasks(self, *tasks: tuple[str, dict[str, Any]]) -> Run:
        """Run files of tasks of the role cloud, each with its variables."""
        role = {"name": "openmined.pygrid.cloud", "rolespec_validate": False}
        steps = [
            {"ansible.builtin.include_role": {**role, "tasks_from": f"azure/{name}"}, "vars": more}
            for name, more in tasks
        ]
        playbook = self.folder.parent / "tasks.yml"
        playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": steps}]))
        command = ["ansible-playbook", "-i", str(self.folder), str(playbook)]
        return run_playbook(command, CHECKOUT, self.environment)

    def put(self, kind: str, name: str, **body: Any) -> str:
        """Have something in the books; returns its id."""
        identity = f"{GROUP}/providers/{kind}/{name}"
        with self.azure.lock:
            self.azure.put(kind, identity, {"location": LOCATION, "tags": {"pygrid_grid": "heart"}, **body}, "")
        return identity

    def machine(self, name: str) -> dict[str, Any]:
        """A machine as the books have it, with what it does as ``power``."""
        key = f"{GROUP}/providers/{VM}/{name}".lower()
        with self.azure.lock:
            self.azure.settle()
            return {**self.azure.things[key], "power": self.azure.power[key]}

    def has(self) -> dict[str, int]:
        """How many things of each kind there are."""
        with self.azure.lock:
            self.azure.settle()
            return dict(Counter(kind.rpartition("/")[2] for kind in self.azure.kinds.values()))

    def openings(self) -> set[tuple[str, str, str]]:
        """Who may open connections: kind of node, port, and a kind of node or a CIDR."""
        with self.azure.lock:
            groups = {one["name"]: one["properties"]["securityRules"] for one in self.azure.of(NSG)}
        found = set()
        for name, rules in groups.items():
            for rule in (one["properties"] for one in rules if one["properties"]["access"] == "Allow"):
                kinds = [one["id"].rpartition("-")[2] for one in rule.get("sourceApplicationSecurityGroups") or []]
                sources = kinds or [rule["sourceAddressPrefix"]]
                found |= {(name.rpartition("-")[2], rule["destinationPortRange"], source) for source in sources}
        return found

    def ids(self) -> set[str]:
        with self.azure.lock:
            return {one["properties"]["vmId"] for one in self.azure.things.values() if "vmId" in one["properties"]}


@pytest.fixture
def account(tmp_path: Path, authority: Authority) -> Iterator[Account]:
    folder, key = tmp_path / "inventory", tmp_path / "key"
    folder.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (folder / "grid.yml").write_text(yaml.safe_dump({"plugin": "openmined.pygrid.azure", "grids": ["heart"]}))
    variables: dict[str, Any] = {
        "pygrid_cloud": "azure",
        "pygrid_cloud_grid": "heart",
        "pygrid_cloud_region": LOCATION,
        "pygrid_cloud_zones": ["1", "2"],
        "pygrid_cloud_cidr": "198.18.0.0/24",
        "pygrid_cloud_ssh_key": f"{key}.pub",
        "pygrid_cloud_administrators": ["198.51.100.0/24"],
        "pygrid_cloud_boot_seconds": 1,
        "pygrid_machines": MACHINES,
        "pygrid_confirm": True,
    }
    # Nobody is asked: there is none.
    nodes = {"pygrid_scope": "system", "ansible_user": "azureuser", "ansible_ssh_executable": "/bin/false"}
    (folder / "vars.yml").write_text(yaml.safe_dump({"all": {"vars": variables}, "pygrid": {"vars": nodes}}))
    azure = Azure()
    listener = serve(azure, "127.0.0.1", 0, None)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    with UnrulyProxy(("127.0.0.1", listener.server_address[1]), tls=authority.context).running() as proxy:
        yield Account(azure, proxy, authority, folder)
    listener.shutdown()


def test_killed_runs_leave_nothing_that_is_made_twice_or_not_found(account: Account) -> None:
    check = account.play("provision", "--check")
    assert check.returncode == 0, check.output[-4000:]
    assert "2 machines to make" in check.output
    assert account.has() == {}

    moment = "start of: openmined.pygrid.cloud : Have the volumes of their data"
    killed = account.play("provision", killed_at=moment)
    assert killed.returncode < 0, killed.output[-4000:]
    assert account.has() == {
        **NETWORK, "publicIPAddresses": 2, "virtualMachines": 2, "networkInterfaces": 2, "disks": 2
    }  # fmt: skip
    made = account.ids()
    assert {opening for opening in account.openings() if opening[1] != "22"} == {
        ("network", "443", "0.0.0.0/0"), ("network", "443", "domain"), ("domain", "443", "0.0.0.0/0"),
        ("domain", "443", "network"), ("domain", "443", "worker"), ("domain", "5500", "worker"),
        ("domain", "5432", "worker"), ("network", "443", "::/0"), ("domain", "443", "::/0"),
    }  # fmt: skip
    ssh = [
        (kind, "22", source) for kind in ("network", "domain", "worker") for source in ("network", "198.51.100.0/24")
    ]
    assert set(ssh) == {opening for opening in account.openings() if opening[1] == "22"}

    # Only the volumes were missing. Nobody can log in to the machines; since they were there before, they stay.
    run = account.play("provision")
    assert "They were there before and stay as they are" in run.output, run.output[-4000:]
    assert run.recap["localhost"] == 1, run.output[-4000:]
    assert account.ids() == made
    assert account.has()["disks"] == 4

    moment = "start of: openmined.pygrid.cloud : Remove things: address"
    killed = account.play("deprovision", killed_at=moment)
    assert killed.returncode < 0, killed.output[-4000:]
    ended = account.play("deprovision")
    assert ended.returncode == 0, ended.output[-4000:]
    assert account.has() == {"disks": 2}
    assert account.play("deprovision", "-e", "pygrid_deprovision_data=true").returncode == 0
    assert (account.has(), account.azure.groups) == ({}, {})


def test_the_double_takes_what_the_sdk_knows_and_nothing_else(account: Account) -> None:
    account.azure.groups["pygrid-heart"] = {"id": GROUP, "name": "pygrid-heart", "location": LOCATION, "tags": {}}
    with pytest.raises(Refused, match="VirtualNetworkPropertiesFormat has no addresSpace"):
        account.put(NET, "typo", properties={"addresSpace": {}})
    with pytest.raises(Refused, match="no int"):
        account.put(DISK, "text", properties={"diskSizeGB": "30"})
    with pytest.raises(Refused, match="which is none of"):
        account.put(DISK, "word", properties={"creationData": {"createOption": "Full"}})
    assert account.has() == {}


def test_without_a_subscription_nothing_is_begun(account: Account) -> None:
    del account.environment["AZURE_SUBSCRIPTION_ID"]
    source = {"plugin": "openmined.pygrid.azure", "grids": ["heart"], "subscriptions": [SUBSCRIPTION]}
    (account.folder / "grid.yml").write_text(yaml.safe_dump(source))
    run = account.play("provision")
    assert "AZURE_SUBSCRIPTION_ID is not set" in run.output, run.output[-4000:]
    assert (account.has(), account.azure.groups) == ({}, {})


@pytest.mark.thorough
def test_what_is_being_removed_is_not_there(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.azure.groups["pygrid-heart"] = {"id": GROUP, "name": "pygrid-heart", "location": LOCATION, "tags": {}}
    body = {"location": LOCATION, "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 5}}
    disk = account.put(DISK, "d", **body)
    monkeypatch.setattr(azure_server, "BEGIN_SECONDS", 3600)
    with account.azure.lock:
        account.azure.settle()
        account.azure.thing("DELETE", DISK, disk, [], {}, "")
    monkeypatch.setattr(azure_server, "BEGIN_SECONDS", 0.4)
    asked = []

    def choose(request: Request) -> None:
        """Let it be gone when it was asked for twice."""
        asked.append(request.path.startswith(disk))
        if sum(asked) == 2:
            with account.azure.lock:
                account.azure.pending = {key: (0, then) for key, (_done, then) in account.azure.pending.items()}

    account.proxy.choose = choose
    arguments = json.dumps({"resources": [{"id": disk, "keep": True, "body": body}]})
    command = ["ansible", "localhost", "-m", "openmined.pygrid.azure_resource", "-a", arguments]
    run = run_playbook(command, CHECKOUT, account.environment)
    assert "CHANGED" in run.output, run.output[-4000:]
    assert account.has() == {"disks": 1}


@pytest.mark.thorough
def test_another_zone_is_tried_and_machines_that_nobody_can_log_in_to_are_removed(account: Account) -> None:
    small = {"size": "Standard_B2als_v2"}
    worker = {
        "role": "worker", "domain": "Alice", **small, "zones": ["1", "2"], "spot": True, "public": True,
        "tags": {"hands": "no-room-in-1"},
    }  # fmt: skip
    run = account.play("provision", "-e", json.dumps({"pygrid_machines": [*MACHINES, worker]}))
    assert "item=Alice-w1 in 1" in run.output, run.output[-4000:]
    assert "item=Alice-w1 in 2" in run.output, run.output[-4000:]
    assert re.search(r"Alice-w1 \([0-9a-f-]{36}\): ", run.output), run.output[-4000:]
    assert "They were removed again" in run.output
    # The address of the Worker went with its machine, that of the Network stays, as do volumes.
    assert account.has() == {**NETWORK, "publicIPAddresses": 2, "disks": 2}
    asked = [json.loads(one.body) for one in account.proxy.requests if one.method == "PUT" and f"/{VM}/" in one.path]
    assert [one["zones"] for one in asked if one["properties"].get("priority") == "Spot"] == [["1"], ["2"]]


@pytest.fixture
def alice(account: Account) -> str:
    """A machine that is there; returns what Azure calls it."""
    account.azure.groups["pygrid-heart"] = {"id": GROUP, "name": "pygrid-heart", "location": LOCATION, "tags": {}}
    subnet = {"name": "in", "properties": {"addressPrefix": "198.18.0.0/25"}}
    space = {"addressSpace": {"addressPrefixes": ["198.18.0.0/24"]}, "subnets": [subnet]}
    network = account.put(NET, "pygrid-heart", properties=space)
    place = {"name": "main", "properties": {"subnet": {"id": f"{network}/subnets/in"}}}
    interface = account.put(NIC, "pygrid-heart-alice", properties={"ipConfigurations": [place]})
    keys = [{"path": "/home/azureuser/.ssh/authorized_keys", "keyData": "ssh-ed25519 AAAA"}]
    image = {"publisher": "Debian", "offer": "debian-12", "sku": "12", "version": "0.20260901.2222"}
    disk = {"name": "pygrid-heart-alice-os", "createOption": "FromImage", "deleteOption": "Delete"}
    properties = {
        "hardwareProfile": {"vmSize": "Standard_B2als_v2"},
        "storageProfile": {"imageReference": image, "osDisk": disk},
        "osProfile": {
            "computerName": "alice",
            "adminUsername": "azureuser",
            "linuxConfiguration": {"ssh": {"publicKeys": keys}},
        },
        "networkProfile": {"networkInterfaces": [{"id": interface, "properties": {"deleteOption": "Delete"}}]},
    }
    account.put(VM, "pygrid-heart-alice", zones=["1"], properties=properties)
    return str(account.machine("pygrid-heart-alice")["properties"]["vmId"])


def size(account: Account) -> tuple[str, str, str]:
    found = account.machine("pygrid-heart-alice")
    tag = found["tags"].get("pygrid_resizing", "")
    return found["properties"]["hardwareProfile"]["vmSize"], found["power"], tag


@pytest.mark.thorough
def test_a_machine_gets_another_size_or_its_former_one_again(account: Account, alice: str) -> None:
    change = {"id": alice, "wanted": "Standard_B2as_v2", "former": "Standard_B2als_v2"}
    run = account.play_tasks(("resize", {"__cloud_resize": change, "_size": "Standard_B2as_v2"}))
    assert run.returncode == 0, run.output[-4000:]
    assert size(account) == ("Standard_B2as_v2", "running", "Standard_B2as_v2")

    next_change = {"id": alice, "wanted": "Standard_M1", "former": "Standard_B2as_v2"}
    run = account.play_tasks(
        ("resized", {"__cloud_resize": change}), ("resize", {"__cloud_resize": next_change, "_size": "Standard_M1"})
    )
    assert "SkuNotAvailable" in run.output, run.output[-4000:]
    assert size(account) == ("Standard_B2as_v2", "deallocated", "Standard_M1")

    run = account.play_tasks(
        ("resize", {"__cloud_resize": next_change, "_size": "Standard_B2as_v2"}),
        ("resized", {"__cloud_resize": next_change}),
    )
    assert run.returncode == 0, run.output[-4000:]
    assert size(account) == ("Standard_B2as_v2", "running", "")


@pytest.mark.thorough
def test_an_image_outlives_its_machine(account: Account, alice: str) -> None:
    making = {
        "__cloud_made": {"image": {"id": alice}},
        "_cloud_image_name": "pygrid-heart-1",
        "_cloud_image_tags": {"pygrid_grid": "heart", "pygrid_image_of": "o", "pygrid_image_base": "b"},
    }
    run = account.play_tasks(("image_make", making), ("remove_machines", {"_machines": [{"id": alice}]}))
    assert run.returncode == 0, run.output[-4000:]
    assert account.has() == {"virtualNetworks": 1, "images": 1}
    image = account.azure.things[f"{GROUP}/providers/Microsoft.Compute/images/pygrid-heart-1".lower()]
    assert image["tags"]["pygrid_image_made"]
    run = account.play_tasks(("remove_images", {"_images": [{"path": image["id"]}]}))
    assert run.returncode == 0, run.output[-4000:]
    assert account.has() == {"virtualNetworks": 1}
