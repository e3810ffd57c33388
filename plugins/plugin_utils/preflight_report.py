# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be looked at before a deploy, and the report of what was found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.addresses import is_address
from ansible_collections.openmined.pygrid.plugins.plugin_utils.flows import Flow, firewall_rules, flows
from ansible_collections.openmined.pygrid.plugins.plugin_utils.preflight_problems import split_machines

# Idle memory of a node is 320-400 MB (measured); so much more for each process that runs jobs.
NODE_MB = 400
PROCESS_MB = 400
# A release is 690 MB and 32,000 files; the cache is as large again.
RELEASE_MB = 1000
RELEASE_FILES = 40_000
# So that a new node can start and write its first rows; data sets come on top.
DATA_MB = 500
DATA_FILES = 1000
# What Ansible says -> what helps.
REMEDIES = {
    "sudo password": "give ansible_become_password (in Vault), or run with --ask-become-pass",
    "host key (verification failed|mismatch)": (
        "compare the host's key (ssh-keygen -l) with what its owner says, then put it into known_hosts"
    ),
    "stdin is not interactive": "nobody knows its host key yet: compare it, and put it into known_hosts",
}
SYSTEM_DATA = "/var/lib/pygrid"
SYSTEM_CACHE = "/var/cache/pygrid"

Grid = Mapping[str, Any]
Variables = Mapping[str, Mapping[str, Any]]


def machine_needs(grid: Grid, location: str, variables: Variables) -> dict[str, Any]:
    """What ``module_utils/system_checks.py`` is to look for on one machine, for all its nodes."""
    hosts = grid["hosts"][location]["nodes"]
    nodes = [grid["nodes"][host] for host in hosts]
    workers = [node for node in nodes if node["kind"] == "worker"]
    processes = sum(node["settings"].get("processes", 1) for node in workers)
    release = {"mb": RELEASE_MB, "files": RELEASE_FILES, "release": True}
    space = [
        {"path": SYSTEM_DATA, "mb": DATA_MB * len(nodes), "files": DATA_FILES * len(nodes)},
        {**release, "path": nodes[0]["home"], "programs": True},
        {**release, "path": SYSTEM_CACHE},
    ]
    return {
        "reach": grid["hosts"][location]["reach"],
        "names": _names(grid, location, flows(grid, variables)),
        "memory_mb": NODE_MB * len(nodes) + PROCESS_MB * processes,
        "space": space,
        "ports": list(_shared_ports(nodes, grid["hosts"][location]["database_port"])),
        "limits": any(node["limits"][limit] for node in nodes for limit in ("memory_mb", "tasks")),
    }


def _names(grid: Grid, location: str, every_flow: Iterable[Flow]) -> dict[str, str]:
    """Names that programs on the machine will look up, each with what for."""
    names = {}
    for flow in every_flow:
        if flow.source == location and not is_address(flow.address):
            names.setdefault(flow.address, flow.why)
    return names


def _shared_ports(nodes: Iterable[Mapping[str, Any]], database_port: int | None) -> Iterator[dict[str, Any]]:
    """Ports of the proxy and of PostgreSQL, each once."""
    ports = {node["ingress"]["port"]: "pygrid_https_port" for node in nodes if node["ingress"]}
    if database_port:
        ports[database_port] = "pygrid_database_port"
    for port, variable in ports.items():
        yield {"variable": variable, "port": port}


def reachability_plan(grid: Grid, location: str, variables: Variables) -> dict[str, Any]:
    """What M(openmined.pygrid.reachability) does on one machine: where it listens, where it connects to, what it ends.

    Tokens of listeners are in it once they listen; ``end`` is None unless visitors of its listener stayed away.
    """
    every_flow = flows(grid, variables)
    arriving = _targets(flow for flow in every_flow if flow.target == location)
    expected: dict[int, set[tuple[str | None, str, int]]] = {}
    for flow in arriving.values():
        if flow.target_port is not None:
            expected.setdefault(flow.target_port, set()).add((flow.source, flow.address, flow.port))
    incoming = firewall_rules(grid, location, variables)["incoming"]
    return {
        "listen": [
            {
                "port": port,
                "sources": sorted({source for rule in incoming if rule["port"] == port for source in rule["sources"]}),
                "expected": len(visitors),
            }
            for port, visitors in sorted(expected.items())
        ],
        "connect": [
            {"address": flow.address, "port": flow.port, "token": token}
            if (token := _token(grid, flow, variables))
            else {"address": flow.address, "port": flow.port}
            for flow in _leaving(every_flow, location)
        ],
        "end": _unvisited(grid, arriving.values(), variables),
    }


