# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of machines in clouds: subnets, rules in the words of a cloud, and what became of machines to make."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import ROLE
from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import table

# No cloud has smaller ones.
SMALLEST_SUBNET = 28
# What clouds say when a zone cannot have one more machine of that size, and another one may.
NO_ROOM = (
    "InsufficientInstanceCapacity", "Unsupported",  # AWS
    "No valid host was found",  # OpenStack
    "ZONE_RESOURCE_POOL_EXHAUSTED", "does not exist in zone",  # GCP
    "SkuNotAvailable", "AllocationFailed", "Overconstrained",  # Azure
)  # fmt: skip


def cloud_subnets(network: str, zones: Sequence[str], prefix: str) -> list[dict[str, Any]]:
    """A public and a private subnet for each zone, of equal sizes: name, cidr, zone, public."""
    try:
        whole = ipaddress.ip_network(network)
    except ValueError as error:
        raise AnsibleFilterError(f"pygrid_cloud_cidr: {error}") from error
    bits = (2 * len(zones) - 1).bit_length()
    if whole.prefixlen + bits > SMALLEST_SUBNET:
        needed = f"{2 * len(zones)} subnets of at least /{SMALLEST_SUBNET}"
        raise AnsibleFilterError(f"pygrid_cloud_cidr: {network} cannot be divided into {needed}")
    parts = [str(part) for part in whole.subnets(prefixlen_diff=bits)]
    wanted = [(public, zone) for public in (True, False) for zone in zones]
    return [
        {"name": f"{prefix}-{'public' if public else 'private'}-{zone}", "cidr": cidr, "zone": zone, "public": public}
        for (public, zone), cidr in zip(wanted, parts, strict=False)
    ]


def with_kept_volumes(machines: Iterable[Mapping[str, Any]], zones: Mapping[str, str]) -> list[dict[str, Any]]:
    """Machines to make, each in the zone of the volume that was kept of it. ``zones``: of these volumes, by host."""
    return [
        {**machine, "zones": [zones[machine["host"]]] if machine["host"] in zones else machine["zones"]}
        for machine in machines
    ]


def machines_to_try(
    machines: Iterable[Mapping[str, Any]], attempt: int, made: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Machines that are still to be made, each with the ``zone`` to try.

    Args:
        machines: all that are to be made.
        attempt: counted from 0.
        made: what became of those of former attempts; a cloud may say yes where another zone had no room.
    """
    found = []
    for machine in machines:
        failure = made.get(machine["host"], {}).get("failure", NO_ROOM[0])
        if attempt < len(machine["zones"]) and any(words in failure for words in NO_ROOM):
            found.append({**machine, "zone": machine["zones"][attempt]})
    return found


def machines_made(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What became of machines, by host. ``results``: of asynchronous tasks that each made one.

    Each has id, made (whether by this run) and failure, which is "" for a good one.
    """
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        host = result["item"]["item"]["host"]
        identity = _id(result)
        failure = "" if identity else _reason(result)
        found[host] = {"id": identity, "made": bool(result.get("changed")), "failure": failure}
    return found


def _id(result: Mapping[str, Any]) -> str:
    """The cloud's id of a machine, as the cloud's module returned it; "" when there is none."""
    if result.get("failed"):
        return ""
    if result.get("instance_ids"):
        return str(result["instance_ids"][0])
    machine = result.get("server") or (result.get("data") or {}).get("droplet") or result
    return str(machine.get("id", ""))


def _reason(result: Mapping[str, Any]) -> str:
    said = result.get("msg") or result.get("module_stderr") or "it was not made in time"
    return " ".join(str(said).split())[:500]


def machine_failures(made: Mapping[str, Mapping[str, Any]], machines: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each machine that could not be made."""
    found = []
    for machine in machines:
        failure = made[machine["host"]]["failure"]
        if failure:
            zones = ", ".join(machine["zones"])
            found.append(f"{machine['host']} ({machine['size']}, tried in {zones}): {failure}")
    return found


def machine_ids(present: Iterable[Mapping[str, Any]], made: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The cloud's ids of machines by host: of those that were there, and of those that were made."""
    ids = {machine["host"]: str(machine["facts"]["id"]) for machine in present}
    return ids | {host: machine["id"] for host, machine in made.items() if machine["id"]}


def machines_dead(made: Mapping[str, Mapping[str, Any]], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Hosts whose machine was made by this run and cannot be logged in to."""
    return machines_out_of_reach([host for host, machine in made.items() if machine["made"]], hostvars)


def machines_out_of_reach(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of the hosts that cannot be logged in to."""
    return [host for host in hosts if not _has_booted(host, hostvars)]


def _has_booted(host: str, hostvars: Mapping[str, Mapping[str, Any]]) -> bool:
    if host not in hostvars:
        return False
    boot = hostvars[host].get("__cloud_boot") or {}
    return "elapsed" in boot and "msg" not in boot


def machine_resizes_text(resizes: Sequence[Mapping[str, str]]) -> str:
    """Which machines get another size, for people. ``resizes``: of machine_plan."""
    if not resizes:
        return "All machines have their size."
    rows = [[one["host"], one["id"], one["former"], one["wanted"]] for one in resizes]
    return "\n".join(table([["NODE", "MACHINE", "SIZE", "NEW SIZE"], *rows]))


def machines_of_workers(workers: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of the Workers for which the cloud made a machine of their own, which goes with them."""
    found = []
    for host in workers:
        tags = (hostvars[host].get("pygrid_machine") or {}).get("tags") or {}
        if tags.get(ROLE) == "worker" and f"{ROLE}_2" not in tags:
            found.append(host)
    return found


def cloud_found_text(found: Sequence[Mapping[str, Any]], grid: str, with_data: bool) -> str:
    """What deprovision.yml removes and keeps, for people."""
    if not found:
        return f"Nothing carries the tags of {grid}."
    rows = [["KIND", "NAME", "ID", "WHAT"]]
    for one in found:
        what = "is kept: it holds data" if one["kept"] and not with_data else "is removed"
        rows.append([one["kind"], one["name"], one["id"], what])
    return "\n".join(table(rows))


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "cloud_found_text": cloud_found_text,
            "cloud_subnets": cloud_subnets,
            "machine_failures": machine_failures,
            "machine_ids": machine_ids,
            "machine_resizes_text": machine_resizes_text,
            "machines_dead": machines_dead,
            "machines_made": machines_made,
            "machines_of_workers": machines_of_workers,
            "machines_out_of_reach": machines_out_of_reach,
            "machines_to_try": machines_to_try,
            "with_kept_volumes": with_kept_volumes,
        }
