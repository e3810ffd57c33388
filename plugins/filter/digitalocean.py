# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters between the words of DigitalOcean and those of the role cloud."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# Tags are one word each, which holds name and value.
GRID = "pygrid_grid"
DATA_OF = "pygrid_data_of"
KINDS = ("network", "domain", "worker")
# What names of volumes, firewalls and Droplets may have in common. Tags of other letters are not told apart.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
TAG = re.compile(r"[A-Za-z0-9_:-]{1,255}")
LONGEST_VOLUME = 64
# All ports, as the API says it.
ALL_PORTS = "0"


def digitalocean_tags(tags: Mapping[str, str]) -> list[str]:
    """Tags with values as DigitalOcean's words: ``name:value``."""
    return [f"{name}:{value}" for name, value in tags.items()]


def digitalocean_rules(
    rules: Iterable[Mapping[str, Any]], prefix: str, destinations: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Rules of machine_plan for a firewall: inbound_rules and outbound_rules.

    Args:
        prefix: of the tags of kinds of nodes, which end with the kind.
        destinations: CIDRs that its machines may connect to.
    """
    sources: dict[str, dict[str, list[str]]] = {}
    for rule in rules:
        of_port = sources.setdefault(str(rule["port"]), _target())
        of_port["addresses"] += [cidr for cidr in rule["cidrs"] if cidr not in of_port["addresses"]]
        tags = [f"{prefix}-{kind}" for kind in rule["kinds"]]
        of_port["tags"] += [tag for tag in tags if tag not in of_port["tags"]]
    return {
        "inbound_rules": [
            {"protocol": "tcp", "ports": port, "sources": of_port} for port, of_port in sources.items()
        ],
        "outbound_rules": [
            {"protocol": protocol, "ports": ALL_PORTS, "destinations": {**_target(), "addresses": [*destinations]}}
            for protocol in ("tcp", "udp", "icmp")
        ],
    }  # fmt: skip


def _target() -> dict[str, list[str]]:
    return {"addresses": [], "tags": [], "droplet_ids": [], "load_balancer_uids": []}


def digitalocean_images(images: Iterable[Mapping[str, Any]], grid: str = "", region: str = "") -> list[dict[str, Any]]:
    """Images, each with id, name, created, usable, disk (GB), and of and base, which image.yml notes.

    Args:
        images: of openmined.pygrid.digitalocean_info.
        grid: only those of this grid.
        region: where machines are made of them.
    """
    return [
        {
            "id": image.get("slug") or str(image["id"]),
            "name": image["name"],
            "created": image.get("created_at") or "",
            "usable": image.get("status", "available") == "available" and region in ("", *image["regions"]),
            "disk": image.get("min_disk_size") or 0,
            "of": _value(image, "pygrid_image_of"),
            "base": _value(image, "pygrid_image_base"),
        }
        for image in images
        if not grid or _is_of(image, grid)
    ]


def digitalocean_kept_zones(volumes: Iterable[Mapping[str, Any]], grid: str) -> dict[str, str]:
    """Regions of the volumes with data of a grid, by the host that they are of."""
    return {
        _value(one, DATA_OF): one["region"]["slug"] for one in volumes if _is_of(one, grid) and _value(one, DATA_OF)
    }


def digitalocean_devices(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By host the path of its volume.

    Args:
        results: of a loop of openmined.pygrid.digitalocean_volume over items with the host as ``key``.
    """
    prefix = "/dev/disk/by-id/scsi-0DO_Volume_"
    return {result["item"]["key"]: [f"{prefix}{result['volume']['name']}"] for result in results}


def digitalocean_found(answers: Mapping[str, Iterable[Mapping[str, Any]]], grid: str) -> list[dict[str, Any]]:
    """Everything of a grid, each with kind, id, name, region and kept.

    What has no tags is known by its name. A network that DigitalOcean made the default of its region cannot be removed
    and is left out.

    Args:
        answers: of openmined.pygrid.digitalocean_info, by kind.
    """
    name = f"pygrid-{grid}"
    found = []
    for kind in ("machine", "volume", "image"):
        found += [_told(kind, one) for one in answers[kind] if _is_of(one, grid) or _is_image_of(kind, one, grid)]
    firewalls = {f"{name}-{kind}" for kind in KINDS}
    found += [_told("firewall", one) for one in answers["firewall"] if one["name"] in firewalls]
    projects = {one["id"]: one for one in answers["project"] if _is_address_of(one, grid)}
    held: dict[str, list[str]] = {project: [] for project in projects}
    for address in answers["address"]:
        held.get(address.get("project_id") or "", []).append(address["ip"])
    found += [
        {**_told("address", one), "id": ", ".join(held[identity]) or identity} for identity, one in projects.items()
    ]
    found += [_told("network", one) for one in answers["network"] if one["name"] == name and not one["default"]]
    key = re.compile(rf"{re.escape(name)}-[0-9a-f]{{12}}")
    found += [_told("key", one) for one in answers["key"] if key.fullmatch(one["name"])]
    has_data = any(one["kept"] for one in found)
    tags = {f"{GRID}:{grid}": has_data} | dict.fromkeys(sorted(firewalls), False)
    there = {one["name"] for one in answers["tag"]}
    return found + [
        {"kind": "tag", "id": tag, "name": tag, "region": "", "kept": kept}
        for tag, kept in tags.items()
        if tag in there
    ]


def digitalocean_problems(
    machines: Iterable[Mapping[str, Any]], grid: str, region: str, zones: Sequence[str]
) -> list[str]:
    """What of the machines that are wanted DigitalOcean cannot have, a sentence each."""
    found = []
    if list(zones) != [region]:
        found.append(f"pygrid_cloud_zones: regions of DigitalOcean have no zones; it has to be [{region}]")
    names = {"pygrid_cloud_grid": [grid], "pygrid_machines": []}
    for machine in machines:
        names["pygrid_machines"] += [machine[word] for word in ("name", "domain") if machine.get(word)]
        if machine.get("spot"):
            found.append(f"pygrid_machines: a {machine['role']} is spot; DigitalOcean has no such machines")
        if set(machine.get("zones") or [region]) != {region}:
            found.append(f"pygrid_machines: a {machine['role']} has zones other than {region}, where its network is")
        for tag in digitalocean_tags(machine.get("tags") or {}):
            if not TAG.fullmatch(tag):
                found.append(f"pygrid_machines: {tag!r} is no tag: letters, digits, _, : and -, at most 255")
    for variable, values in names.items():
        for value in sorted(set(values)):
            if not NAME.fullmatch(value) or len(f"pygrid-{grid}-{value}-data") > LONGEST_VOLUME:
                found.append(
                    f"{variable}: {value!r} is no name for DigitalOcean, which has lower case letters, digits and - in"
                    f" names, and at most {LONGEST_VOLUME} of them in that of a volume (pygrid-{grid}-...-data)"
                )
    return found


def _told(kind: str, one: Mapping[str, Any]) -> dict[str, Any]:
    region = one.get("region") or ""
    return {
        "kind": kind,
        "id": str(one["id"]),
        "name": one["name"],
        "region": region if isinstance(region, str) else region["slug"],
        "kept": kind == "volume" and bool(_value(one, DATA_OF)),
    }


def _is_of(one: Mapping[str, Any], grid: str) -> bool:
    return f"{GRID}:{grid}" in (one.get("tags") or [])


def _is_image_of(kind: str, one: Mapping[str, Any], grid: str) -> bool:
    """Whether it is an image that a run which was killed has made and not tagged."""
    return kind == "image" and bool(
        re.fullmatch(rf"pygrid-{re.escape(grid)}-[0-9a-f]{{12}}-\d{{8}}-\d{{6}}", one["name"])
    )


def _is_address_of(project: Mapping[str, Any], grid: str) -> bool:
    """Whether the project was made for an address of the grid."""
    return f"{GRID}:{grid}" in (project.get("description") or "").split()


def _value(one: Mapping[str, Any], name: str) -> str:
    return next((tag.partition(":")[2] for tag in one.get("tags") or [] if tag.startswith(f"{name}:")), "")


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "digitalocean_devices": digitalocean_devices,
            "digitalocean_found": digitalocean_found,
            "digitalocean_images": digitalocean_images,
            "digitalocean_kept_zones": digitalocean_kept_zones,
            "digitalocean_problems": digitalocean_problems,
            "digitalocean_rules": digitalocean_rules,
            "digitalocean_tags": digitalocean_tags,
        }
