# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to come and to go so that each Domain has its wanted number of Workers, and where the new ones are placed.

Nothing here talks to a host: from the grid, from what was asked of its Workers, and from what a former run has left
unfinished follows the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import duration, table
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale_file import (
    COMING,
    GOING,
    JOINING,
    LEAVING,
    ScaleFile,
)

# Documented default of pygrid_worker_port.
FIRST_PORT = 5600
_NUMBER = re.compile(r"(\d+)")

Grid = Mapping[str, Any]
States = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    ``workers``: how many each Domain is to have; ``joined``: which Domains the Network has, None: as it is.
    ``machines``: Workers for which a cloud would make machines, by Domain; only in check mode, else they are there.
    """

    workers: Mapping[str, Any]
    joined: Sequence[str] | None = None
    machines: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Machine:
    """A place for Workers.

    ``carrier``: an inventory host of the user's own through which the machine is reached.
    """

    location: str
    carrier: str
    spare: bool = False
    serves: bool = False
    workers: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Step:
    """One Worker or Domain for which something is to be done.

    ``new``: in no file of the inventory yet; ``begun``: by a former run that did not end it.
    """

    host: str
    what: str
    domain: str
    location: str
    carrier: str = ""
    port: int = 0
    new: bool = False
    begun: bool = False
    doing: str = ""


@dataclass
class Plan:
    """``notes``: what follows from it and may not be expected."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def hosts(self, *what: str) -> list[str]:
        return [step.host for step in self.steps if step.what in what]


def problems(grid: Grid, wanted: Wanted) -> Iterator[str]:
    """What is wrong with the numbers and names that were given."""
    domains = [host for host, node in grid["nodes"].items() if node["kind"] == "domain"]
    known = f"the Domains are {', '.join(domains)}" if domains else "the inventory has no Domain"
    for domain, number in wanted.workers.items():
        if domain not in domains:
            yield f"pygrid_domain_workers names {domain}, which is no Domain of the inventory; {known}"
        if not str(number).isdecimal():
            yield f"pygrid_domain_workers is {number!r} for {domain}; it is a number from 0 on"
    for domain in wanted.joined or []:
        if domain not in domains:
            yield f"pygrid_domains_joined names {domain}, which is no Domain of the inventory; {known}"
    if wanted.joined is not None and grid["network_url"] is None:
        yield "pygrid_domains_joined is given, and the grid has no Network that Domains could join"


def to_ask(grid: Grid, record: ScaleFile, wanted: Wanted) -> list[str]:
    """The Workers among whom some are to go: what they do decides which."""
    asked = []
    for domain, workers in _pools(grid).items():
        if len(workers) > _number(domain, workers, record, wanted):
            asked += workers
    return asked


def make_plan(grid: Grid, record: ScaleFile, wanted: Wanted, states: States) -> Plan:
    """The plan. ``states``: what was read of the Workers of :func:`to_ask`, by inventory name."""
    plan = Plan()
    machines = _machines(grid, record)
    names = {*grid["nodes"], *grid["spare"], *(node["name"] for node in grid["nodes"].values())}
    for domain, workers in _pools(grid).items():
        number = _number(domain, workers, record, wanted)
        going = _choose(grid, domain, record, states, machines, len(workers) - number)
        for host in workers:
            if host in going:
                plan.steps.append(_step(grid, host, GOING, record, states))
            elif record.unfinished.get(host) in (COMING, GOING):
                plan.steps.append(_step(grid, host, COMING, record, states))
        back = _spare_workers(grid, record, domain)
        made = list(wanted.machines.get(domain, []))
        for _unused in range(number - len(workers)):
            if made:
                plan.steps.append(Step(made.pop(0), COMING, domain, "a new machine"))
                continue
            step = _returning(grid, back.pop(0)) if back else _place(grid, domain, machines, names)
            plan.steps.append(step)
            names.add(step.host)
        if number == 0 and workers:
            plan.notes.append(f"{domain} keeps no Worker: its jobs wait until it has one again")
    plan.steps += _memberships(grid, record, wanted)
    return plan


def _pools(grid: Grid) -> dict[str, list[str]]:
    """The Workers (inventory names) of each Domain."""
    return {host: list(node["workers"]) for host, node in grid["nodes"].items() if node["kind"] == "domain"}


