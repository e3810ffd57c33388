# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters between the words of amazon.aws and those of the role cloud."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# The tag of a volume that says whose data are on it.
DATA_OF = "pygrid_data_of"
# Of each kind of thing in AWS's answers the attribute that holds its id.
AWS_IDS = {
    "machine": "instance_id",
    "volume": "id",
    "NAT gateway": "nat_gateway_id",
    "address": "public_ip",
    "internet gateway": "internet_gateway_id",
    "subnet": "subnet_id",
    "route table": "route_table_id",
    "security group": "group_id",
    "network": "vpc_id",
    "key": "key_pair_id",
    "image": "image_id",
    "launch template": "launch_template_id",
}


def aws_rules(rules: Iterable[Mapping[str, Any]], groups: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rules of machine_plan for amazon.aws.ec2_security_group. ``groups``: id of the security group of each kind."""
    found = []
    for rule in rules:
        common = {"proto": "tcp", "ports": [rule["port"]], "rule_desc": rule["why"]}
        found += [{**common, "group_id": groups[kind]} for kind in rule["kinds"]]
        for version, name in ((4, "cidr_ip"), (6, "cidr_ipv6")):
            cidrs = [cidr for cidr in rule["cidrs"] if ipaddress.ip_network(cidr, strict=False).version == version]
            found += [{**common, name: cidr} for cidr in cidrs]
    return found


def aws_images(images: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Images, each with id, name, created, usable, disk (GB), device, and of and base, which image.yml notes.

    Args:
        images: of amazon.aws.ec2_ami_info.
    """
    return [
        {
            "id": image["image_id"],
            "name": image["name"],
            "created": image.get("creation_date") or "",
            "usable": image["state"] == "available",
            "disk": _disk(image),
            "device": image["root_device_name"],
            "of": (image.get("tags") or {}).get("pygrid_image_of", ""),
            "base": (image.get("tags") or {}).get("pygrid_image_base", ""),
        }
        for image in images
    ]


def _disk(image: Mapping[str, Any]) -> int:
    """Size of the first disk of a machine of the image, GB; 0 when the image does not say it."""
    disks = image.get("block_device_mappings") or [{}]
    return (disks[0].get("ebs") or {}).get("volume_size") or 0


def aws_kept_zones(volumes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Zones of the volumes with data, by the host that they are of. ``volumes``: of amazon.aws.ec2_vol_info."""
    return {volume["tags"][DATA_OF]: volume["zone"] for volume in volumes if DATA_OF in volume["tags"]}


def aws_devices(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By host the paths of which one is its volume, the surest first.

    Args:
        results: of a loop of amazon.aws.ec2_vol over items with the host as ``key``.
    """
    found = {}
    for result in results:
        serial = result["volume_id"].replace("-", "")
        letter = result["device"][-1]
        found[result["item"]["key"]] = [
            f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}", f"/dev/xvd{letter}", f"/dev/sd{letter}"
        ]  # fmt: skip
    return found


def aws_found(answers: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Everything that was found, each with kind, id, name, network, cidr, description and kept.

    ``kept``: whether it holds data of a node.
    """
    return [
        {
            "kind": kind,
            "id": one[AWS_IDS[kind]],
            "name": one.get("key_name") or one.get("launch_template_name") or (one.get("tags") or {}).get("Name", ""),
            "network": one.get("vpc_id") or next((there["vpc_id"] for there in one.get("attachments") or []), ""),
            "cidr": one.get("cidr_block", ""),
            "description": one.get("description") or "",
            "kept": kind == "volume" and DATA_OF in one["tags"],
        }
        for kind, found in answers.items()
        for one in found
    ]


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "aws_devices": aws_devices,
            "aws_found": aws_found,
            "aws_images": aws_images,
            "aws_kept_zones": aws_kept_zones,
            "aws_rules": aws_rules,
        }
