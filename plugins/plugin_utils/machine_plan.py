# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines a grid in a cloud is to have, and which of them are missing.

Nothing here talks to a cloud: what there is, an inventory plugin has found by the machines' tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import NAME
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import DOMAIN, GRID, NODE, ROLE
from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import table

NETWORK_NAME = "net"
# A machine has this tag while resize.yml changes its size: a run that was killed is gone on with.
RESIZING = "pygrid_resizing"
# Workers first: the jobs of one that restarts go to others.
RESIZE_ORDER = ("worker", "spare", "domain", "network")
# Size in GB of the volume on which a node keeps all that is its own, where an entry names none.
DATA_DISKS = {"network": 5, "domain": 20, "worker": 0, "spare": 0}


@dataclass(frozen=True)
class Entry:
    """One entry of ``pygrid_machines``: machines that are alike.

    Sizes of disks are in GB; ``data_disk`` is that of DATA_DISKS when None. ``zones``: in this order.
    """

    role: str
    size: str
    name: str = ""
    domain: str = ""
    count: int = 1
    zones: Sequence[str] = ()
    disk: int = 20
    data_disk: int | None = None
    spot: bool = False
    public: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> int:
        """Size of the volume of its data, GB; 0 for none."""
        return DATA_DISKS[self.role] if self.data_disk is None else self.data_disk

    @property
    def has_public_address(self) -> bool:
        return self.public or self.role == "network"

    def __str__(self) -> str:
        return " ".join(filter(None, (self.role, self.name, self.domain and f"for {self.domain}")))


@dataclass(frozen=True)
class Present:
    """A machine of the grid that the inventory found. ``facts``: its variable ``pygrid_machine``."""

    host: str
    role: str
    domain: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class New:
    """A machine to make. ``host``: the node's name; ``tags``: all that it has to have."""

    host: str
    role: str
    domain: str
    size: str
    zones: Sequence[str]
    disk: int
    data_disk: int
    spot: bool
    public: bool
    tags: Mapping[str, str]


@dataclass
class Plan:
    """``other_size``: the wanted size of machines that are there with another one, or that resize.yml is changing.

    ``data``: GB of the volume of each machine that is to have one, whether the machine is there or new.
    ``addresses``: those of these machines that are to have a public address that stays theirs.
    ``more``: a sentence for each Domain with more Workers than wanted.
    """

    new: list[New] = field(default_factory=list)
    present: list[Present] = field(default_factory=list)
    other_size: dict[str, str] = field(default_factory=dict)
    data: dict[str, int] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def problems(grid: str, entries: Sequence[Entry]) -> Iterator[str]:
    """What cannot be meant; shapes were checked before."""
    if not NAME.match(grid):
        yield f"pygrid_cloud_grid: {grid!r} cannot be a part of names: letters, digits, dot, dash and underscore"
    if not entries:
        yield "pygrid_machines is empty: say which machines the grid is to have"
    networks = [entry for entry in entries if entry.role == "network"]
    if sum(entry.count for entry in networks) > 1:
        yield "pygrid_machines has more than one network; a grid has one"
    names: set[str] = set()
    for entry in entries:
        if entry.role == "domain" and not entry.name:
            yield "pygrid_machines: a domain has no name"
        if entry.role == "worker" and not entry.domain:
            yield f"pygrid_machines: a {entry} has no domain, which is the Domain that it works for"
        if entry.role == "worker" and entry.name:
            yield f"pygrid_machines: {entry}: Workers get their names from their Domain; leave the name out"
        if entry.role in ("worker", "spare") and entry.data_disk:
            yield f"pygrid_machines: {entry} has a data_disk; only a Network and Domains keep data"
        if entry.role in ("network", "domain") and entry.spot:
            yield f"pygrid_machines: {entry} is spot; the cloud takes such a machine away, which only Workers survive"
        if entry.role == "domain" and entry.count != 1:
            yield f"pygrid_machines: {entry} has count {entry.count}; each Domain is an entry of its own"
        if entry.count < 0:
            yield f"pygrid_machines: {entry} has count {entry.count}"
        for name in filter(None, (entry.name, entry.domain)):
            if not NAME.match(name):
                yield (
                    f"pygrid_machines: {name!r} is no name of a node (letters, digits, dot, dash and underscore, at"
                    " most 50, a letter or digit first)"
                )
        name = entry.name or (NETWORK_NAME if entry.role == "network" else "")
        if name in names:
            yield f"pygrid_machines names {name} twice"
        names |= {name} - {""}
    domains = {entry.name for entry in entries if entry.role == "domain"}
    for domain in {entry.domain for entry in entries if entry.role == "worker"} - domains - {""}:
        yield f"pygrid_machines has Workers for {domain}, and no domain of that name"


