# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters between the words of Google Compute Engine and those of the role cloud."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# The label of a volume that says whose data are on it, and that of a machine that resize.yml is changing.
DATA_OF = "pygrid_data_of"
RESIZING = "pygrid_resizing"
# Whose images machines begin with when no other is named.
DEBIAN = {"project": "debian-cloud", "filter": "family = debian-12"}
# A label holds so many characters; a longer value goes on in another label.
LABEL_LENGTH = 63
MORE = "_more"
# What names of things and of accounts are made of there.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
USER = re.compile(r"[a-z_][-a-z0-9_]{0,31}")
# So that names of images (pygrid-GRID-…, 63 characters) and of volumes (pygrid-GRID-NODE-data) are none too long.
GRID_LENGTH = 27
GRID_AND_NODE_LENGTH = 50
# Of each kind of thing in Google's answers the word for people.
KINDS = {
    "instances": "machine",
    "disks": "volume",
    "addresses": "address",
    "routers": "router",
    "firewalls": "firewall rule",
    "subnetworks": "subnet",
    "networks": "network",
    "images": "image",
}


def gcp_problems(plan: Mapping[str, Any], grid: str, project: str, user: str) -> list[str]:
    """What cannot be on Google Compute Engine.

    Args:
        plan: of machine_plan.
        grid: name of the grid.
        project: may be "", which is a problem.
        user: who logs in to new machines.
    """
    found = []
    if not project:
        found.append("pygrid_cloud_project: say which project machines are made in (or set GOOGLE_CLOUD_PROJECT)")
    if not USER.fullmatch(user) or user == "root":
        found.append(f"pygrid_cloud_user: {user!r} is no account that Google makes on a machine")
    if not NAME.fullmatch(grid) or len(grid) > GRID_LENGTH:
        found.append(
            f"pygrid_cloud_grid: {grid!r} cannot be in names and labels of Google: at most {GRID_LENGTH} lower case"
            " letters, digits and dashes"
        )
    for machine in plan["new"]:
        if not NAME.fullmatch(machine["host"]) or len(grid + machine["host"]) > GRID_AND_NODE_LENGTH:
            found.append(
                f"pygrid_machines: {machine['host']!r} cannot be in names and labels of Google: lower case letters,"
                f" digits and dashes, with the grid's name at most {GRID_AND_NODE_LENGTH}"
            )
    return found


