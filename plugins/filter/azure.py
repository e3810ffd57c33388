# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters between the words of Azure and those of the role cloud."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

# The tag of a disk that says whose data are on it, and the tag of an image that says when it was made.
DATA_OF = "pygrid_data_of"
MADE = "pygrid_image_made"
# What a name may be that no two nodes share: Azure does not tell capital letters from small ones.
PLAIN_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# A machine's name may have 64 characters; its disks' names have some more.
LONGEST_NAME = 60
FIRST_PRIORITY = 100
LAST_PRIORITY = 4096
KINDS = {
    "Microsoft.Compute/virtualMachines": "machine",
    "Microsoft.Network/networkInterfaces": "interface",
    "Microsoft.Compute/disks": "disk",
    "Microsoft.Network/virtualNetworks": "network",
    "Microsoft.Network/natGateways": "NAT gateway",
    "Microsoft.Network/publicIPAddresses": "address",
    "Microsoft.Network/networkSecurityGroups": "security group",
    "Microsoft.Network/applicationSecurityGroups": "group of machines",
    "Microsoft.Compute/images": "image",
    "Microsoft.Resources/resourceGroups": "resource group",
}


def azure_name(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that Azure takes for anything; one that had to be changed ends with a part of its hash."""
    if PLAIN_NAME.fullmatch(name) and len(name) <= longest:
        return name
    cut = re.sub(r"[^a-z0-9]+", "-", name.lower())[: longest - 9].strip("-")
    return f"{cut}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def azure_subnets(subnets: Iterable[Mapping[str, Any]], nat: str) -> list[dict[str, Any]]:
    """Subnets of cloud_subnets for a virtual network.

    Args:
        nat: id of the NAT gateway of private ones; "" for none.
    """
    found = []
    for subnet in subnets:
        # Without this Azure lets machines out by an address of its own, wherever they are.
        properties: dict[str, Any] = {"addressPrefix": subnet["cidr"], "defaultOutboundAccess": False}
        if nat and not subnet["public"]:
            properties["natGateway"] = {"id": nat}
        found.append({"name": subnet["name"], "properties": properties})
    return found


def azure_security(
    rules: Mapping[str, Iterable[Mapping[str, Any]]], network: str, name: str, common: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """For each kind of node an application security group, then for each a network security group with its rules.

    Args:
        rules: of machine_plan, by kind.
        network: what the ids of all of them begin with.
        name: what their names begin with.
        common: what they have in common: location and tags.
    """
    prefix = f"{network}/applicationSecurityGroups/{name}-"
    groups = [{"id": f"{prefix}{kind}", "body": dict(common)} for kind in rules]
    for kind, openings in rules.items():
        identity = f"{network}/networkSecurityGroups/{name}-{kind}"
        properties = {"securityRules": _security_rules(openings, prefix)}
        groups.append({"id": identity, "body": {**common, "properties": properties}})
    return groups


def _security_rules(rules: Iterable[Mapping[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """The rules, and one that closes all the rest. ``prefix``: of the application security groups of kinds of nodes."""
    # Each by its name, and in one order, so that nothing changes when they are told in another one.
    openings = {one["name"]: one for rule in rules for one in _openings(rule, prefix)}
    found = [_rule(openings[name], FIRST_PRIORITY + number) for number, name in enumerate(sorted(openings))]
    closed = {"name": "close-the-rest", "protocol": "*", "port": "*", "access": "Deny", "sourceAddressPrefix": "*"}
    # Without it, what Azure has by itself lets in everybody who is in the network.
    return [*found, _rule({**closed, "description": "Nothing else is open"}, LAST_PRIORITY)]


def _openings(rule: Mapping[str, Any], prefix: str) -> Iterator[dict[str, Any]]:
    common = {"protocol": "Tcp", "port": str(rule["port"]), "access": "Allow", "description": rule["why"][:140]}
    for kind in rule["kinds"]:
        groups = [{"id": f"{prefix}{kind}"}]
        yield {**common, "name": f"{rule['port']}-from-{kind}", "sourceApplicationSecurityGroups": groups}
    for cidr in rule["cidrs"]:
        network = str(ipaddress.ip_network(cidr, strict=False))
        words = re.sub(r"[^0-9a-f]+", "-", network)
        yield {**common, "name": f"{rule['port']}-from-{words}", "sourceAddressPrefix": network}


def _rule(opening: Mapping[str, Any], priority: int) -> dict[str, Any]:
    more = {key: value for key, value in opening.items() if key not in ("name", "port")}
    fixed = {"direction": "Inbound", "sourcePortRange": "*", "destinationAddressPrefix": "*"}
    return {
        "name": opening["name"],
        "properties": {**more, **fixed, "destinationPortRange": opening["port"], "priority": priority},
    }


def azure_images(images: Iterable[Mapping[str, Any]], disk: int) -> list[dict[str, Any]]:
    """Images, each with id, name, created, usable, disk (GB), reference, path, and of and base, which image.yml notes.

    Args:
        images: of openmined.pygrid.azure_resource_info: resources, or what it found by its name.
        disk: size of the disk of an image that does not say it, GB.
    """
    found = []
    for image in images:
        tags, properties = image.get("tags") or {}, image.get("properties") or {}
        words = image["id"].split(":")
        names = ("publisher", "offer", "sku", "version")
        size = ((properties.get("storageProfile") or {}).get("osDisk") or {}).get("diskSizeGB")
        found.append({
            "id": image.get("name") or image["id"],
            "name": image.get("name") or image["id"],
            "path": image["id"],
            "created": tags.get(MADE, ""),
            "usable": properties.get("provisioningState", "Succeeded") == "Succeeded",
            "disk": size or disk,
            "reference": dict(zip(names, words, strict=True)) if len(words) == len(names) else {"id": image["id"]},
            "of": tags.get("pygrid_image_of", ""),
            "base": tags.get("pygrid_image_base", ""),
        })  # fmt: skip
    return found


def azure_kept_zones(disks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Zones of the disks with data, by the host that they are of."""
    tagged = [disk for disk in disks if DATA_OF in (disk.get("tags") or {})]
    return {disk["tags"][DATA_OF]: disk["zones"][0] for disk in tagged if disk.get("zones")}


def azure_devices(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By host the paths of which one is its volume, the surest first.

    Args:
        results: of a loop over items with the host as ``key`` that attached a disk as number 0.
    """
    # Of Azure's agent and of azure-vm-utils, which some newer images have.
    paths = ["/dev/disk/azure/scsi1/lun0", "/dev/disk/azure/data/by-lun/0"]
    return {result["item"]["key"]: paths for result in results}


def azure_machines(resources: Iterable[Mapping[str, Any]], ids: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """By host its machine: id, zones, size, and interface with its configuration and address, where these are known.

    Args:
        resources: machines and, if need be, network interfaces.
        ids: of the hosts the ids that Azure gave to their machines.
    """
    known = list(resources)
    interfaces = {one["id"].lower(): one for one in known if KINDS[one["type"]] == "interface"}
    machines = {one["properties"]["vmId"]: one for one in known if KINDS[one["type"]] == "machine"}
    return {host: _machine(machines[vm], interfaces) for host, vm in ids.items() if vm in machines}


def _machine(machine: Mapping[str, Any], interfaces: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    properties = machine["properties"]
    references = sorted(
        properties["networkProfile"]["networkInterfaces"],
        key=lambda one: not (one.get("properties") or {}).get("primary"),
    )
    interface = interfaces.get(references[0]["id"].lower(), {"id": references[0]["id"]})
    configurations = (interface.get("properties") or {}).get("ipConfigurations") or [{"name": ""}]
    first = configurations[0]
    return {
        "id": machine["id"],
        "zones": list(machine.get("zones") or []),
        "size": properties["hardwareProfile"]["vmSize"],
        "interface": interface["id"],
        "configuration": first["name"],
        "address": ((first.get("properties") or {}).get("publicIPAddress") or {}).get("id", ""),
    }


def azure_found(resources: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Everything that was found, each with kind, id, name and kept: whether it holds data of a node.

    A resource group with a disk that is kept is kept, and one with something of others in it is none of ours.
    """
    known = list(resources)
    ours = {one["id"].lower() for one in known}
    kept = {one["id"].lower() for one in known if DATA_OF in (one.get("tags") or {}) and KINDS[one["type"]] == "disk"}
    found = []
    for one in known:
        inside = {identity.lower() for identity in one.get("contents") or []}
        if inside <= ours:
            is_kept = one["id"].lower() in kept or bool(inside & kept)
            kind = KINDS[one["type"]]
            kind = "volume" if kind == "disk" and is_kept else kind
            found.append({"kind": kind, "id": one["id"], "name": one["name"], "kept": is_kept})
    return found


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "azure_devices": azure_devices,
            "azure_found": azure_found,
            "azure_images": azure_images,
            "azure_kept_zones": azure_kept_zones,
            "azure_machines": azure_machines,
            "azure_name": azure_name,
            "azure_security": azure_security,
            "azure_subnets": azure_subnets,
        }
