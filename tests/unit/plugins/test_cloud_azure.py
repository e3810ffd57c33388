# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the words of Azure and those of the role cloud, and what is changed of a thing that is there."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.filter import azure
from ansible_collections.openmined.pygrid.plugins.module_utils.azure import contains, kind_of, merged, only
from ansible_collections.openmined.pygrid.plugins.modules.azure_machine import _deeds

GROUP = "/subscriptions/s/resourceGroups/pygrid-heart"
DISK, MACHINE = "Microsoft.Compute/disks", "Microsoft.Compute/virtualMachines"


def disk(name: str, of: str = "", **more: Any) -> dict[str, Any]:
    tags = {"pygrid_data_of": of} if of else {}
    return {"id": f"{GROUP}/providers/{DISK}/{name}", "name": name, "type": DISK, "tags": tags, **more}


def test_names_are_those_of_azure_and_no_two_are_one() -> None:
    assert azure.azure_name("pygrid-heart-alice") == "pygrid-heart-alice"
    names = ["pygrid-heart-Alice", "pygrid-heart-a_b", "pygrid-heart-a.b", "pygrid-heart-a-b-", "p" * 90]
    changed = [azure.azure_name(name) for name in names]
    assert len(set(changed)) == len(names)
    assert all(azure.PLAIN_NAME.fullmatch(name) and len(name) <= azure.LONGEST_NAME for name in changed), changed
    assert len(azure.azure_name("p" * 90, 80)) == 80


def test_only_private_machines_go_out_by_the_gateway() -> None:
    subnets = [{"name": "out", "cidr": "10.0.0.0/25", "public": True}, {"name": "in", "cidr": "x", "public": False}]
    found = {one["name"]: one["properties"] for one in azure.azure_subnets(subnets, "nat")}
    assert found["in"]["natGateway"] == {"id": "nat"}
    assert "natGateway" not in found["out"]
    assert not any("natGateway" in one["properties"] for one in azure.azure_subnets(subnets, ""))
    assert not any(one["defaultOutboundAccess"] for one in found.values())


def test_all_is_closed_but_what_the_rules_open() -> None:
    opening = {"port": 443, "why": "w" * 200, "kinds": ["worker", "network"], "cidrs": ["0.0.0.0/0", "fd00::1/64"]}
    rules = {"domain": [opening, opening], "worker": []}
    made = azure.azure_security(rules, "/net", "heart", {"location": "x"})
    assert [one["id"].rpartition("/")[2] for one in made] == ["heart-domain", "heart-worker"] * 2
    assert "properties" not in made[0]["body"]
    domain, worker = (one["body"]["properties"]["securityRules"] for one in made[2:])
    assert [rule["name"] for rule in worker] == ["close-the-rest"]
    by_name = {rule["name"]: rule["properties"] for rule in domain}
    assert len(domain) == len(by_name) == 5
    assert by_name["443-from-0-0-0-0-0"]["sourceAddressPrefix"] == "0.0.0.0/0"
    assert by_name["443-from-fd00-64"]["sourceAddressPrefix"] == "fd00::/64"
    groups = by_name["443-from-worker"]["sourceApplicationSecurityGroups"]
    assert groups == [{"id": "/net/applicationSecurityGroups/heart-worker"}]
    assert len({rule["priority"] for rule in by_name.values()}) == 5
    last = max(by_name.values(), key=lambda rule: rule["priority"])
    assert (last["access"], last["sourceAddressPrefix"], last["destinationPortRange"]) == ("Deny", "*", "*")
    assert len(by_name["443-from-worker"]["description"]) == 140


def test_the_order_of_rules_changes_nothing() -> None:
    ports = [{"port": port, "why": "", "kinds": ["worker"], "cidrs": []} for port in (22, 443, 5432)]
    there, back = (azure.azure_security({"domain": rules}, "", "", {}) for rules in (ports, ports[::-1]))
    assert there == back


def test_images() -> None:
    tags = {"pygrid_image_of": "o", "pygrid_image_base": "b", "pygrid_image_made": "2026"}
    size = {"storageProfile": {"osDisk": {"diskSizeGB": 64}}}
    own = {"id": "/s/mine", "name": "mine", "tags": tags, "properties": {"provisioningState": "Creating", **size}}
    found, debian = azure.azure_images([own, {"id": "Debian:debian-12:12-gen2:1.2"}], 30)
    assert (found["id"], found["path"], found["reference"]) == ("mine", "/s/mine", {"id": "/s/mine"})
    assert (found["of"], found["base"], found["created"], found["disk"]) == ("o", "b", "2026", 64)
    assert (found["usable"], debian["usable"]) == (False, True)
    assert debian["reference"] == {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "1.2"}
    assert (debian["id"], debian["disk"], debian["of"]) == ("Debian:debian-12:12-gen2:1.2", 30, "")


def test_a_volume_is_only_used_in_its_zone() -> None:
    disks = [disk("a", "alice", zones=["2"]), disk("b-os", zones=["1"]), disk("c", "carol")]
    assert azure.azure_kept_zones(disks) == {"alice": "2"}


def test_devices() -> None:
    found = azure.azure_devices([{"item": {"key": "alice"}}])
    assert found["alice"][0] == "/dev/disk/azure/scsi1/lun0"
    assert not [path for path in found["alice"] if path.startswith("/dev/sd")], "those change from boot to boot"