def _number(domain: str, workers: Sequence[str], record: ScaleFile, wanted: Wanted) -> int:
    """How many Workers a Domain is to have; when that is not said, as many as a former run meant it to have."""
    if domain in wanted.workers:
        return int(wanted.workers[domain])
    return sum(record.unfinished.get(host) != GOING for host in workers)


# ---- who goes


def _choose(
    grid: Grid, domain: str, record: ScaleFile, states: States, machines: Mapping[str, Machine], surplus: int
) -> list[str]:
    """Those who go: whom a former run chose, then the idle, then those whose jobs began last; the newest first."""
    workers = sorted(grid["nodes"][domain]["workers"], key=natural, reverse=True)

    def cost(host: str) -> tuple[Any, ...]:
        busy, seconds = _busy(states.get(host))
        return (record.unfinished.get(host) != GOING, busy, seconds, not machines[_location(grid, host)].spare)

    return sorted(workers, key=cost)[: max(0, surplus)]


def _busy(state: Mapping[str, Any] | None) -> tuple[int, float]:
    """How many jobs a Worker runs, and for how long the longest has run."""
    health = ((state or {}).get("node") or {}).get("health") or {}
    jobs = [slot for slot in health.get("slots") or [] if slot["job"]]
    return len(jobs), max((slot["busy_seconds"] for slot in jobs), default=0.0)


def _doing(state: Mapping[str, Any] | None) -> str:
    if state is None:
        return ""
    busy, seconds = _busy(state)
    if busy:
        return f"runs {busy} job{'' if busy == 1 else 's'}, the longest for {duration(seconds)}: ends first"
    return "idle" if (state.get("node") or {}).get("health") else "does not run"


def _step(grid: Grid, host: str, what: str, record: ScaleFile, states: States) -> Step:
    node = grid["nodes"][host]
    doing = _doing(states.get(host)) if what == GOING else ""
    return Step(host, what, node["domain"], node["location"], begun=host in record.unfinished, doing=doing)


# ---- who comes, and where to


def _spare_workers(grid: Grid, record: ScaleFile, domain: str) -> list[str]:
    """Workers of the Domain that were taken away and stand in files of the user's: they come back first."""
    spare = grid["spare"]
    return sorted((host for host in record.spare if host in spare and spare[host]["domain"] == domain), key=natural)


def _returning(grid: Grid, host: str) -> Step:
    spare = grid["spare"][host]
    return Step(host, COMING, spare["domain"], spare["location"])


def _place(grid: Grid, domain: str, machines: Mapping[str, Machine], names: set[str]) -> Step:
    machine = min(_candidates(grid, domain, machines), key=lambda machine: _rank(machine, domain))
    host = _free_name(domain, names)
    port = _free_port(grid, domain, machine)
    machine.workers.append(host)
    machine.domains.append(domain)
    machine.ports.add(port)
    return Step(host, COMING, domain, machine.location, carrier=machine.carrier, port=port, new=True)


def _candidates(grid: Grid, domain: str, machines: Mapping[str, Machine]) -> list[Machine]:
    """In scope user a Worker shares the files of its Domain, so there is one machine only."""
    if grid["scope"] == "user":
        return [machines[_location(grid, domain)]]
    return list(machines.values())


def _rank(machine: Machine, domain: str) -> tuple[Any, ...]:
    """Fewest Workers first, of equals a spare one, then one that has Workers of this Domain; servers of others last."""
    has_own = domain in machine.domains
    serves_others = machine.serves and not has_own and not machine.spare
    return (serves_others, len(machine.workers), not machine.spare, not has_own, natural(machine.location))


def _machines(grid: Grid, record: ScaleFile) -> dict[str, Machine]:
    """All machines of the inventory by their location."""
    machines: dict[str, Machine] = {}
    for host, spare in grid["spare"].items():
        machine = machines.setdefault(spare["location"], Machine(spare["location"], host))
        machine.spare = True
        machine.ports |= {spare["port"]} if spare["port"] else set()
    for host, node in grid["nodes"].items():
        machine = machines.setdefault(node["location"], Machine(node["location"], host))
        if machine.carrier in record.workers and host not in record.workers:
            machine.carrier = host
        machine.ports |= set(node["ports"].values())
        if node["kind"] == "worker":
            machine.workers.append(host)
            machine.domains.append(node["domain"])
        else:
            machine.serves = True
    return machines


