# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory to the grid it describes: who is who, who talks to whom, and what cannot be right."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any
from urllib.parse import urlsplit

KINDS = ("network", "domain", "worker")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")
# A Network or a Domain closes its connections and writes its last rows.
STOP_SECONDS = 30


@dataclass
class Node:
    """One node as the inventory describes it. ``location`` is equal for nodes on one machine."""

    host: str
    kind: str
    name: str
    home: str
    location: str
    address: str
    ports: dict[str, int]
    url: str
    stop_seconds: int
    root_email: str
    settings: dict[str, Any]
    release_source: dict[str, str]
    queue_url: str | None = None
    domain: str | None = None
    workers: list[str] = field(default_factory=list)


@dataclass
class Grid:
    """All nodes by inventory name; ``network`` is the inventory name of the Network and ``network_url`` where it is."""

    nodes: dict[str, Node]
    network: str | None
    network_url: str | None

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def kind_of(groups: list[str]) -> tuple[str | None, str | None]:
    """The kind that the groups of a host give it, and what is wrong with them."""
    kinds = [kind for kind in KINDS if f"pygrid_{kind}" in groups]
    if len(kinds) == 1:
        return kinds[0], None
    if kinds:
        wrong = " and ".join(f"pygrid_{kind}" for kind in kinds)
        return None, f"it is in the groups {wrong}; a node is one of them (two nodes may share a host by ansible_host)"
    return None, "it is in the group pygrid, but in none of pygrid_network, pygrid_domain and pygrid_worker"


def build_node(host: str, kind: str, values: dict[str, Any], location: str, release_source: dict[str, str]) -> Node:
    """The node that validated variables describe; ``release_source`` is the controller's part of its release."""
    address = values["pygrid_listen_address"]
    port = values[f"pygrid_{kind}_port"]
    ports = {f"pygrid_{kind}_port": port}
    settings: dict[str, Any] = {
        "listen": {"host": address, "port": port},
        "log_level": values["pygrid_log_level"],
        # supervisor's children would live on when it dies, and hold their ports against the next start
        "stop_with_parent": True,
    }
    node = Node(
        host=host,
        kind=kind,
        name=values["pygrid_name"] or host,
        home=values["pygrid_home"],
        location=location,
        address=address,
        ports=ports,
        url=values.get(f"pygrid_{kind}_url") or f"http://{_url_host(address)}:{port}",
        stop_seconds=STOP_SECONDS,
        root_email=_root_email(kind, values["pygrid_name"] or host, values["pygrid_root_email"]),
        settings=settings,
        release_source=release_source,
    )
    if kind == "network":
        settings["auto_approve_domains"] = values["pygrid_network_auto_approve_domains"]
    elif kind == "domain":
        queue_port = values["pygrid_domain_queue_port"]
        ports["pygrid_domain_queue_port"] = queue_port
        settings["queue"] = {"host": address, "port": queue_port}
        node.queue_url = f"tcp://{_url_host(address)}:{queue_port}"
    else:
        node.domain = values["pygrid_worker_domain"]
        node.stop_seconds = values["pygrid_worker_drain_seconds"]
        settings["pool"] = values["pygrid_worker_pool"]
        settings["orphaned_jobs"] = values["pygrid_worker_orphaned_jobs"]
    return node


def _root_email(kind: str, name: str, given: str) -> str:
    """Login of the root account; a Worker has none."""
    return "" if kind == "worker" else given or f"{name}@pygrid.example"


def build_grid(nodes: dict[str, Node], domain_networks: dict[str, str]) -> Grid:
    """Relate the nodes to one another. ``domain_networks``: URLs of a Network outside the inventory, by Domain."""
    for node in nodes.values():
        if node.kind == "worker" and node.domain in nodes:
            nodes[node.domain].workers.append(node.host)
    network = next((node for node in nodes.values() if node.kind == "network"), None)
    outside = next(iter(domain_networks.values()), None)
    return Grid(nodes, network.host if network else None, network.url if network else outside)


def find_problems(grid: Grid) -> Iterator[tuple[str, str]]:
    """(inventory name, sentence) for everything that cannot work, whatever the hosts look like."""
    nodes = list(grid.nodes.values())
    networks = [node for node in nodes if node.kind == "network"]
    for node in networks[1:]:
        yield node.host, f"the grid has a Network already ({networks[0].host}); a grid has one, leave one of them out"
    for node in nodes:
        yield from _check_node(node, grid)
    for one, other in combinations(nodes, 2):
        yield from _check_pair(one, other)


def _check_node(node: Node, grid: Grid) -> Iterator[tuple[str, str]]:
    if not NAME.match(node.name):
        yield (
            node.host,
            (
                f"pygrid_name is {node.name!r}; a name has letters, digits, dots, underscores and hyphens,"
                " begins with a letter or digit and has 50 characters at most"
            ),
        )
    for variable, port in node.ports.items():
        if not 1 <= port <= 65535:
            yield node.host, f"{variable} is {port}; a port is a number from 1 to 65535"
    if len(set(node.ports.values())) < len(node.ports):
        yield node.host, f"{' and '.join(node.ports)} are the same port; choose another for one of them"
    if node.kind == "worker":
        yield from _check_worker(node, grid)
    if node.kind == "domain" and grid.network in grid.nodes:
        network = grid.nodes[grid.network]
        for owner, variable in ((network, "pygrid_network_url"), (node, "pygrid_domain_url")):
            if node.location != network.location and is_loopback(owner.url):
                yield (
                    owner.host,
                    (
                        f"{variable} is {owner.url}, which only its own host can reach, but {node.host} and"
                        f" {network.host} are on different hosts; set {variable} to a URL that both can reach"
                    ),
                )


def _check_worker(node: Node, grid: Grid) -> Iterator[tuple[str, str]]:
    domain = grid.nodes.get(node.domain or "")
    domains = [other.host for other in grid.nodes.values() if other.kind == "domain"]
    if domain is None or domain.kind != "domain":
        known = f"one of {', '.join(domains)}" if domains else "the inventory has no Domain: add one"
        yield node.host, f"pygrid_worker_domain is {node.domain!r}, which is no Domain of the inventory; {known}"
    elif domain.location != node.location:
        yield (
            node.host,
            (
                f"it is on {node.location} and its Domain {domain.host} on {domain.location}; in scope user a Worker"
                " shares the files of its Domain and has to be on the same host"
            ),
        )
    elif domain.home != node.home:
        yield node.host, f"its pygrid_home differs from that of its Domain {domain.host}; in scope user they share one"


def _check_pair(one: Node, other: Node) -> Iterator[tuple[str, str]]:
    if one.name == other.name:
        yield other.host, f"pygrid_name is {other.name}, as for {one.host}; give each node of a grid its own name"
    if one.location != other.location:
        return
    for variable, port in other.ports.items():
        for taken, same in one.ports.items():
            if port == same and _overlap(one.address, other.address):
                yield (
                    other.host,
                    f"{variable} is {port}, as {taken} of {one.host} on the same host; choose another port",
                )


def _overlap(one: str, other: str) -> bool:
    anywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared, not listened on
    return one == other or one in anywhere or other in anywhere


def is_loopback(url: str) -> bool:
    """Whether a URL is only reachable on its own host."""
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _url_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
