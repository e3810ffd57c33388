# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who talks to whom in a grid: the one list from which firewalls are written and reachability is tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import SCHEME_PORTS, is_loopback_name

# The same word as in the variables: no limit on where a connection comes from.
EVERYONE = ("0.0.0.0/0", "::/0")
ROOT = "root"
INGRESS_ACCOUNT = "pygrid-ingress"

Grid = Mapping[str, Any]
Node = Mapping[str, Any]
Variables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Flow:
    """Connections that one side opens to the other, over TCP.

    ``node`` and ``source`` are the inventory name and the machine they come from, None for data scientists.
    ``sources`` is what the other side sees them come from: addresses, names or CIDRs.
    ``address`` and ``port`` are where they are sent to. ``target`` is the machine they arrive at (None: outside the
    grid) and ``target_port`` the port that has to be open there (None: none of ours).
    """

    node: str | None
    source: str | None
    sources: tuple[str, ...]
    target: str | None
    address: str
    port: int
    target_port: int | None
    why: str

    @property
    def crosses(self) -> bool:
        """Whether it leaves the machine it comes from."""
        return self.source is None or self.source != self.target

    def as_data(self) -> dict[str, Any]:
        return {**asdict(self), "sources": list(self.sources)}


def flows(grid: Grid, variables: Variables) -> list[Flow]:
    """All flows of the grid. ``variables``: those of each host, for the few that only concern firewalls."""
    return list(dict.fromkeys(_flows(grid, variables)))


def _flows(grid: Grid, variables: Variables) -> Iterator[Flow]:
    for host, node in grid["nodes"].items():
        own = variables.get(host) or {}
        if node["kind"] == "worker":
            yield from _flows_of_worker(grid, node, own)
            continue
        clients = tuple(own.get("pygrid_firewall_clients") or EVERYONE)
        yield _to_node(None, clients, node, f"data scientists use {node['name']}")
        if node["ingress"] and own.get("pygrid_tls_source") == "acme":
            yield _to_challenge(node)
        yield from _to_database(node, own)
        yield from _to_object_store(node, own)
        if node["kind"] == "domain":
            yield from _between_domain_and_network(grid, node, variables)


def _flows_of_worker(grid: Grid, worker: Node, own: Mapping[str, Any]) -> Iterator[Flow]:
    domain = grid["nodes"].get(worker["domain"])
    if domain is None:
        return
    queue_host, queue_port = _place(domain["queue_url"])
    yield _flow(worker, own, domain["location"], queue_host, queue_port, queue_port, _why_queue(domain))
    if (worker["settings"].get("blobs") or {}).get("kind") == "domain":
        yield _to_node(worker, _sources(worker, own), domain, f"Workers read and write blobs of {domain['name']}")
    yield from _to_database(worker, own)
    yield from _to_object_store(worker, own)


def _why_queue(domain: Node) -> str:
    return f"Workers take jobs of {domain['name']}"


def _between_domain_and_network(grid: Grid, domain: Node, variables: Variables) -> Iterator[Flow]:
    own = variables.get(domain["host"]) or {}
    network = grid["nodes"].get(grid["network"])
    if network is None:
        # a Network of somebody else
        if grid["network_url"]:
            host, port = _place(grid["network_url"])
            yield _flow(domain, own, None, host, port, None, "Domains ask the Network")
        return
    theirs = variables.get(network["host"]) or {}
    yield _to_node(domain, _sources(domain, own), network, "Domains ask the Network")
    yield _to_node(network, _sources(network, theirs), domain, f"the Network asks {domain['name']}")


def _to_node(source: Node | None, sources: tuple[str, ...], node: Node, why: str) -> Flow:
    """To the URL of a Network or a Domain: its proxy, or the node itself where that listens to others."""
    host, port = _place(node["url"])
    if node["ingress"]:
        target_port = node["ingress"]["port"]
    else:
        # a node on loopback without our proxy is behind somebody else's, whose ports are not ours
        target_port = None if is_loopback_name(node["address"]) else node["ports"][f"pygrid_{node['kind']}_port"]
    return Flow(
        node=source["host"] if source else None,
        source=source["location"] if source else None,
        sources=sources,
        target=node["location"],
        address=host,
        port=port,
        target_port=target_port,
        why=why,
    )


def _to_challenge(node: Node) -> Flow:
    """An ACME server asks on port 80, from addresses that it does not tell."""
    return Flow(
        node=None,
        source=None,
        sources=EVERYONE,
        target=node["location"],
        address=node["ingress"]["server_name"],
        port=SCHEME_PORTS["http"],
        target_port=SCHEME_PORTS["http"],
        why="the ACME server looks for its challenge",
    )


def _to_database(node: Node, own: Mapping[str, Any]) -> Iterator[Flow]:
    database = node["database"]
    if not database:
        return
    why = "nodes use the database"
    port = database["port"]
    managed = database["managed"]
    location = database["location"] if managed else None
    yield _flow(node, own, location, database["host"], port, port if managed else None, why)