def _unvisited(grid: Grid, arriving: Iterable[Flow], variables: Variables) -> str | None:
    """Token of a listener that would wait for somebody who will not come."""
    for flow in arriving:
        token = _token(grid, flow, variables)
        visit = _visits_by_place(grid, flow.source, variables).get((flow.address, flow.port)) or {}
        if token and visit.get("result") != "ok":
            return token
    return None


def _visits_by_place(
    grid: Grid, location: str | None, variables: Variables
) -> dict[tuple[str, int], Mapping[str, Any]]:
    """What became of the connections that a machine has tried."""
    hosts = grid["hosts"][location]["nodes"] if location else []
    answers = [(variables.get(host) or {}).get("__preflight_visits") or {} for host in hosts]
    visits = next((answer["visits"] for answer in answers if answer.get("visits")), [])
    return {(visit["address"], visit["port"]): visit for visit in visits}


def _targets(found: Iterable[Flow]) -> dict[tuple[Any, ...], Flow]:
    """Of flows that are the same connection for the network, the first. Data scientists cannot be tried from here."""
    targets: dict[tuple[Any, ...], Flow] = {}
    for flow in found:
        if flow.source is not None and flow.crosses:
            targets.setdefault((flow.source, flow.target, flow.address, flow.port, flow.target_port), flow)
    return targets


def _leaving(every_flow: Iterable[Flow], location: str) -> list[Flow]:
    return list(_targets(flow for flow in every_flow if flow.source == location).values())


def _listener(grid: Grid, location: str | None, variables: Variables) -> Mapping[str, Any] | None:
    """What the listener of a machine said when it started; None when there is none."""
    hosts = grid["hosts"][location]["nodes"] if location else []
    answers = [(variables.get(host) or {}).get("__preflight_listener") or {} for host in hosts]
    return next((answer for answer in answers if answer.get("token")), None)


def _token(grid: Grid, flow: Flow, variables: Variables) -> str | None:
    listener = _listener(grid, flow.target, variables)
    return listener["token"] if listener and flow.target_port in listener["listening"] else None


def preflight_report(grid: Grid, variables: Variables) -> dict[str, Any]:
    """All that a preflight has found: ``machines``, the numbers of ``problems`` and ``warnings``, and the ``text``."""
    split = split_machines(grid, variables)
    machines = [_machine(grid, location, variables, split) for location in grid["hosts"]]
    problems = sum(len(machine["problems"]) for machine in machines)
    warnings = sum(len(machine["warnings"]) for machine in machines)
    return {
        "machines": machines,
        "problems": problems,
        "warnings": warnings,
        "text": "\n".join(_text(machines, problems, warnings)),
    }


def _machine(grid: Grid, location: str, variables: Variables, split: Mapping[str, str]) -> dict[str, Any]:
    hosts = grid["hosts"][location]["nodes"]
    known = {grid["nodes"][host]["name"]: variables.get(host) or {} for host in hosts}
    states = {name: values.get("__node_state") or {} for name, values in known.items()}
    problems = _merge({name: _problems_of(values) for name, values in known.items()})
    problems += [split[host] for host in hosts if host in split]
    warnings = _merge({name: state.get("host_warnings") or [] for name, state in states.items()})
    for serious, sentence in _visits(grid, location, variables):
        (problems if serious else warnings).append(sentence)
    return {
        "machine": location,
        "nodes": list(known),
        "reachable": not any(state.get("unreachable") for state in states.values()),
        "problems": list(dict.fromkeys(problems)),
        "warnings": list(dict.fromkeys(warnings)),
    }


def _problems_of(values: Mapping[str, Any]) -> list[str]:
    """What was found when one node was looked at, or why it could not be."""
    state = values.get("__node_state") or {}
    if "node" not in state:
        reason = _reason(values.get("__preflight_failure") or state.get("msg") or "it was not looked at")
        return [f"it cannot be reached by SSH: {reason}" if state.get("unreachable") else reason]
    listener = values.get("__preflight_listener") or {}
    database = (values.get("__database_preflight") or {}).get("problem")
    failure = [_reason(values["__preflight_failure"])] if values.get("__preflight_failure") else []
    found = [*(state.get("problems") or []), *(listener.get("problems") or []), *failure]
    return [*found, database] if database else found


