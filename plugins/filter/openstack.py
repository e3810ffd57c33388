# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters between the words of openstack.cloud and those of the role cloud."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# The metadata of a volume that say whose data are on it.
DATA_OF = "pygrid_data_of"
KINDS_OF_NODES = ("network", "domain", "worker")
DEBIAN = "debian-12"


def openstack_rules(
    rules: Iterable[Mapping[str, Any]], groups: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Rules of machine_plan for openstack.cloud.security_group. ``groups``: the security group of each kind."""
    found: list[dict[str, Any]] = [{"direction": "egress", "ether_type": kind} for kind in ("IPv4", "IPv6")]
    for rule in rules:
        common = {"protocol": "tcp", "port_range_min": rule["port"], "port_range_max": rule["port"]}
        found += [{**common, "remote_group": groups[kind]["id"]} for kind in rule["kinds"]]
        for cidr in rule["cidrs"]:
            version = ipaddress.ip_network(cidr, strict=False).version
            found.append({**common, "ether_type": f"IPv{version}", "remote_ip_prefix": cidr})
    return found


def openstack_images(images: Iterable[Mapping[str, Any]], grid: str) -> list[dict[str, Any]]:
    """The grid's own images in the words of the role cloud. ``images``: of openstack.cloud.image_info."""
    return [_image(image) for image in images if _properties(image).get("pygrid_grid") == grid]


def openstack_base_images(images: Iterable[Mapping[str, Any]], wanted: str = "") -> list[dict[str, Any]]:
    """The images that machines may begin with: the one that is wanted, by id or name, or else all of Debian 12."""
    if wanted:
        return [_image(image) for image in images if wanted in (image["id"], image["name"])]
    return [
        _image(image)
        for image in images
        if str(image["name"]).lower().replace(" ", "-").startswith(DEBIAN)
        and image["status"] == "active"
        and "pygrid_grid" not in _properties(image)
    ]


def _properties(image: Mapping[str, Any]) -> Mapping[str, Any]:
    return image.get("properties") or {}


def _image(image: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": image["id"],
        "name": image["name"],
        "created": image.get("created_at") or "",
        "usable": image["status"] == "active",
        "disk": image.get("min_disk") or 0,
        "device": "",
        "of": _properties(image).get("pygrid_image_of", ""),
        "base": _properties(image).get("pygrid_image_base", ""),
    }


def openstack_devices(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By host the paths of which one is its volume, the surest first.

    Args:
        results: of a loop of openstack.cloud.volume over items with the host as ``key``.
    """
    found = {}
    for result in results:
        volume = result["volume"]["id"]
        names = (f"virtio-{volume[:20]}", f"scsi-0QEMU_QEMU_HARDDISK_{volume}", f"scsi-SQEMU_QEMU_HARDDISK_{volume}")
        found[result["item"]["key"]] = [*(f"/dev/disk/by-id/{name}" for name in names), "/dev/vdb", "/dev/sdb"]
    return found


def openstack_found(answers: Mapping[str, Iterable[Mapping[str, Any]]], grid: str, name: str) -> list[dict[str, Any]]:
    """Everything that is of the grid, each with kind, id, name, network and kept.

    Args:
        answers: all that there is, by kind; of floating addresses those are the grid's that lead to its ports.
        name: what is made for the grid as a whole is called so, with the purpose behind it.
    """
    ports = {port["id"] for port in answers["port"]}
    names = {
        "router": {name},
        "network": {f"{name}-public-all", f"{name}-private-all"},
        "security group": {f"{name}-{kind}" for kind in KINDS_OF_NODES},
    }
    key = re.compile(re.escape(name) + "-[0-9a-f]{12}")

    def is_ours(kind: str, one: Mapping[str, Any]) -> bool:
        if kind in names:
            return one["name"] in names[kind]
        if kind == "key":
            return bool(key.fullmatch(one["name"]))
        if kind == "address":
            return one["port_id"] in ports
        if kind == "image":
            return _properties(one).get("pygrid_grid") == grid
        return kind == "port" or (one.get("metadata") or {}).get("pygrid_grid") == grid

    return [
        {
            "kind": kind,
            "id": one["id"],
            "name": one.get("floating_ip_address") or one["name"],
            "network": one.get("floating_network_id") or "",
            "kept": kind == "volume" and DATA_OF in one["metadata"],
        }
        for kind, found in answers.items()
        for one in found
        if is_ours(kind, one)
    ]


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "openstack_base_images": openstack_base_images,
            "openstack_devices": openstack_devices,
            "openstack_found": openstack_found,
            "openstack_images": openstack_images,
            "openstack_rules": openstack_rules,
        }
