# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role database: which servers a run has to do with, and what has to change on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_plan import make_plan, service_of
from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_service import Options


def database_servers(hosts: Iterable[str], grid: Mapping[str, Any]) -> list[dict[str, str]]:
    """The PostgreSQL servers that nodes of ``hosts`` use or carry, each with the host that sees to it.

    ``by`` is one of ``hosts``; ``on`` is a node on the server's machine, which need not be among ``hosts``.
    """
    hosts = list(hosts)
    servers: dict[str, dict[str, str]] = {}
    for host in hosts:
        node = grid["nodes"][host]
        if grid["hosts"][node["location"]]["database_port"]:
            servers.setdefault(node["location"], {"location": node["location"], "by": host, "on": host})
    for host in hosts:
        database = grid["nodes"][host]["database"]
        if database and database["managed"]:
            server = {"location": database["location"], "by": host, "on": database["on"]}
            servers.setdefault(database["location"], server)
    return list(servers.values())


def database_plan(
    server: Mapping[str, Any] | None,
    grid: Mapping[str, Any],
    location: str,
    hostvars: Mapping[str, Any],
    removed: Iterable[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """What has to change on the server at ``location``; the fields are those of Plan."""
    accounts = {host: _account(hostvars[host]) for host, node in grid["nodes"].items() if node["database"]}
    options["listen_addresses"] = tuple(options.get("listen_addresses") or ())
    return make_plan(service_of(grid, location, server or {}, accounts, Options(**options), removed))


def _account(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the host of a node returned in this run, and what its inventory says of where its connections come from."""
    account = dict(variables.get("__database_account") or {})
    account["sources"] = list(variables.get("pygrid_firewall_sources") or [])
    return account


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"database_servers": database_servers, "database_plan": database_plan}