def _free_name(domain: str, names: set[str]) -> str:
    number = 1
    while f"{domain}-w{number}" in names:
        number += 1
    return f"{domain}-w{number}"


def _free_port(grid: Grid, domain: str, machine: Machine) -> int:
    """The first port, from the lowest of the Domain's Workers on, that no node of the machine has."""
    own = [port for host in grid["nodes"][domain]["workers"] for port in grid["nodes"][host]["ports"].values()]
    port = min(own, default=FIRST_PORT)
    while port in machine.ports:
        port += 1
    return port


def _location(grid: Grid, host: str) -> str:
    return str(grid["nodes"][host]["location"])


def natural(name: str) -> tuple[Any, ...]:
    """Sorts w2 before w10."""
    return tuple(int(part) if part.isdecimal() else part for part in _NUMBER.split(name))


# ---- who joins and leaves the Network


def _memberships(grid: Grid, record: ScaleFile, wanted: Wanted) -> Iterator[Step]:
    for host, node in grid["nodes"].items():
        if node["kind"] != "domain":
            continue
        joined = node["joined"]
        shall = joined if wanted.joined is None else host in wanted.joined
        begun = record.unfinished.get(host) in (JOINING, LEAVING)
        if shall != joined or begun:
            yield Step(host, JOINING if shall else LEAVING, host, node["location"], begun=begun)


# ---- for people


def plan_text(grid: Grid, plan: Plan) -> str:
    """The plan as a table."""
    if not plan.steps:
        numbers = ", ".join(f"{domain} {len(workers)}" for domain, workers in _pools(grid).items())
        return f"Every Domain has its Workers: there is nothing to do ({numbers or 'the inventory has no Domain'})."
    rows = [["NODE", "WHAT", "DOMAIN", "MACHINE", ""]]
    for step in plan.steps:
        begun = "begun by a former run" if step.begun else ""
        rows.append([step.host, step.what, step.domain, step.location, "; ".join(filter(None, (begun, step.doing)))])
    return "\n".join([*table(rows), *([""] if plan.notes else []), *plan.notes])


def summary(plan: Mapping[str, Any], drained: Mapping[str, Any], policy: Mapping[str, str]) -> str:
    """What was done, by step, and what to do next.

    Args:
        plan: of the action scale_plan.
        drained: whether each Worker that went has ended its jobs in time, by inventory name.
        policy: what becomes of a job whose Worker has not, by inventory name.
    """
    words = {
        COMING: "runs on",
        GOING: "is gone from",
        JOINING: "has joined the Network",
        LEAVING: "has left the Network",
    }
    lines = []
    for step in plan["steps"]:
        place = f" {step['location']}" if step["what"] in (COMING, GOING) else ""
        lines.append(f"{step['host']} {words[step['what']]}{place}")
        if drained.get(step["host"]) is False:
            lines[-1] += f"; its job did not end in time: {_fate(policy[step['host']])}"
    lines += plan["notes"]
    if Path(plan["file"]).exists():
        lines += ["", f"Kept in {plan['file']}, a part of the inventory: keep it with the other files."]
    return "\n".join(lines)


def _fate(policy: str) -> str:
    again = "another Worker runs it again from its beginning (pygrid_worker_orphaned_jobs: requeue)"
    return again if policy == "requeue" else "it is interrupted (pygrid_worker_orphaned_jobs: interrupt)"


def as_numbers(value: Any) -> dict[str, Any]:
    """Numbers by name, given as such or as words: ``alice=3,bob=1``."""
    if not isinstance(value, str):
        return dict(value or {})
    pairs = (entry.partition("=") for entry in value.split(",") if entry.strip())
    return {name.strip(): number.strip() for name, _sign, number in pairs}


def as_list(value: Any) -> list[str] | None:
    """A list of names, given as a list or as words with commas between; None stays None."""
    if value is None:
        return None
    entries: Iterable[Any] = value.split(",") if isinstance(value, str) else value
    return [str(entry).strip() for entry in entries if str(entry).strip()]
