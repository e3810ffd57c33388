# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to change on a PostgreSQL server so that it serves the grid: from what is there and what shall be.

Nothing here talks to a server. The role database reads one (files/read_server.sql), asks for the plan, and works it
off; after a kill it reads again and gets the plan for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_hba import hba_problems, plan_hba
from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_roles import plan_roles, role_problems
from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_service import Options, Plan, Service
from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_settings import plan_settings, setting_problems

# DROP DATABASE WITH (FORCE); RHEL 9 and Debian 11 have it.
OLDEST_VERSION = 13
# on-failure: after a kill Debian's ExecStop finds nothing to stop, and its exit code becomes the result.
DROP_IN = """\
# Written by the role database of openmined.pygrid: Debian lets a server that was killed stay down.
# To stop it, use systemctl; what stops it behind systemd's back counts as a failure.
[Service]
Restart=on-failure
RestartSec=2
"""


def service_of(
    grid: Mapping[str, Any],
    location: str,
    server: Mapping[str, Any],
    accounts: Mapping[str, Mapping[str, Any]],
    options: Options,
    removed: Iterable[str] = (),
) -> Service:
    """The server at ``location`` and the nodes that stay on it. ``removed``: inventory names of those that do not."""
    gone = frozenset(grid["nodes"][host]["name"] for host in removed)
    nodes = [node for _host, node in sorted(grid["nodes"].items()) if _is_served(node, location)]
    return Service(
        nodes=[node for node in nodes if node["name"] not in gone],
        server=server,
        accounts=accounts,
        port=grid["hosts"][location]["database_port"] or 5432,
        options=options,
        removed=gone,
    )


def make_plan(service: Service) -> dict[str, Any]:
    """The plan, or only its problems when there are any."""
    server, plan = service.server, Plan()
    plan.problems.extend(_problems(service))
    if plan.problems:
        return asdict(plan)
    plan.unit = server.get("unit") or plan.unit
    plan.config_file = server.get("config_file", "")
    plan.settings_file = server.get("settings_file", "")
    plan.hba_file = server.get("hba_file", "")
    _plan_drop_in(service, plan)
    plan_roles(service, plan)
    plan_settings(service, plan)
    plan_hba(service, plan)
    if server.get("newer_files") and not plan.restart and not plan.reload:
        plan.changes.append(f"reload {', '.join(server['newer_files'])}")
        plan.reload = True
    return asdict(plan)


def _problems(service: Service) -> Iterator[str]:
    version = service.server.get("version", OLDEST_VERSION * 10000) // 10000
    if version < OLDEST_VERSION:
        yield f"it is version {version}, and {OLDEST_VERSION} or newer is needed; upgrade it or use another host"
    if service.server.get("standby"):
        yield "it is a standby and takes no changes; set pygrid_database_host to a node on the primary's host"
    yield from hba_problems(service)
    yield from setting_problems(service)
    yield from role_problems(service)


def _plan_drop_in(service: Service, plan: Plan) -> None:
    """Where the distribution's unit does not start a killed server again, an addition of ours does."""
    found, wanted = service.server.get("drop_in", ""), DROP_IN if service.nodes else ""
    if found is not None and found != wanted:
        plan.drop_in = wanted
        plan.changes.append(f"{'' if wanted else 'do not '}start PostgreSQL again when it was killed")


def _is_served(node: Mapping[str, Any], location: str) -> bool:
    database = node["database"]
    return bool(database and database["managed"] and database["location"] == location)