def only_workers(entries: Sequence[Entry], domains: Iterable[str]) -> list[Entry]:
    """What scale.yml makes: Workers of these Domains, like those of the entries, of another Domain if need be."""
    kinds = [entry for entry in entries if entry.role == "worker"]
    found = [next((one for one in kinds if one.domain == domain), next(iter(kinds), None)) for domain in domains]
    return [replace(entry, domain=domain) for entry, domain in zip(found, domains, strict=True) if entry]


def make_plan(
    grid: str,
    entries: Sequence[Entry],
    zones: Sequence[str],
    workers: Mapping[str, int],
    present: Sequence[Present],
    free: int = 0,
) -> Plan:
    """What has to be made.

    Args:
        grid: value of the tag pygrid_grid.
        entries: the machines that are wanted.
        zones: those of entries that name none; machines are spread over them.
        workers: wanted numbers of Workers by Domain (``pygrid_domain_workers``), which win over counts of entries.
        present: the machines of the grid that are there.
        free: number of spare machines that Workers can be put on, so that none is made for those.
    """
    plan = Plan(present=list(present))
    left = {machine.host: machine for machine in present}
    names = set(left)
    shares = [_Share(entry, count) for entry, count in _with_counts(entries, workers)]
    for same_size in (True, False):  # else an entry would take the machines of another one that is like it
        for share in shares:
            share.take(left, same_size)
    for share in shares:
        entry = share.entry
        for machine in share.machines:
            if machine.facts.get("type") != entry.size or RESIZING in machine.facts.get("tags", {}):
                plan.other_size[machine.host] = entry.size
            _add_lasting(plan, entry, machine.host)
        for host in share.missing(names):
            if entry.role == "worker" and free:
                free -= 1
                continue
            names.add(host)
            order = _zones_from(entry.zones or zones, len(plan.new) + len(present))
            plan.new.append(_new(host, entry, order, grid))
            _add_lasting(plan, entry, host)
    wanted = {entry.domain for entry in entries if entry.role == "worker"}
    for domain in sorted(wanted & {machine.domain for machine in left.values()}):
        there = [machine for machine in present if machine.role == "worker" and machine.domain == domain]
        more = sum(machine.domain == domain for machine in left.values())
        plan.more.append(
            f"{domain} has {len(there)} Workers and {len(there) - more} are wanted; scale.yml takes Workers away"
        )
    return plan


def _with_counts(entries: Sequence[Entry], workers: Mapping[str, int]) -> Iterator[tuple[Entry, int]]:
    """Each entry with the number of machines that it is to have.

    When ``workers`` says how many a Domain is to have, its first entries get theirs and the last one gets the rest.
    """
    last = {entry.domain: entry for entry in entries if entry.role == "worker"}
    left = {domain: int(number) for domain, number in workers.items()}
    for entry in entries:
        if entry.role != "worker" or entry.domain not in left:
            yield entry, entry.count
            continue
        count = left[entry.domain] if entry is last[entry.domain] else min(entry.count, left[entry.domain])
        left[entry.domain] -= count
        yield entry, count