def test_machines_are_found_by_what_azure_calls_them() -> None:
    interface = f"{GROUP}/providers/Microsoft.Network/networkInterfaces/n"
    references = [{"id": "/other"}, {"id": interface.upper(), "properties": {"primary": True}}]
    properties = {"vmId": "1", "hardwareProfile": {"vmSize": "B"}, "networkProfile": {"networkInterfaces": references}}
    machine = {"id": f"{GROUP}/providers/{MACHINE}/m", "type": MACHINE, "zones": ["2"], "properties": properties}
    configuration = {"name": "main", "properties": {"publicIPAddress": {"id": "/address"}}}
    nic = {
        "id": interface, "type": "Microsoft.Network/networkInterfaces",
        "properties": {"ipConfigurations": [configuration]},
    }  # fmt: skip
    found = azure.azure_machines([nic, machine], {"alice": "1", "bob": "2"})
    assert found == {
        "alice": {
            "id": machine["id"], "zones": ["2"], "size": "B", "interface": interface, "configuration": "main",
            "address": "/address",
        }
    }  # fmt: skip
    assert azure.azure_machines([machine], {"alice": "1"})["alice"]["address"] == ""


def test_a_group_stays_for_data_and_for_what_others_have_in_it() -> None:
    group = {"id": GROUP, "name": "pygrid-heart", "type": "Microsoft.Resources/resourceGroups"}
    os, data = disk("alice-os"), disk("alice-data", "alice")
    inside = [os["id"].upper(), data["id"]]
    found = {one["name"]: one for one in azure.azure_found([os, data, {**group, "contents": inside}])}
    assert {name: one["kept"] for name, one in found.items()} == {
        "alice-os": False, "alice-data": True, "pygrid-heart": True
    }  # fmt: skip
    assert (found["alice-os"]["kind"], found["alice-data"]["kind"]) == ("disk", "volume")
    assert not azure.azure_found([{**group, "contents": []}])[0]["kept"]
    assert azure.azure_found([{**group, "contents": [f"{GROUP}/providers/Microsoft.Web/sites/theirs"]}]) == []


@pytest.mark.parametrize(
    ("have", "wanted", "is_so"),
    [
        ({"location": "westeurope", "x": 1}, {"location": "West Europe"}, True),
        ({"tags": {"a": "b", "c": "d"}}, {"tags": {"a": "b"}}, True),
        ({"tags": {"a": "B"}}, {"tags": {"a": "b"}}, False),
        ({"tags": {"a": "b"}}, {"tags": {"a": None}}, False),
        ({"tags": {}}, {"tags": {"a": None}}, True),
        ({}, {"tags": {"a": "b"}}, False),
        ({"p": {"id": "/Subscriptions/S/A"}}, {"p": {"id": "/subscriptions/s/a"}}, True),
        ({"subnets": [{"name": "a"}, {"name": "b"}]}, {"subnets": [{"name": "B"}]}, True),
        ({"securityRules": [{"name": "a"}, {"name": "b"}]}, {"securityRules": [{"name": "b"}]}, False),
        ({"securityRules": []}, {"securityRules": [{"name": "b"}]}, False),
        ({"zones": ["1", "2"]}, {"zones": ["1"]}, False),
        ({"subnets": [{"name": "a", "x": 1}]}, {"subnets": [{"name": "a", "x": 2}]}, False),
    ],
)  # fmt: skip
def test_whether_something_is_as_wanted(have: Any, wanted: Any, is_so: bool) -> None:
    assert contains(have, wanted) is is_so


def test_what_is_wanted_is_put_into_what_is_there() -> None:
    have = {
        "etag": "e", "tags": {"a": "1", "b": "2"}, "properties": {
            "size": "small",
            "dataDisks": [{"name": "theirs", "lun": 4}, {"name": "ours", "lun": 0, "caching": "None"}],
            "securityRules": [{"name": "old"}],
        },
    }  # fmt: skip
    wanted = {"tags": {"a": None}, "properties": {"dataDisks": [{"name": "ours", "lun": 1}]}}
    whole = merged(have, wanted)
    assert whole["tags"] == {"b": "2"}
    assert whole["properties"]["size"] == "small"
    disks = [{"name": "theirs", "lun": 4}, {"name": "ours", "lun": 1, "caching": "None"}]
    assert whole["properties"]["dataDisks"] == disks
    assert only(whole, wanted) == {"tags": {"b": "2"}, "properties": {"dataDisks": disks}}
    rules = merged(have, {"properties": {"securityRules": [{"name": "new"}]}})["properties"]["securityRules"]
    assert rules == [{"name": "new"}]
    assert merged(None, wanted) == {"tags": {}, "properties": wanted["properties"]}


def test_the_type_of_an_id() -> None:
    assert kind_of(GROUP) == "Microsoft.Resources/resourceGroups"
    assert kind_of(disk("a")["id"].upper()) == DISK
    assert kind_of(f"{GROUP}/providers/Microsoft.Web/sites/theirs") == "Microsoft.Web/sites"


@pytest.mark.parametrize(
    ("power", "is_generalized", "wanted", "deeds"),
    [
        ("running", False, "running", []),
        ("deallocated", False, "running", ["start"]),
        ("stopped", False, "deallocated", ["deallocate"]),
        ("deallocated", False, "deallocated", []),
        ("running", False, "generalized", ["deallocate", "generalize"]),
        ("deallocated", True, "generalized", []),
    ],
)
def test_what_a_machine_has_to_do(power: str, is_generalized: bool, wanted: str, deeds: list[str]) -> None:
    assert _deeds(power, is_generalized, wanted) == deeds
