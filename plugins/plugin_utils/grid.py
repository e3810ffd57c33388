# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory to the grid it describes: who is who, where each node is, and who talks to whom."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import account_name
from ansible_collections.openmined.pygrid.plugins.plugin_utils.observer import token_digest

KINDS = ("network", "domain", "worker")
# A Network or a Domain closes its connections and writes its last rows.
STOP_SECONDS = 30
LOOPBACK = "127.0.0.1"
# Where a Network or a Domain has what is for other nodes of the grid (blobs, "do you know me?"), which get in there
# even while it lets nobody else in: its port at another address of its host, so that no inventory has to name one more.
DOOR_ADDRESS = "127.0.0.2"
SCHEME_PORTS = {"http": 80, "https": 443}
# Location of nodes that are reached without SSH.
THIS_MACHINE = "this machine"
# Connections to PostgreSQL: a Domain answers with up to 40 threads, and each job holds a few of its own.
CONNECTIONS = {"network": 20, "domain": 30}
CONNECTIONS_OF_WORKER = 4
CONNECTIONS_OF_JOB = 4


@dataclass
class Ingress:
    """How the proxy of a node's machine lets the world in.

    ``names``: whom its certificate is for. ``door_address``: where it lets other nodes in at any time.
    """

    port: int
    server_name: str
    names: list[str]
    backend_port: int
    max_request_mb: int
    client_certificates: bool
    door_address: str


@dataclass
class Database:
    """Where a node keeps its rows when that is PostgreSQL.

    ``on`` is the inventory name of the node on whose machine (``location``) the collection runs PostgreSQL; both are
    None when an existing one is used. ``owner`` is the role that owns the tables, ``user`` the node's own login.
    """

    managed: bool
    on: str | None
    location: str | None
    host: str
    port: int
    name: str
    user: str
    owner: str
    tls: bool
    connections: int


@dataclass
class Node:
    """One node as the inventory describes it.

    ``location`` is equal for nodes on one machine, ``reach`` is how other machines reach it, ``address`` where the
    node itself listens. ``door`` is where its peers reach it on trial too: "" for its own URL, None for nowhere.
    ``joined``: whether a Domain is to be one of its Network's; ``backup``: the repository of its backups.
    """

    host: str
    kind: str
    name: str
    scope: str
    home: str
    account: str
    location: str
    reach: str
    address: str
    ports: dict[str, int]
    url: str
    stop_seconds: int
    root_email: str
    settings: dict[str, Any]
    release_source: dict[str, str]
    limits: dict[str, int]
    door: str | None = None
    queue_address: str | None = None
    queue_url: str | None = None
    domain: str | None = None
    workers: list[str] = field(default_factory=list)
    ingress: Ingress | None = None
    database: Database | None = None
    egress: list[str] = field(default_factory=list)
    talks_to: list[str] | None = None
    joined: bool = False
    backup: str | None = None


@dataclass
class Spare:
    """A host of the inventory that is no node now: a machine for Workers to come, or a Worker that was taken away.

    ``domain`` and ``port`` are what the inventory says of such a Worker, None for a machine.
    """

    host: str
    location: str
    domain: str | None = None
    port: int | None = None


@dataclass
class Host:
    """One machine: its nodes, how others reach it, and the port of the PostgreSQL that the collection runs there.

    ``packages``: what its services need from the distribution, for each family of operating systems.
    """

    nodes: list[str]
    reach: str
    database_port: int | None = None
    packages: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Grid:
    """All nodes by inventory name; ``network`` is the inventory name of the Network and ``network_url`` where it is.

    ``spare``: hosts of the inventory that are no node, by name.
    """

    nodes: dict[str, Node]
    hosts: dict[str, Host]
    scope: str
    network: str | None
    network_url: str | None
    spare: dict[str, Spare] = field(default_factory=dict)

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


def build_node(
    host: str,
    kind: str,
    values: dict[str, Any],
    location: str,
    release_source: dict[str, str],
    observer_token: str | None = None,
) -> Node:
    """The node that validated variables describe.

    Args:
        release_source: the controller's part of its release.
        observer_token: with which its nodes may be asked who belongs to them; None when nobody may.
    """
    system = values["pygrid_scope"] == "system"
    name = values["pygrid_name"] or host
    address = values["pygrid_listen_address"]
    port = values[f"pygrid_{kind}_port"]
    node = Node(
        host=host,
        kind=kind,
        name=name,
        scope=values["pygrid_scope"],
        home=values["pygrid_home"] or ("/opt/pygrid" if system else ""),
        account=account_name(name) if system else "",
        location=location,
        reach=values["pygrid_address"] or (location if system and location != THIS_MACHINE else address),
        address=address,
        ports={f"pygrid_{kind}_port": port},
        url="",
        stop_seconds=STOP_SECONDS,
        root_email=_root_email(kind, name, values["pygrid_root_email"]),
        settings={
            "listen": {"host": address, "port": port},
            "log_level": values["pygrid_log_level"],
            # supervisor's children would live on when it dies, and hold their ports against the next start
            "stop_with_parent": not system,
        },
        release_source=release_source,
        limits={
            "cpu_percent": values["pygrid_cpu_percent_max"],
            "memory_mb": values["pygrid_memory_max_mb"],
            "tasks": values["pygrid_tasks_max"],
        },
    )
    _add_url(node, values)
    _add_kind(node, values)
    node.backup = backup_repository(values["pygrid_backup_repository"], name)
    if observer_token and kind != "worker":
        node.settings["observer_digest"] = token_digest(observer_token, kind, name)
    if system:
        node.settings["notify"] = True
        if values["pygrid_blob_store"] == "s3":
            node.settings["blobs"] = {"kind": "s3"}
    return node