def _add_lasting(plan: Plan, entry: Entry, host: str) -> None:
    """Note what outlives the machine of a host."""
    if entry.data:
        plan.data[host] = entry.data
    if entry.has_public_address and entry.role in ("network", "domain"):
        plan.addresses.append(host)


@dataclass
class _Share:
    """An entry with those of the machines that are there that are its own."""

    entry: Entry
    count: int
    machines: list[Present] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The name of its only machine; "" for an entry whose machines are numbered."""
        return (self.entry.name or NETWORK_NAME) if self.entry.role in ("network", "domain") else ""

    def take(self, left: dict[str, Present], same_size: bool) -> None:
        """Take out of ``left`` what it may have."""
        for machine in list(left.values()):
            is_alike = machine.role == self.entry.role and machine.domain == self.entry.domain
            if same_size and machine.facts.get("type") != self.entry.size:
                continue
            if is_alike and self.host in ("", machine.host) and len(self.machines) < self.count:
                self.machines.append(left.pop(machine.host))

    def missing(self, names: set[str]) -> Iterator[str]:
        """Names for the machines that it lacks."""
        prefix = f"{self.entry.domain}-w" if self.entry.role == "worker" else f"{self.entry.name or 'spare'}-"
        for _number in range(self.count - len(self.machines)):
            yield self.host or _free(prefix, names)


def _free(prefix: str, names: set[str]) -> str:
    number = 1
    while f"{prefix}{number}" in names:
        number += 1
    return f"{prefix}{number}"


def _zones_from(zones: Sequence[str], start: int) -> list[str]:
    """All zones, beginning with another one for each machine: the next ones are for when the first has no room."""
    if not zones:
        return []
    start %= len(zones)
    return [*zones[start:], *zones[:start]]


def _new(host: str, entry: Entry, zones: Sequence[str], grid: str) -> New:
    tags = {GRID: grid, ROLE: entry.role, NODE: host} | ({DOMAIN: entry.domain} if entry.domain else {})
    return New(
        host=host,
        role=entry.role,
        domain=entry.domain,
        size=entry.size,
        zones=zones,
        disk=entry.disk,
        data_disk=entry.data,
        spot=entry.spot,
        public=entry.has_public_address,
        tags={**entry.tags, **tags},
    )


def resizes(plan: Plan) -> list[dict[str, str]]:
    """Machines that get another size, in their order: host, id, former (its size by now) and wanted."""
    changing = [machine for machine in plan.present if machine.host in plan.other_size]
    return [
        {
            "host": machine.host,
            "id": str(machine.facts["id"]),
            "former": str(machine.facts["type"]),
            "wanted": plan.other_size[machine.host],
        }
        for machine in sorted(changing, key=lambda machine: RESIZE_ORDER.index(machine.role))
    ]


def plan_text(plan: Plan) -> str:
    """The plan as a table, for a person to agree to."""
    rows = [["NODE", "KIND", "SIZE", "WHERE", "WHAT"]]
    for machine in plan.present:
        size, wanted = str(machine.facts.get("type")), plan.other_size.get(machine.host)
        what = f"is there; {wanted} is wanted: resize.yml changes it" if wanted else "is there"
        rows.append([machine.host, machine.role, size, _place(machine.facts), what])
    for new in plan.new:
        details = [
            f"disk {new.disk} GB",
            f"data {new.data_disk} GB" if new.data_disk else "",
            "spot" if new.spot else "",
            "public address" if new.public else "",
        ]
        zone = new.zones[0] if new.zones else "-"
        rows.append([new.host, new.role, new.size, zone, f"is made: {', '.join(filter(None, details))}"])
    if not plan.new:
        plan_line = "All machines are there."
    else:
        plan_line = f"{len(plan.new)} machine{'s' if len(plan.new) > 1 else ''} to make, which the cloud charges for."
    return "\n".join([*table(rows), "", plan_line, *plan.more])


def _place(facts: Mapping[str, Any]) -> str:
    return str(facts.get("zone") or facts.get("region") or "-")