def _to_object_store(node: Node, own: Mapping[str, Any]) -> Iterator[Flow]:
    endpoint = own.get("pygrid_s3_endpoint")
    if endpoint and (node["settings"].get("blobs") or {}).get("kind") == "s3":
        host, port = _place(endpoint)
        yield _flow(node, own, None, host, port, None, "nodes keep blobs in the object store")


def _flow(
    node: Node, own: Mapping[str, Any], target: str | None, address: str, port: int, target_port: int | None, why: str
) -> Flow:
    return Flow(node["host"], node["location"], _sources(node, own), target, address, port, target_port, why)


def _sources(node: Node, own: Mapping[str, Any]) -> tuple[str, ...]:
    """Where connections of a node's machine come from: how others reach it, unless the inventory knows better."""
    return tuple(own.get("pygrid_firewall_sources") or [node["reach"]])


def _place(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or SCHEME_PORTS.get(parts.scheme, 0)


def firewall_rules(grid: Grid, location: str, variables: Variables) -> dict[str, Any]:
    """What M(openmined.pygrid.firewall) has to know of one machine: all its nodes, whatever ``--limit`` says."""
    hosts = grid["hosts"][location]["nodes"]
    own = [variables.get(host) or {} for host in hosts]
    every_flow = flows(grid, variables)
    return {
        "incoming": _incoming(grid, location, every_flow) + [_also_open(entry) for entry in _union(own, "also_open")],
        "local": list(_local(grid, hosts, _union(own, "local_accounts"))),
        "egress": [
            _egress(grid["nodes"][host], every_flow) for host in hosts if grid["nodes"][host]["kind"] == "worker"
        ],
        "deny_others": any(_truthy(values.get("pygrid_firewall_deny_others")) for values in own),
    }


def _union(own: Iterable[Mapping[str, Any]], variable: str) -> list[Any]:
    """The values that the nodes of one machine give to a list that is the machine's, each once."""
    found: list[Any] = []
    for values in own:
        found += [value for value in values.get(f"pygrid_firewall_{variable}") or [] if value not in found]
    return found


def _truthy(value: Any) -> bool:
    return str(value).lower() in ("true", "yes", "1")


def _incoming(grid: Grid, location: str, every_flow: Iterable[Flow]) -> list[dict[str, Any]]:
    """Who may connect to which port of the machine; a port of ours that nobody needs from outside has no sources."""
    ports: dict[tuple[int, str], list[str]] = {}
    database_port = grid["hosts"][location]["database_port"]
    if database_port:
        ports[database_port, "nodes use the database"] = []
    for host in grid["hosts"][location]["nodes"]:
        node = grid["nodes"][host]
        if node["kind"] == "domain" and not is_loopback_name(node["queue_address"]):
            # It may listen for Workers of other machines before there are any.
            ports[node["ports"]["pygrid_domain_queue_port"], _why_queue(node)] = []
    for flow in every_flow:
        if flow.target != location or flow.target_port is None:
            continue
        if flow.crosses:
            sources = ports.setdefault((flow.target_port, flow.why), [])
            sources += [source for source in flow.sources if source not in sources]
    return [{"port": port, "sources": sources, "why": why} for (port, why), sources in ports.items()]


def _also_open(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "port": int(entry["port"]),
        "sources": list(entry.get("sources") or EVERYONE),
        "why": "pygrid_firewall_also_open",
    }


def _local(grid: Grid, hosts: Iterable[str], accounts: list[str]) -> Iterator[dict[str, Any]]:
    """Which accounts of the machine may connect to the ports that its nodes themselves listen on."""
    nodes = grid["nodes"]
    for host in hosts:
        node = nodes[host]
        proxy = [INGRESS_ACCOUNT] if node["ingress"] else []
        for variable, port in node["ports"].items():
            if variable == "pygrid_domain_queue_port":
                here = [nodes[name] for name in node["workers"] if nodes[name]["location"] == node["location"]]
                yield {
                    "address": node["queue_address"],
                    "port": port,
                    "accounts": [ROOT, node["account"], *(worker["account"] for worker in here)],
                    "name": f"{node['name']}-queue",
                }
            else:
                yield {
                    "address": node["address"],
                    "port": port,
                    "accounts": [ROOT, node["account"], *proxy, *accounts],
                    "name": node["name"],
                }


def _egress(worker: Node, every_flow: Iterable[Flow]) -> dict[str, Any]:
    """All that code on a Worker may reach, and the port on which the Worker itself answers."""
    own = [flow for flow in every_flow if flow.node == worker["host"]]
    return {
        "account": worker["account"],
        "name": worker["name"],
        "to": [{"address": flow.address, "port": flow.port, "why": flow.why} for flow in own],
        "networks": [network for network in worker["egress"] if network != "any"],
        "everywhere": "any" in worker["egress"],
        "answers": [{"address": worker["address"], "port": port} for port in worker["ports"].values()],
    }
