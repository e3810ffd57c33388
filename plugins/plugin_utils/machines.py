# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the machines of a cloud and their tags to the nodes of a grid: what all inventory plugins have in common.

A machine says what it is with four tags (labels, metadata): ``pygrid_grid``, ``pygrid_role``, ``pygrid_name`` and
``pygrid_domain``. One that carries several nodes says of each further one ``pygrid_role_2``, ``pygrid_name_2`` and
``pygrid_domain_2``, and so on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import NAME
from ansible_collections.openmined.pygrid.plugins.plugin_utils.plain_values import plain
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import role_options

GRID, ROLE, NODE, DOMAIN = "pygrid_grid", "pygrid_role", "pygrid_name", "pygrid_domain"
# What an inventory could not see; openmined.pygrid.grid_info refuses to take the rest for the whole grid.
FAILED = "pygrid_inventory_failed"
GROUPS = {
    "network": "pygrid_network",
    "domain": "pygrid_domain",
    "worker": "pygrid_worker",
    "spare": "pygrid_spare",
    # Where image.yml prepares an image, or a run that was killed has left it; no playbook but that one sees it.
    "image": "pygrid_image",
}
# Variables that nodes of one kind on one machine may not share; further ones get the port after.
PORTS = {
    "network": ("pygrid_network_port",),
    "domain": ("pygrid_domain_port", "pygrid_domain_queue_port"),
    "worker": ("pygrid_worker_port",),
    "spare": (),
    "image": (),
}
ADDRESSES = ("private", "public", "private_name", "public_name")
NAMES = ("node", "name", "id")
FACTS = ("id", "name", "region", "zone", "state", "type", "image")
_FURTHER = re.compile(r"^pygrid_(?:role|name|domain)_([2-9]|[1-9][0-9]{1,2})$")


@dataclass(frozen=True)
class Machine:
    """One machine as its cloud tells of it, in the words of this collection.

    ``id``: the cloud's own, unique there. ``addresses``: by the words of ADDRESSES, without those it does not have.
    ``type``: its size in the cloud's words. ``tags``: labels or metadata, by name.
    """

    cloud: str
    id: str
    name: str = ""
    region: str = ""
    zone: str = ""
    state: str = ""
    type: str = ""
    image: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        name = f"{shown(self.name)}, " if self.name and self.name != self.id else ""
        return f"{name}{self.id} in {self.region or self.cloud}"


@dataclass(frozen=True)
class Claim:
    """What one machine says of one node that it carries. ``number``: 1, and 2 and up for further ones."""

    machine: Machine
    number: int
    role: str
    name: str
    domain: str

    def tag(self, name: str) -> str:
        """Name of the tag that says it."""
        return name if self.number == 1 else f"{name}_{self.number}"


@dataclass
class Choice:
    """What the user of an inventory chose. ``grids``: empty for the only one there is."""

    grids: Sequence[str] = ()
    filters: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    hostnames: Sequence[str] = NAMES
    addresses: Sequence[str] = ("private", "public")


@dataclass
class Found:
    """Hosts by their names in the inventory, and a sentence for each machine that could not be made one.

    ``conflicts`` are those problems of which no part may be used: nobody knows which of the machines is meant.
    """

    hosts: dict[str, Claim] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


def shown(text: str) -> str:
    """A tag's value as it may stand in a message: one line, not too long, nothing that a terminal obeys."""
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return text if text.isprintable() else ascii(text)[1:-1]


def find_hosts(machines: Iterable[Machine], choice: Choice) -> Found:
    """Work out the hosts of the inventory from all machines of a cloud that have a tag ``pygrid_grid``."""
    found = Found()
    machines = [machine for machine in machines if machine.tags.get(GRID) and _is_wanted(machine, choice)]
    grids = Counter(machine.tags[GRID] for machine in machines)
    if len(grids) > 1 and not choice.grids:
        names = ", ".join(f"{shown(grid)} ({count} machines)" for grid, count in sorted(grids.items()))
        found.conflicts.append(f"there is more than one grid: {names}; say with the option grids which one is meant")
        return found
    for machine in machines:
        for claim in _claims(machine, found.problems):
            _add(claim, choice, found)
    return found