def _add_url(node: Node, values: dict[str, Any]) -> None:
    """Where others reach the node: itself, or the proxy in front of it."""
    port = values[f"pygrid_{node.kind}_port"]
    given = plain_url(values.get(f"pygrid_{node.kind}_url") or "")
    proxied = node.scope == "system" and values["pygrid_ingress"] != "none"
    # Whoever listens at every address has this one already.
    if node.kind != "worker" and (proxied or node.address == LOOPBACK):
        node.settings["listen_nodes"] = {"host": DOOR_ADDRESS, "port": port}
        node.door = "" if proxied else f"http://{DOOR_ADDRESS}:{port}"
    if node.kind == "worker" or not proxied:
        node.url = given or f"http://{url_host(node.address)}:{port}"
        return
    https_port = values["pygrid_https_port"]
    node.url = given or f"https://{url_host(node.reach)}" + ("" if https_port == 443 else f":{https_port}")
    name = urlsplit(node.url).hostname or node.reach
    node.ingress = Ingress(
        port=https_port,
        server_name=name,
        names=list(dict.fromkeys([name, node.reach])),
        backend_port=port,
        max_request_mb=values["pygrid_request_max_mb"],
        client_certificates=node.kind == "network" and values["pygrid_network_client_certificates"],
        door_address=DOOR_ADDRESS,
    )


def _add_kind(node: Node, values: dict[str, Any]) -> None:
    """What only a Network, only a Domain or only a Worker has."""
    if node.kind == "network":
        node.settings["auto_approve_domains"] = values["pygrid_network_auto_approve_domains"]
    elif node.kind == "domain":
        node.ports["pygrid_domain_queue_port"] = values["pygrid_domain_queue_port"]
        node.queue_address = values["pygrid_domain_queue_address"] or None
        node.joined = values["pygrid_domain_network_joined"]
    else:
        node.domain = values["pygrid_worker_domain"]
        node.stop_seconds = values["pygrid_worker_drain_seconds"]
        node.egress = values["pygrid_worker_egress"]
        node.settings["pool"] = values["pygrid_worker_pool"]
        node.settings["orphaned_jobs"] = values["pygrid_worker_orphaned_jobs"]
        if values["pygrid_worker_processes"] != 1:
            node.settings["processes"] = values["pygrid_worker_processes"]


def _root_email(kind: str, name: str, given: str) -> str:
    """Login of the root account; a Worker has none."""
    return "" if kind == "worker" else given or f"{name}@pygrid.example"


def build_grid(
    nodes: dict[str, Node], values: dict[str, dict[str, Any]], spare: dict[str, Spare] | None = None
) -> Grid:
    """Relate the nodes to one another. ``values``: the validated variables of each."""
    spare = spare or {}
    hosts: dict[str, Host] = {}
    for node in nodes.values():
        hosts.setdefault(node.location, Host([], node.reach)).nodes.append(node.host)
        if node.kind == "worker" and node.domain in nodes:
            nodes[node.domain].workers.append(node.host)
    for node in nodes.values():
        if node.kind == "domain":
            _add_queue(node, nodes, spare)
    for node in nodes.values():
        if node.scope == "system" and node.kind != "worker":
            node.database = _own_database(node, nodes, values)
    for node in nodes.values():
        if node.scope == "system":
            _add_relations(node, nodes, values[node.host])
    for node in nodes.values():
        if node.database and node.database.location in hosts:
            hosts[node.database.location].database_port = node.database.port
    network = next((node for node in nodes.values() if node.kind == "network"), None)
    if network and network.ingress and network.ingress.client_certificates:
        for node in nodes.values():
            if node.kind != "network":
                node.settings["client_certificate"] = True
    outside = next(
        (url for value in values.values() if (url := plain_url(value.get("pygrid_domain_network_url") or ""))), None
    )
    scope = next((node.scope for node in nodes.values()), "user")
    return Grid(nodes, hosts, scope, network.host if network else None, network.url if network else outside, spare)


