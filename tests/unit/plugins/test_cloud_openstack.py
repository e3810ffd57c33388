# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenStack's words and those of the role cloud. molecule/cloud_openstack has the genuine OpenStack."""

from __future__ import annotations

from typing import Any

from ansible_collections.openmined.pygrid.plugins.filter.openstack import (
    openstack_base_images,
    openstack_devices,
    openstack_found,
    openstack_images,
    openstack_rules,
)


def image(name: str, status: str = "active", **properties: str) -> dict[str, Any]:
    return {"id": f"id of {name}", "name": name, "status": status, "created_at": "2026", "properties": properties}


def test_rules_let_everything_out_and_in_what_is_asked_for() -> None:
    rule = {"port": 443, "kinds": ["domain"], "cidrs": ["10.0.0.0/8", "::/0"], "why": "people"}
    common = {"protocol": "tcp", "port_range_min": 443, "port_range_max": 443}
    assert openstack_rules([rule], {"domain": {"id": "g1"}}) == [
        {"direction": "egress", "ether_type": "IPv4"},
        {"direction": "egress", "ether_type": "IPv6"},
        {**common, "remote_group": "g1"},
        {**common, "ether_type": "IPv4", "remote_ip_prefix": "10.0.0.0/8"},
        {**common, "ether_type": "IPv6", "remote_ip_prefix": "::/0"},
    ]


def test_machines_begin_with_the_image_that_was_named_or_else_with_debian() -> None:
    own = image("pygrid-heart-1", pygrid_grid="heart", pygrid_image_of="r1", pygrid_image_base="b")
    images = [image("Debian 12 Bookworm"), image("debian-12-half", "queued"), image("debian-11"), own]
    assert [one["name"] for one in openstack_base_images(images)] == ["Debian 12 Bookworm"]
    assert [one["name"] for one in openstack_base_images(images, "debian-11")] == ["debian-11"]
    assert [one["name"] for one in openstack_base_images(images, "id of debian-11")] == ["debian-11"]
    assert openstack_images(images, "lung") == []
    (found,) = openstack_images(images, "heart")
    assert (found["of"], found["base"], found["usable"]) == ("r1", "b", True)


def test_a_volume_is_known_by_its_own_name_first() -> None:
    results = [{"item": {"key": "alice"}, "volume": {"id": "0123456789abcdef0123456789"}}]
    paths = openstack_devices(results)["alice"]
    assert paths[0] == "/dev/disk/by-id/virtio-0123456789abcdef0123"
    assert "/dev/vdb" in paths[1:]


def test_what_is_anothers_is_not_found() -> None:
    answers: dict[str, list[dict[str, Any]]] = {
        "machine": [
            {"id": "m1", "name": "net.pygrid-heart", "metadata": {"pygrid_grid": "heart"}},
            {"id": "m2", "name": "blog", "metadata": {}},
        ],
        "volume": [
            {"id": "v1", "name": "a", "metadata": {"pygrid_grid": "heart", "pygrid_data_of": "alice"}},
            {"id": "v2", "name": "b", "metadata": {"pygrid_grid": "lung"}},
        ],
        "port": [{"id": "p1", "name": "net.pygrid-heart"}],
        "address": [
            {"id": "f1", "port_id": "p1", "floating_ip_address": "203.0.113.5", "name": "203.0.113.5"},
            {"id": "f2", "port_id": None, "floating_ip_address": "203.0.113.6", "name": "203.0.113.6"},
        ],
        "router": [{"id": "r1", "name": "pygrid-heart"}, {"id": "r2", "name": "pygrid-heart-study"}],
        "network": [
            {"id": "n1", "name": "pygrid-heart-public-all"},
            {"id": "n2", "name": "pygrid-heart-study-public-all"},
        ],
        "security group": [{"id": "s1", "name": "pygrid-heart-worker"}, {"id": "s2", "name": "default"}],
        "key": [
            {"id": "k1", "name": "pygrid-heart-0123456789ab"},
            {"id": "k2", "name": "pygrid-heart-study-0123456789ab"},
        ],
        "image": [image("x", pygrid_grid="heart"), image("debian-12")],
    }
    found = openstack_found(answers, "heart", "pygrid-heart")
    assert [one["id"] for one in found] == ["m1", "v1", "p1", "f1", "r1", "n1", "s1", "k1", "id of x"]
    assert [one["id"] for one in found if one["kept"]] == ["v1"]