def gcp_labels(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as labels. The tag Name is left out: things have names there.

    Labels have no capital letters and few signs; what is too long for one goes on in the label NAME_more.
    """
    found = {}
    for tag, value in tags.items():
        if tag == "Name":
            continue
        name, text = _label(tag), _label(str(value))
        while text[LABEL_LENGTH:]:
            found[name], name, text = text[:LABEL_LENGTH], f"{name}{MORE}", text[LABEL_LENGTH:]
        found[name] = text
    return found


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())


def _value(labels: Mapping[str, str], name: str) -> str:
    """The value of a tag, out of all labels that it was made to."""
    return labels[name] + _value(labels, f"{name}{MORE}") if name in labels else ""


def gcp_firewalls(rules: Mapping[str, Iterable[Mapping[str, Any]]], prefix: str) -> list[dict[str, Any]]:
    """Rules of machine_plan as firewall rules: name, target, tags, cidrs, ports, why.

    Ports of a kind of node that are open for the same are in one rule. A name says what its rule is, so that another
    rule has another one.

    Args:
        rules: by kind of node.
        prefix: of the names, and of the tags of machines of a kind.
    """
    found = []
    for kind, of_kind in rules.items():
        for (tags, cidrs), opened in _by_sources(of_kind, prefix).items():
            ports = sorted({rule["port"] for rule in opened})
            content = {"target": f"{prefix}-{kind}", "tags": list(tags), "cidrs": list(cidrs), "ports": ports}
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            why = ", ".join(dict.fromkeys(rule["why"] for rule in opened))
            found.append({**content, "name": f"{prefix}-{kind}-{digest[:8]}", "why": why})
    return found


Sources = tuple[tuple[str, ...], tuple[str, ...]]


def _by_sources(rules: Iterable[Mapping[str, Any]], prefix: str) -> dict[Sources, list[Mapping[str, Any]]]:
    """Rules by the tags and the CIDRs that they are for. The grid's subnet has no IPv6, so nobody comes by it."""
    by_port: dict[int, list[Mapping[str, Any]]] = {}
    for rule in rules:
        by_port.setdefault(rule["port"], []).append(rule)
    found: dict[Sources, list[Mapping[str, Any]]] = {}
    for of_port in by_port.values():
        tags = {f"{prefix}-{source}" for rule in of_port for source in rule["kinds"]}
        cidrs = {
            cidr for rule in of_port for cidr in rule["cidrs"] if ipaddress.ip_network(cidr, strict=False).version == 4
        }
        found.setdefault((tuple(sorted(tags)), tuple(sorted(cidrs))), []).extend(of_port)
    return {sources: opened for sources, opened in found.items() if any(sources)}


def gcp_image_question(named: str, project: str) -> dict[str, str]:
    """Where an image is and what finds it: project and filter.

    Args:
        named: an image of the project, or one or a family with its path (projects/…/global/images/family/…); ""
            for Debian's.
        project: where images are that are named without a path.
    """
    if not named:
        return DEBIAN
    match = re.search(r"projects/([^/]+)/global/images/(family/)?([^/]+)$", named)
    if not match:
        return {"project": project, "filter": f"name = {named}"}
    return {"project": match[1], "filter": f"{'family' if match[2] else 'name'} = {match[3]}"}


def gcp_images(images: Iterable[Mapping[str, Any]], named: str) -> list[dict[str, Any]]:
    """Images, each with id, name, link, created, usable, disk (GB), and of and base, which image.yml notes.

    Those that are deprecated are left out.

    Args:
        images: as the API tells of them.
        named: what pygrid_cloud_image says, which is the id of images to begin with, if there is any.
    """
    found = []
    for image in images:
        if (image.get("deprecated") or {}).get("state", "ACTIVE") != "ACTIVE":
            continue
        labels = image.get("labels") or {}
        base = _value(labels, "pygrid_image_base")
        is_own = "pygrid_image_of" in labels
        found.append(
            {
                "id": named if named and not is_own else image["name"],
                "name": image["name"],
                "link": image["selfLink"],
                "created": image["creationTimestamp"],
                "usable": image.get("status") == "READY",
                "disk": int(image.get("diskSizeGb") or 0),
                "of": _value(labels, "pygrid_image_of"),
                "base": named if named and base == _label(named) else base,
            }
        )
    return found


def gcp_machines(instances: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Name, zone and disk (link of the first one) of machines, by their ids."""
    return {
        str(one["id"]): {"name": one["name"], "zone": _last(one["zone"]), "disk": one["disks"][0]["source"]}
        for one in instances
    }


def gcp_taken_away(instances: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Ids of the machines that Google has taken away: preemptible ones that nobody is changing, and that do not run."""
    return [
        {"id": str(one["id"])}
        for one in instances
        if one.get("scheduling", {}).get("preemptible")
        and one["status"] == "TERMINATED"
        and RESIZING not in one.get("labels", {})
    ]


def gcp_volumes(disks: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Name and zone of the volumes with data, by the host that they are of."""
    return {
        disk["labels"][DATA_OF]: {"name": disk["name"], "zone": _last(disk["zone"])}
        for disk in disks
        if DATA_OF in disk["labels"]
    }


def gcp_found(things: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Everything that was found, each with kind, id, name, zone, network, cidr and kept.

    ``kept``: whether it holds data of a node.
    """
    return [
        {
            "kind": KINDS[kind],
            "id": str(one["id"]),
            "name": one["name"],
            "zone": _last(one.get("zone", "")),
            "network": one.get("network", ""),
            "cidr": one.get("ipCidrRange", ""),
            "kept": kind == "disks" and DATA_OF in one.get("labels", {}),
        }
        for kind, found in things.items()
        for one in found
    ]


def _last(link: str) -> str:
    return link.rpartition("/")[2]


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "gcp_firewalls": gcp_firewalls,
            "gcp_found": gcp_found,
            "gcp_image_question": gcp_image_question,
            "gcp_images": gcp_images,
            "gcp_labels": gcp_labels,
            "gcp_machines": gcp_machines,
            "gcp_problems": gcp_problems,
            "gcp_taken_away": gcp_taken_away,
            "gcp_volumes": gcp_volumes,
        }
