# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes say of who belongs to them, and where the inventory says something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import NAME
from ansible_collections.openmined.pygrid.plugins.plugin_utils.plain_values import plain

SEEN, UNMANAGED = "pygrid_seen", "pygrid_unmanaged"
KINDS = ("network", "domain", "worker")


@dataclass(frozen=True)
class Member:
    """One node as another one tells of it. ``domain``: of a Worker, the Domain that told."""

    kind: str
    name: str
    uid: str
    url: str
    status: str
    domain: str = ""

    def of(self, domain: str) -> Member:
        return replace(self, domain=domain)

    def as_variable(self) -> dict[str, str]:
        """What somebody may have called a node is never a template."""
        return {name: plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Answer:
    """A node that was asked, and its members."""

    asked: Member
    members: list[Member]


def read_members(document: Any, url: str, kind: str) -> Answer:
    """Check what a node of a kind answered at a URL; raises ValueError when it is no such answer."""
    members = document.get("members") if isinstance(document, Mapping) else None
    if not isinstance(members, list) or document.get("kind") != kind:
        raise ValueError("no list of members")
    asked = _member({**document, "url": url, "uid": "", "status": "active"})
    return Answer(asked, [_member(entry) for entry in members])


def _member(entry: Any) -> Member:
    if not isinstance(entry, Mapping):
        raise ValueError("no member")
    values = [entry.get(name) for name in ("kind", "name", "uid", "url", "status")]
    if not all(isinstance(value, str) and len(value) < 500 and value.isprintable() for value in values):
        raise ValueError("no member")
    member = Member(*values)
    is_url = urlsplit(member.url).scheme in ("", "http", "https")
    if member.kind not in KINDS or not NAME.match(member.name) or not is_url:
        raise ValueError("no member")
    return member


def unmanaged(grid: Mapping[str, Any], seen: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The nodes that the grid knows and the inventory does not."""
    nodes = {(node["kind"], node["name"]) for node in grid["nodes"].values()}
    yield from (node for node in (seen or {}).get("nodes", ()) if (node["kind"], node["name"]) not in nodes)


def unknown(node: Mapping[str, Any], grid: Mapping[str, Any], seen: Mapping[str, Any] | None) -> str:
    """Why a node of the inventory is none that the grid knows; empty when it is one, or nobody could say."""
    told = {(member["kind"], member["name"]) for member in (seen or {}).get("nodes", ())}
    if not told or (node["kind"], node["name"]) in told:
        return ""
    if node["kind"] == "domain" and node["joined"] and any(kind == "network" for kind, _name in told):
        return "the Network knows no Domain of this name"
    domain = grid["nodes"].get(node["domain"] or "", {}).get("name")
    if node["kind"] == "worker" and domain in seen["answered"]:
        return f"its Domain {domain} knows no Worker of this name"
    return ""