def _merge(found: Mapping[str, Iterable[str]]) -> list[str]:
    """What the nodes of one machine have found, each sentence once; one that concerns a single node says which."""
    nodes: dict[str, list[str]] = {}
    for name, sentences in found.items():
        for sentence in sentences:
            nodes.setdefault(sentence, []).append(name)
    return [
        f"{names[0]}: {sentence}" if len(names) == 1 < len(found) else sentence for sentence, names in nodes.items()
    ]


def _visits(grid: Grid, location: str, variables: Variables) -> Iterator[tuple[bool, str]]:
    """(is a problem, sentence) for every connection from a machine that did not go as it should."""
    by_place = _visits_by_place(grid, location, variables)
    for flow in _leaving(flows(grid, variables), location):
        visit = by_place.get((flow.address, flow.port))
        if visit is None:
            continue
        listener = _listener(grid, flow.target, variables)
        # whether there is a firewall that refuses makes no difference where the machine itself was not reached
        if flow.target is None or listener is not None:
            yield from _judge(flow, visit, listener, _manages_firewall(grid, flow.target, variables))


def _manages_firewall(grid: Grid, location: str | None, variables: Variables) -> bool:
    hosts = grid["hosts"][location]["nodes"] if location else []
    return bool(hosts) and all((variables.get(host) or {}).get("pygrid_firewall") != "none" for host in hosts)


def _judge(
    flow: Flow, visit: Mapping[str, Any], listener: Mapping[str, Any] | None, firewall: bool
) -> Iterator[tuple[bool, str]]:
    where = f"{flow.address}:{flow.port}"
    what = f"it cannot connect to {where} ({flow.why})"
    result, detail = visit["result"], visit["detail"]
    holder = (listener or {}).get("in_use", {}).get(str(flow.target_port))
    opens = (listener or {}).get("opens")
    if result == "ok":
        if firewall and visit["let_in"] is False:
            yield (
                True,
                f"its connections to {where} arrive from {visit['seen_from']}, which the firewall there would refuse;"
                f" set pygrid_firewall_sources of {flow.node} to the addresses that others see",
            )
    elif result == "no address":
        yield True, f"the name {flow.address} ({flow.why}) does not resolve here; add it to the DNS or to /etc/hosts"
    elif result == "other":
        # a load balancer or a proxy of one's own in front is fine
        own = flow.target is not None and flow.port == flow.target_port
        yield own, f"{where} ({flow.why}) is answered by another program than that machine; is the address right?"
    elif result == "refused" and holder:
        yield (
            False,
            f"{where} ({flow.why}) cannot be tried: {holder} has the port there, but not for other machines yet",
        )
    elif result in ("rejected", "filtered") and opens:
        yield False, f"{what} yet: {opens} on that machine may be why, and a deploy opens the port there"
    elif result == "refused":
        yield True, f"{what}: it is refused on the way or by another machine of that address ({detail})"
    elif result == "rejected":
        yield True, f"{what}: a firewall rejects it ({detail}); let TCP port {flow.port} through"
    elif result == "filtered":
        yield True, f"{what}: {detail}; a firewall or security group drops it: let TCP port {flow.port} through"
    elif result == "no route":
        yield True, f"{what}: {detail}; are both machines in networks with a route between them?"


def _reason(message: Any) -> str:
    """Why a task failed, in one line and without what Ansible puts in front."""
    text = re.sub(r"^((Task|Module|Action) failed: )+", "", " ".join(str(message).split()))
    remedies = (remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, text, re.IGNORECASE))
    return "; ".join([text, *remedies])


def _text(machines: Iterable[Mapping[str, Any]], problems: int, warnings: int) -> Iterator[str]:
    for machine in machines:
        verdict = f"{len(machine['problems'])} to mend" if machine["problems"] else "ready"
        yield f"{machine['machine']} ({', '.join(machine['nodes'])}): {verdict}"
        for sentence in machine["problems"]:
            yield f"  PROBLEM  {sentence}"
        for sentence in machine["warnings"]:
            yield f"  WARNING  {sentence}"
    yield ""
    yield summary(problems, warnings)


def summary(problems: int, warnings: int) -> str:
    """The last line of the report."""
    counted = f"{problems} problem{'' if problems == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"
    if problems:
        return f"{counted}. A deploy would fail or be unsafe; nothing was changed."
    return f"{counted}. The grid can be deployed; nothing was changed."
