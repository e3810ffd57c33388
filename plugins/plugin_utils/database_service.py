# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan for a PostgreSQL server is made from: the nodes it serves, and what was read of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# How a role of ours begins its comment; the rest says whose it is.
NOTE = "openmined.pygrid: "


@dataclass(frozen=True)
class Options:
    """Variables of the role database that a plan depends on. ``dry_run``: earlier steps have made nothing."""

    spare_connections: int = 20
    listen_addresses: tuple[str, ...] = ()
    certificate_file: str = ""
    key_file: str = ""
    dry_run: bool = False


@dataclass(frozen=True)
class Service:
    """One server and its nodes.

    ``server`` is what read_server.sql returned, empty before there is one. ``accounts`` is what the module
    database_account returned for those nodes that this run has read. ``removed``: names of nodes whose data is to go.
    """

    nodes: list[Mapping[str, Any]]
    server: Mapping[str, Any]
    accounts: Mapping[str, Mapping[str, Any]]
    port: int
    options: Options = field(default_factory=Options)
    removed: frozenset[str] = frozenset()

    @property
    def roles(self) -> Mapping[str, Any]:
        return self.server.get("roles") or {}

    @property
    def databases(self) -> Mapping[str, Any]:
        return self.server.get("databases") or {}

    @property
    def our_roles(self) -> set[str]:
        return {name for name, role in self.roles.items() if (role["note"] or "").startswith(NOTE)}

    @property
    def other_databases(self) -> list[str]:
        """Databases that are neither the system's own nor of a role of ours."""
        ours = self.our_roles
        return sorted(name for name, data in self.databases.items() if name != "postgres" and data["owner"] not in ours)

    @property
    def needs_tls(self) -> bool:
        """Whether a node of another machine uses the server."""
        return any(node["database"]["tls"] for node in self.nodes)

    def account(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.accounts.get(node["host"]) or {}

    def base(self, setting: str, default: str) -> str:
        """What the server's own files say of a setting, without ours."""
        return ((self.server.get("settings") or {}).get(setting) or {}).get("base", default)

    def running(self, setting: str, default: str) -> str:
        """What the server runs with."""
        return ((self.server.get("settings") or {}).get(setting) or {}).get("running", default)


@dataclass
class Plan:
    """What to do, in the order of the role's tasks; ``changes`` says the same in words.

    Only ``passwords`` holds what nobody may read. ``holdings`` are statements to be run inside a database before the
    roles of ``farewells`` can go. A file's text of None stays as it is, an empty one takes the file away.
    """

    problems: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unit: str = "postgresql"
    drop_in: str | None = None
    config_file: str = ""
    settings_file: str = ""
    settings_text: str | None = None
    include_settings: bool | None = None
    hba_file: str = ""
    hba_block: str | None = None
    statements: list[str] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)
    holdings: list[dict[str, Any]] = field(default_factory=list)
    farewells: list[str] = field(default_factory=list)
    restart: bool = False
    reload: bool = False

    def do(self, sentence: str, *statements: str) -> None:
        self.changes.append(sentence)
        self.statements.extend(statements)


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A string constant of SQL and of postgresql.conf; nothing that needs escaping may come here."""
    if not re.fullmatch(r"[^'\\\x00-\x1f]*", value):
        raise ValueError(f"{value!r} cannot be written as a constant of PostgreSQL")
    return f"'{value}'"