def _is_wanted(machine: Machine, choice: Choice) -> bool:
    if choice.grids and machine.tags[GRID] not in choice.grids:
        return False
    for name, wanted in choice.filters.items():
        value = machine.tags.get(name[4:]) if name.startswith("tag:") else getattr(machine, name)
        if value not in ([wanted] if isinstance(wanted, str) else wanted):
            return False
    return True


def _claims(machine: Machine, problems: list[str]) -> Iterator[Claim]:
    numbers = {1, *(int(match[1]) for match in map(_FURTHER.match, machine.tags) if match)}
    for number in sorted(numbers):
        suffix = "" if number == 1 else f"_{number}"
        role, name, domain = (machine.tags.get(f"{tag}{suffix}", "") for tag in (ROLE, NODE, DOMAIN))
        claim = Claim(machine, number, role, name, domain)
        problem = _problem(claim)
        if problem:
            problems.append(f"{machine}: {problem}")
        else:
            yield claim


def _problem(claim: Claim) -> str | None:
    if not claim.role:
        return f"it has no tag {claim.tag(ROLE)} ({', '.join(GROUPS)})"
    if claim.role not in GROUPS:
        return f"its tag {claim.tag(ROLE)} is {shown(claim.role)!r}, which is none of {', '.join(GROUPS)}"
    if claim.name and not NAME.match(claim.name):
        return (
            f"its tag {claim.tag(NODE)} is {shown(claim.name)!r}, which is no name of a node (letters, digits, dot,"
            " dash and underscore, at most 50, a letter or digit first)"
        )
    if claim.role == "worker" and not claim.domain:
        return f"it is a worker and has no tag {claim.tag(DOMAIN)}, which names the Domain it works for"
    if claim.domain and not NAME.match(claim.domain):
        return f"its tag {claim.tag(DOMAIN)} is {shown(claim.domain)!r}, which is no name of a node"
    return None


def _add(claim: Claim, choice: Choice, found: Found) -> None:
    machine = claim.machine
    host = _hostname(claim, choice.hostnames)
    if host is None:
        found.problems.append(f"{machine}: it has nothing that could be its name: give it a tag {claim.tag(NODE)}")
        return
    address = next((machine.addresses[kind] for kind in choice.addresses if machine.addresses.get(kind)), None)
    if address is None:
        found.problems.append(
            f"{machine}: {host} has no address of the kinds {', '.join(choice.addresses)}"
            f" (state: {shown(machine.state) or 'unknown'}; it has {_known_addresses(machine)}); start it, leave it out"
            " with the option filters, or name another kind with the option addresses"
        )
        return
    other = found.hosts.get(host)
    if other is not None:
        where = "twice" if other.machine is machine else f"and {other.machine}"
        found.conflicts.append(
            f"{machine} {where} both claim to be {host}; change the tag {claim.tag(NODE)} of one of them"
            if other.machine is not machine
            else f"{machine} claims to be {host} twice; change its tag {claim.tag(NODE)}"
        )
        return
    found.hosts[host], found.addresses[host] = claim, address


def _hostname(claim: Claim, preference: Sequence[str]) -> str | None:
    """The first of what it may be called after that is one; further nodes of a machine need a name of their own."""
    candidates = {"node": claim.name}
    if claim.number == 1:
        candidates |= {"name": claim.machine.name, "id": claim.machine.id}
    return next((candidates[word] for word in preference if NAME.match(candidates.get(word, ""))), None)


def _known_addresses(machine: Machine) -> str:
    return ", ".join(kind for kind, address in machine.addresses.items() if address) or "none at all"


def host_variables(found: Found) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, group and variables of each host. What somebody wrote into tags is never a template."""
    before: Counter[tuple[str, str, str]] = Counter()
    for host, claim in found.hosts.items():
        machine = claim.machine
        variables: dict[str, Any] = {"ansible_host": plain(found.addresses[host]), "pygrid_machine": facts(machine)}
        if claim.role == "worker":
            variables["pygrid_worker_domain"] = plain(claim.domain)
        key = (machine.region, machine.id, claim.role)
        if before[key]:
            for name in PORTS[claim.role]:
                variables[name] = role_options(claim.role)[name]["default"] + before[key]
        before[key] += 1
        yield host, GROUPS[claim.role], variables


def facts(machine: Machine) -> dict[str, Any]:
    """The machine as a variable, the way it can be written to a cache and read back."""
    return {name: plain(value) for name, value in vars(machine).items()}
