# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What in an inventory cannot be right, whatever the hosts look like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from urllib.parse import urlsplit

from ansible_collections.openmined.pygrid.plugins.module_utils.images import check_reference, image_digest
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import THIS_MACHINE, Grid, Node, is_loopback

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")


def find_problems(grid: Grid) -> Iterator[tuple[str, str]]:
    """(inventory name, sentence) for everything that cannot work, whatever the hosts look like."""
    nodes = list(grid.nodes.values())
    networks = [node for node in nodes if node.kind == "network"]
    for node in networks[1:]:
        yield node.host, f"the grid has a Network already ({networks[0].host}); a grid has one, leave one of them out"
    for node in nodes:
        yield from _check_node(node, grid)
        if node.scope != grid.scope:
            yield (
                node.host,
                f"pygrid_scope is {node.scope}, and {grid.scope} elsewhere; a grid has one scope",
            )
        if node.scope == "system":
            yield from _check_system(node, grid)
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
    if node.kind != "worker" and ":" in (urlsplit(node.url).hostname or ""):
        yield (
            node.host,
            (
                f"its URL is {node.url}, and syft's clients cannot read one with an IPv6 address;"
                f" set pygrid_{node.kind}_url to one with a name"
            ),
        )
    if node.backup and not re.match(r"/|sftp:|s3:", node.backup):
        place = node.backup.rpartition("/")[0]
        yield (
            node.host,
            f"pygrid_backup_repository is {place!r}; it is the path of a folder, sftp:user@host:/path or s3:URL",
        )
    if node.name == "pygrid-backup":
        yield node.host, f"pygrid_name is {node.name}, which the process has that makes backups; choose another name"
    if "image" in node.release_source:
        yield from _check_image(node)
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


def _check_image(node: Node) -> Iterator[tuple[str, str]]:
    """What a node in a container needs of the inventory."""
    image = node.release_source["image"]
    if node.scope == "system":
        yield (
            node.host,
            "pygrid_install_method is container, which scope system does not have yet; set pygrid_scope to user, or"
            " leave it out",
        )
    if not image:
        yield (
            node.host,
            f"pygrid_container_images names no image for a {node.kind}; playbooks/images.yml builds one and writes its"
            " name beside the inventory",
        )
    elif problem := check_reference(image):
        yield node.host, f"pygrid_container_images: {problem}"
    if not re.match(r"^\d+\.\d+\.\d+$", node.release_source["version"]):
        yield node.host, f"pygrid_version is {node.release_source['version']!r}; a version looks like 0.9.5"


def _check_worker(node: Node, grid: Grid) -> Iterator[tuple[str, str]]:
    domain = grid.nodes.get(node.domain or "")
    domains = [other.host for other in grid.nodes.values() if other.kind == "domain"]
    if domain is None or domain.kind != "domain":
        known = f"one of {', '.join(domains)}" if domains else "the inventory has no Domain: add one"
        yield node.host, f"pygrid_worker_domain is {node.domain!r}, which is no Domain of the inventory; {known}"
    elif node.scope == "system":
        if domain.database is None:
            yield (
                domain.host,
                f"pygrid_database is sqlite, but its Worker {node.host} shares no files with it; set it to postgresql",
            )
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


def _check_system(node: Node, grid: Grid) -> Iterator[tuple[str, str]]:
    """What only matters on real servers."""
    if node.location == THIS_MACHINE and len(grid.hosts) > 1 and is_loopback(f"tcp://{node.reach}"):
        yield node.host, f"other hosts reach it as {node.reach}: set pygrid_address to a name or address they can use"
    if node.database and node.database.managed and node.database.on not in grid.nodes:
        yield node.host, f"pygrid_database_host is {node.database.on!r}, which is no node of the inventory"
    if node.ingress and urlsplit(node.url).scheme != "https":
        yield node.host, f"pygrid_{node.kind}_url is {node.url}; behind the ingress it begins with https://"
    for limit, value in node.limits.items():
        if value < 0:
            yield node.host, f"the limit {limit} is {value}; use 0 for no limit"
    if node.name in ("ingress", "database"):
        yield node.host, f"pygrid_name is {node.name}, which a service of the host has; choose another name"
    if node.kind == "worker":
        yield from _check_slots(node, grid)
        yield from _check_blobs(node, grid)
    if not 1 <= node.settings.get("processes", 1) <= 64:
        yield node.host, f"pygrid_worker_processes is {node.settings['processes']}; it is a number from 1 to 64"


