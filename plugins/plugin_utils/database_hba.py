# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our section of PostgreSQL's pg_hba.conf: who may connect from where. The lines of others are not touched."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_service import Plan, Service

BEGIN = "# BEGIN openmined.pygrid"
END = "# END openmined.pygrid"
EXPLANATION = "# Written by the role database; changes between these two lines are lost."
LOOPBACK = "127.0.0.1"
_LINE = re.compile(r'^host(?:ssl)?\s+"([^"]+)"\s+"([^"]+)"\s+(\S+)\s+scram-sha-256$')


@dataclass(frozen=True)
class Line:
    """One role that may use one database from these addresses; with ``tls`` only over TLS."""

    database: str
    role: str
    addresses: tuple[str, ...]
    tls: bool

    @property
    def text(self) -> list[str]:
        kind = "hostssl" if self.tls else "host   "
        return [f'{kind} "{self.database}" "{self.role}" {address} scram-sha-256' for address in self.addresses]


def block_of(text: str) -> tuple[int, int]:
    """Numbers (from 1) of the first and the last line of our section; (0, 0) without one."""
    lines = text.splitlines()
    if BEGIN not in lines or END not in lines:
        return 0, 0
    return lines.index(BEGIN) + 1, lines.index(END) + 1


def hba_problems(service: Service) -> Iterator[str]:
    """Wrong lines of others."""
    first, last = block_of(service.server.get("hba") or "")
    for error in service.server.get("hba_errors") or []:
        if not first <= error["line"] <= last:
            place = f"{service.server['hba_file']} line {error['line']}"
            yield f"{place}: {error['error']}; mend it, it would keep PostgreSQL from starting again"


def plan_hba(service: Service, plan: Plan) -> None:
    """Let in the nodes, each from its own machine to its own database.

    The section stands at the top, because the first line that fits decides: what it does not let in, none of the lines
    below may let in, so that a laxer line of somebody else does not open the way to a role of ours.
    """
    present = _section(service.server.get("hba") or "")
    entries = [entry for line in _lines(service, present) for entry in line.text]
    # Also those whose node left the inventory: its data is kept, its way in is not.
    roles = service.our_roles | {node["database"]["user"] for node in service.nodes}
    roles = {role for role in roles if f'DROP ROLE "{role}"' not in plan.farewells}
    if roles:
        named = ",".join(f'"{role}"' for role in sorted(roles))
        entries += [f"host    all {named} all reject", f"local   all {named} reject"]
    wanted = [EXPLANATION, *entries] if entries else []
    if wanted != present:
        plan.hba_block = "\n".join(wanted)
        plan.changes.extend(f"pg_hba.conf: no more {line}" for line in present if line not in wanted)
        plan.changes.extend(f"pg_hba.conf: {line}" for line in entries if line not in present)
        plan.changes.append("reload pg_hba.conf")
        plan.reload = True


def _lines(service: Service, present: list[str]) -> Iterator[Line]:
    known = _addresses_by_role(present)
    for node in service.nodes:
        database, account = node["database"], service.account(node)
        addresses: Iterable[str] = [LOOPBACK]
        if database["tls"]:
            # Nodes that --limit left out stay where they were.
            addresses = account.get("sources") or account.get("client_addresses") or known.get(database["user"], [])
        networks = tuple(_network(address) for address in addresses)
        yield Line(database["name"], database["user"], networks, database["tls"])


def _addresses_by_role(section: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in section:
        match = _LINE.match(line)
        if match:
            found.setdefault(match[2], []).append(match[3])
    return found


def _section(text: str) -> list[str]:
    first, last = block_of(text)
    return text.splitlines()[first : last - 1] if first else []


def _network(address: str) -> str:
    """An address as a network of one; a network or a name stays what it is."""
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        return address
