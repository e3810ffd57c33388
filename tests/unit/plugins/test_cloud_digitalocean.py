# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is a grid's on DigitalOcean, and what cannot be had there."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.filter.cloud import machines_made
from ansible_collections.openmined.pygrid.plugins.filter.digitalocean import (
    digitalocean_devices,
    digitalocean_found,
    digitalocean_images,
    digitalocean_kept_zones,
    digitalocean_problems,
    digitalocean_rules,
    digitalocean_tags,
)

OURS, THEIRS = "pygrid_grid:heart", "pygrid_grid:heart-2"
REGION = {"slug": "fra1"}


def thing(name: str, *tags: str, **more: Any) -> dict[str, Any]:
    return {"id": f"id of {name}", "name": name, "tags": list(tags), "region": REGION, **more}


def account(**more: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    kinds = ("address", "firewall", "image", "key", "machine", "network", "project", "tag", "volume")
    return {kind: more.get(kind, []) for kind in kinds}


def names(answers: dict[str, list[dict[str, Any]]], grid: str = "heart") -> list[tuple[str, str]]:
    return [(one["kind"], one["name"]) for one in digitalocean_found(answers, grid)]


def test_what_has_the_tag_is_the_grids() -> None:
    there = account(
        machine=[thing("a", OURS), thing("b", THEIRS), thing("c")],
        volume=[thing("data", OURS, "pygrid_data_of:alice"), thing("other", THEIRS, "pygrid_data_of:alice")],
        image=[thing("x", OURS), thing("y")],
    )
    assert names(there) == [("machine", "a"), ("volume", "data"), ("image", "x")]
    assert [one["kept"] for one in digitalocean_found(there, "heart")] == [False, True, False]


def test_what_has_no_tags_is_known_by_its_whole_name() -> None:
    there = account(
        network=[
            thing("pygrid-heart", default=False),
            thing("pygrid-heart-2", default=False),
            thing("n", default=True),
        ],
        firewall=[thing("pygrid-heart-worker"), thing("pygrid-heart-2-worker"), thing("pygrid-heart-workers")],
        key=[thing("pygrid-heart-0123456789ab"), thing("pygrid-heart-2-0123456789ab"), thing("laptop")],
        image=[thing("pygrid-heart-0123456789ab-20260901-101112"), thing("pygrid-heart-mine")],
    )
    assert names(there) == [
        ("image", "pygrid-heart-0123456789ab-20260901-101112"),
        ("firewall", "pygrid-heart-worker"),
        ("network", "pygrid-heart"),
        ("key", "pygrid-heart-0123456789ab"),
    ]


def test_a_network_that_nobody_can_remove_is_left_out() -> None:
    assert names(account(network=[thing("pygrid-heart", default=True)])) == []


def test_addresses_are_those_of_the_projects_that_were_made_for_them() -> None:
    # Grid heart has a node 2-net, and grid heart-2 a node net: their projects are called alike.
    there = account(
        project=[
            {"id": "1", "name": "pygrid-heart-2-net", "description": f"{OURS} pygrid_address_of:2-net"},
            {"id": "2", "name": "pygrid-heart-net", "description": "somebody's"},
        ],
        address=[{"ip": "192.0.2.1", "project_id": "1"}, {"ip": "192.0.2.2", "project_id": "2"}],
    )
    assert [one["id"] for one in digitalocean_found(there, "heart")] == ["192.0.2.1"]
    assert names(there, "heart-2") == []


def test_tags_stay_as_long_as_data_has_them() -> None:
    tags = [{"name": OURS}, {"name": "pygrid-heart-worker"}, {"name": THEIRS}]
    found = digitalocean_found(account(tag=tags, volume=[thing("data", OURS, "pygrid_data_of:alice")]), "heart")
    assert [(one["name"], one["kept"]) for one in found if one["kind"] == "tag"] == [
        (OURS, True),
        ("pygrid-heart-worker", False),
    ]
    assert [one["kept"] for one in digitalocean_found(account(tag=tags), "heart")] == [False, False]


def test_rules_of_a_port_are_one() -> None:
    rules = [
        {"port": 22, "kinds": ["network"], "cidrs": [], "why": ""},
        {"port": 22, "kinds": [], "cidrs": ["198.51.100.0/24"], "why": ""},
    ]
    found = digitalocean_rules(rules, "pygrid-heart", ["0.0.0.0/0"])
    (inbound,) = found["inbound_rules"]
    assert (inbound["ports"], inbound["protocol"]) == ("22", "tcp")
    assert (inbound["sources"]["tags"], inbound["sources"]["addresses"]) == (
        ["pygrid-heart-network"],
        ["198.51.100.0/24"],
    )
    assert {(rule["protocol"], rule["ports"]) for rule in found["outbound_rules"]} == {
        ("tcp", "0"),
        ("udp", "0"),
        ("icmp", "0"),
    }
    assert all(rule["destinations"]["addresses"] == ["0.0.0.0/0"] for rule in found["outbound_rules"])


def test_images_have_their_notes() -> None:
    tags = [OURS, "pygrid_image_of:abc", "pygrid_image_base:debian-12-x64"]
    image = thing("i", *tags, regions=["fra1"], status="available", min_disk_size=25, created_at="2026", slug=None)
    (found,) = digitalocean_images([image, thing("j", THEIRS, regions=["fra1"])], "heart", "fra1")
    assert found == {
        "id": "id of i", "name": "i", "created": "2026", "usable": True, "disk": 25, "of": "abc",
        "base": "debian-12-x64",
    }  # fmt: skip
    assert not digitalocean_images([image], "heart", "ams3")[0]["usable"]
    assert not digitalocean_images([{**image, "status": "pending"}], "heart", "fra1")[0]["usable"]


def test_volumes_say_where_they_are_and_what_they_are_called() -> None:
    volumes = [thing("a", OURS, "pygrid_data_of:alice"), thing("b", THEIRS, "pygrid_data_of:bob"), thing("c", OURS)]
    assert digitalocean_kept_zones(volumes, "heart") == {"alice": "fra1"}
    result = {"item": {"key": "alice"}, "volume": {"name": "pygrid-heart-alice-data"}}
    assert digitalocean_devices([result]) == {"alice": ["/dev/disk/by-id/scsi-0DO_Volume_pygrid-heart-alice-data"]}


def test_what_became_of_a_droplet() -> None:
    item = {"item": {"item": {"host": "alice"}}}
    made = {**item, "changed": True, "data": {"droplet": {"id": 7}}}
    refused = {**item, "changed": False, "msg": "exceed your droplet limit"}
    assert machines_made([made])["alice"] == {"id": "7", "made": True, "failure": ""}
    assert machines_made([refused])["alice"] == {"id": "", "made": False, "failure": "exceed your droplet limit"}


def test_tags_are_words() -> None:
    assert digitalocean_tags({"pygrid_role": "worker"}) == ["pygrid_role:worker"]


@pytest.mark.parametrize(
    ("machine", "grid", "zones", "said"),
    [
        ({"role": "domain", "name": "alice"}, "heart", ["fra1"], ""),
        ({"role": "domain", "name": "Alice"}, "heart", ["fra1"], "'Alice' is no name"),
        ({"role": "domain", "name": "a_b"}, "heart", ["fra1"], "'a_b' is no name"),
        ({"role": "domain", "name": "a" * 50}, "heart", ["fra1"], "is no name"),
        ({"role": "domain", "name": "alice"}, "he.art", ["fra1"], "pygrid_cloud_grid: 'he.art' is no name"),
        ({"role": "worker", "domain": "alice", "spot": True}, "heart", ["fra1"], "a worker is spot"),
        ({"role": "spare", "tags": {"owner": "a b"}}, "heart", ["fra1"], "'owner:a b' is no tag"),
        ({"role": "spare"}, "heart", ["fra1", "ams3"], "it has to be [fra1]"),
        ({"role": "spare", "zones": ["ams3"]}, "heart", ["fra1"], "zones other than fra1"),
    ],
)
def test_what_cannot_be_had(machine: dict[str, Any], grid: str, zones: list[str], said: str) -> None:
    found = digitalocean_problems([machine], grid, "fra1", zones)
    assert len(found) == bool(said), found
    assert said in "".join(found)
