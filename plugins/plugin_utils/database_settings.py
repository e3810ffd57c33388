# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of a PostgreSQL server that the grid needs: a file of ours beside those of the server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_service import Plan, Service, literal

HEADER = "# Written by the role database of openmined.pygrid; changes here are lost.\n"
NEEDS_RESTART = {"listen_addresses", "max_connections", "port"}
EVERYWHERE = {"*", "0.0.0.0"}  # noqa: S104 - compared, not listened on
LOOPBACKS = {"localhost", "127.0.0.1"} | EVERYWHERE
WEAK_TLS = {"", "TLSv1", "TLSv1.1"}
# Raised in steps, because each one needs a restart; a connection that nobody uses costs little.
STEP = 50
# Of PostgreSQL itself, for a server that is not there yet.
DEFAULTS = {"port": "5432", "listen_addresses": "localhost", "max_connections": "100", "ssl": "off"}


def setting_problems(service: Service) -> Iterator[str]:
    """What stands against the settings that are needed."""
    if service.needs_tls and not service.server.get("certificate") and not service.options.dry_run:
        yield (
            f"{service.options.certificate_file} or {service.options.key_file} is missing, but nodes on"
            " other hosts use it; the role certificates makes them"
        )
    port, others = service.base("port", DEFAULTS["port"]), service.other_databases
    if port != str(service.port) and others:
        yield (
            f"it is set to port {port} and holds databases of others ({', '.join(others)});"
            f" set pygrid_database_port to {port}"
        )
    settings = service.server.get("settings") or {}
    for name, value in _own(service).items():
        winner = settings.get(name, {}).get("overridden_by")
        if winner:
            base = settings[name]["base"]
            yield f"{name} has to be {value}, but {winner} says {base}; change it there or take it out"


def plan_settings(service: Service, plan: Plan) -> None:
    """Write what differs from the server's own files, and put into effect what it does not run with yet."""
    own, before = _own(service), service.server.get("settings_text", "")
    text = HEADER + "".join(f"{name} = {literal(value)}\n" for name, value in own.items()) if own else ""
    if text != before:
        plan.settings_text = text
        plan.changes.extend(_differences(before, text))
    included = service.server.get("settings_included")
    if included not in (None, bool(own)):
        plan.include_settings = bool(own)
        plan.changes.append(f"{plan.config_file}: {'include' if own else 'do not include'} {plan.settings_file}")
    found: Mapping[str, Any] = service.server.get("settings") or {}
    late = sorted(name for name, setting in found.items() if setting["running"] != own.get(name, setting["base"]))
    if late:
        plan.restart = bool(NEEDS_RESTART & set(late))
        plan.reload = not plan.restart
        plan.changes.append(f"{'restart' if plan.restart else 'reload'} PostgreSQL for {', '.join(late)}")


def _own(service: Service) -> dict[str, str]:
    """What our file is to hold: what is needed and what the server's other files do not say already."""
    if not service.nodes:
        return {}
    wanted = {
        "port": str(service.port),
        "listen_addresses": _listen_addresses(service),
        "max_connections": str(_connections(service)),
    }
    if service.needs_tls:
        wanted.update(ssl="on", ssl_cert_file=service.options.certificate_file, ssl_key_file=service.options.key_file)
        if service.base("ssl_min_protocol_version", "TLSv1.2") in WEAK_TLS:
            wanted["ssl_min_protocol_version"] = "TLSv1.2"
    return {name: value for name, value in wanted.items() if value != service.base(name, DEFAULTS.get(name, ""))}


def _listen_addresses(service: Service) -> str:
    """Loopback for nodes of this machine, and the addresses under which nodes of others look for it."""
    given = service.base("listen_addresses", DEFAULTS["listen_addresses"])
    base = _entries(given)
    more = [] if LOOPBACKS & set(base) else ["127.0.0.1"]
    if not EVERYWHERE & set(base):
        more += [address for address in _remote_addresses(service) if address not in base]
    return ",".join([*base, *more]) if more else given


def _remote_addresses(service: Service) -> list[str]:
    remote = [node for node in service.nodes if node["database"]["tls"]]
    if remote and service.options.listen_addresses:
        return list(service.options.listen_addresses)
    known = [service.account(node).get("server_addresses") or [] for node in remote]
    found = {address for addresses in known for address in addresses}
    if not all(known):
        # --limit left some of them out: they go on using what is there.
        found |= set(_entries(service.running("listen_addresses", ""))) - LOOPBACKS
    return sorted(found)


def _connections(service: Service) -> int:
    """Enough for all nodes at once; others keep what they have, and nothing is ever lowered."""
    base = int(service.base("max_connections", DEFAULTS["max_connections"]))
    needed = sum(node["database"]["connections"] for node in service.nodes)
    needed += service.options.spare_connections + int(service.running("superuser_reserved_connections", "3"))
    if service.other_databases:
        needed += base
    if needed > base:
        needed = math.ceil(needed / STEP) * STEP
    return max(base, int(service.running("max_connections", "0")), needed)


def _differences(before: str, after: str) -> Iterator[str]:
    """Each line of our file that comes or goes, without the comments."""
    old, new = ([line for line in text.splitlines() if not line.startswith("#")] for text in (before, after))
    yield from (f"postgresql.conf: no more {line}" for line in old if line not in new)
    yield from (f"postgresql.conf: {line}" for line in new if line not in old)


def _entries(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",") if entry.strip()]