def _add_queue(domain: Node, nodes: dict[str, Node], spare: dict[str, Spare]) -> None:
    """One address for the queue: loopback, unless a Worker has to reach it from another machine.

    Or may have to: where the inventory has spare machines, a Worker that is added must not restart its Domain.
    """
    port = domain.ports["pygrid_domain_queue_port"]
    remote = any(nodes[worker].location != domain.location for worker in domain.workers)
    if domain.scope == "system":
        remote = remote or any(machine.location != domain.location for machine in spare.values())
    domain.queue_address = domain.queue_address or (domain.reach if remote else domain.address)
    # A machine behind NAT listens on another address than the one it is reached by.
    domain.queue_url = f"tcp://{url_host(domain.reach if remote else domain.queue_address)}:{port}"
    domain.settings["queue"] = {"host": domain.queue_address, "port": port}


def _own_database(node: Node, nodes: dict[str, Node], values: dict[str, dict[str, Any]]) -> Database | None:
    """Database of a Network or a Domain in scope system; None for SQLite."""
    own = values[node.host]
    name = database_name(node.name)
    connections = CONNECTIONS[node.kind]
    if own["pygrid_database_url"]:
        parts = urlsplit(own["pygrid_database_url"])
        host = parts.hostname or ""
        return Database(
            managed=False, on=None, location=None, host=host, port=parts.port or 5432, name=parts.path.strip("/"),
            user="", owner="", tls=not is_loopback_name(host), connections=connections,
        )  # fmt: skip
    if own["pygrid_database"] == "sqlite":
        return None
    on = own["pygrid_database_host"] or node.host
    carrier = nodes.get(on, node)
    local = carrier.location == node.location
    return Database(
        managed=True, on=on, location=carrier.location, host=LOOPBACK if local else carrier.reach,
        port=values.get(on, own)["pygrid_database_port"], name=name, user=name, owner=name, tls=not local,
        connections=connections,
    )  # fmt: skip


def _add_relations(node: Node, nodes: dict[str, Node], values: dict[str, Any]) -> None:
    """What a node of scope system takes from the node it serves."""
    if node.kind == "worker":
        domain = nodes.get(node.domain or "")
        if domain is None:
            return
        node.database = _worker_database(node, domain, nodes, values)
        node.settings.setdefault("blobs", {"kind": "domain", "url": domain.url})
        node.talks_to = _numeric_addresses(node, domain, values)
    if node.database is not None:
        node.settings["database_tls"] = node.database.tls
        node.settings["database_connections"] = node.database.connections


def _worker_database(node: Node, domain: Node, nodes: dict[str, Node], values: dict[str, Any]) -> Database | None:
    """A Worker works in its Domain's database, under a login of its own."""
    theirs = domain.database
    if theirs is None:
        return None
    connections = CONNECTIONS_OF_WORKER + CONNECTIONS_OF_JOB * values["pygrid_worker_processes"]
    if not theirs.managed:
        return Database(**{**asdict(theirs), "connections": connections})
    local = theirs.location == node.location
    host = LOOPBACK if local else nodes[theirs.on or domain.host].reach
    own = {"host": host, "user": database_name(node.name), "tls": not local, "connections": connections}
    return Database(**{**asdict(theirs), **own})


def _numeric_addresses(node: Node, domain: Node, values: dict[str, Any]) -> list[str] | None:
    """All a Worker may talk to, for systemd; None when something in it is a name, which systemd cannot resolve."""
    if "any" in node.egress or values["pygrid_blob_store"] == "s3":
        return None
    hosts = [domain.reach, urlsplit(domain.url).hostname or "", urlsplit(domain.queue_url or "").hostname or ""]
    hosts += [node.database.host] if node.database else []
    addresses = [LOOPBACK, *hosts, *node.egress]
    try:
        return sorted({str(ipaddress.ip_network(address)) for address in addresses})
    except ValueError:
        return None


def database_name(node: str) -> str:
    """Name of a node's database and role in PostgreSQL: ``pygrid_alice``; at most 63 characters, no quoting needed."""
    return "pygrid_" + re.sub(r"[^a-z0-9_]", "_", node.lower())[:56]


def plain_url(url: str) -> str:
    """The URL of a node as nodes themselves say it: without a slash at its end and the port that its scheme implies."""
    return url.rstrip("/").removesuffix(f":{SCHEME_PORTS.get(urlsplit(url).scheme)}")


def backup_repository(place: str, node: str) -> str | None:
    """The repository of a node's own in the place of all backups, in restic's words."""
    if not place:
        return None
    return f"{place.rstrip('/')}{'' if place.endswith(':') else '/'}{node}"


def is_loopback(url: str) -> bool:
    """Whether a URL is only reachable on its own host."""
    return is_loopback_name(urlsplit(url).hostname or "")


def is_loopback_name(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def url_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