def _check_slots(worker: Node, grid: Grid) -> Iterator[tuple[str, str]]:
    """A Worker with several processes registers as w1, w1-2, w1-3 ...: no other Worker may be called so."""
    for other in grid.nodes.values():
        for number in range(2, other.settings.get("processes", 1) + 1):
            if worker.name == f"{other.name}-{number}":
                yield worker.host, f"pygrid_name is {worker.name}, as a process of {other.host}; choose another name"


def _check_blobs(worker: Node, grid: Grid) -> Iterator[tuple[str, str]]:
    """A Domain and its Workers read and write the same blobs, wherever those are."""
    domain = grid.nodes.get(worker.domain or "")
    kinds = {node.host: node.settings.get("blobs", {}).get("kind") == "s3" for node in (worker, domain) if node}
    if len(set(kinds.values())) > 1:
        s3, other = sorted(kinds, key=kinds.__getitem__, reverse=True)
        yield other, f"pygrid_blob_store is s3 for {s3} and not for it; a Domain and its Workers share one store"


def find_warnings(grid: Grid) -> Iterator[tuple[str, str]]:
    """(inventory name, sentence) for what works, but not as one may expect."""
    for node in grid.nodes.values():
        image = node.release_source.get("image")
        if image and image_digest(image) is None:
            yield (
                node.host,
                f"its image is {image}, a tag: nobody notices when it is moved, and hosts that pull it at different"
                " times may differ; name it by its digest (...@sha256:...)",
            )
        if (
            node.kind != "worker"
            and urlsplit(node.url).scheme == "https"
            and urlsplit(node.url).port not in (None, 443)
        ):
            yield (
                node.host,
                (
                    f"its URL is {node.url}; nodes of this grid reach it, but syft's own client uses port 443 for every"
                    " https URL, so data scientists cannot log in"
                ),
            )


def _check_pair(one: Node, other: Node) -> Iterator[tuple[str, str]]:
    if one.name == other.name:
        yield other.host, f"pygrid_name is {other.name}, as for {one.host}; give each node of a grid its own name"
    if one.scope == "system" and one.account == other.account and one.name != other.name:
        yield (
            other.host,
            f"pygrid_name is {other.name}, which is too like {one.name} of {one.host}; choose another name",
        )
    if _share_a_database(one, other):
        yield (
            other.host,
            f"its pygrid_database_url names the database of {one.host}; each Network and Domain needs one of its own",
        )
    places = [node.ingress and (node.location, node.ingress.port, node.ingress.server_name) for node in (one, other)]
    if one.ingress and places[0] == places[1]:
        yield (
            other.host,
            f"its URL is {other.url}, as that of {one.host} on the same host;"
            f" set pygrid_{other.kind}_url or pygrid_https_port",
        )
    if one.location != other.location:
        return
    for variable, port in other.ports.items():
        for taken, same in one.ports.items():
            if port == same and _overlap(one.address, other.address):
                yield (
                    other.host,
                    f"{variable} is {port}, as {taken} of {one.host} on the same host; choose another port",
                )


def _share_a_database(one: Node, other: Node) -> bool:
    """Whether two servers were given one and the same existing database; a Worker works in its Domain's."""
    places = [
        (node.database.host, node.database.port, node.database.name)
        for node in (one, other)
        if node.kind != "worker" and node.database and not node.database.managed
    ]
    return len(places) == 2 and places[0] == places[1]


def _overlap(one: str, other: str) -> bool:
    anywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared, not listened on
    return one == other or one in anywhere or other in anywhere
