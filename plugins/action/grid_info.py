# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.grid_info: runs on the controller and sends nothing to any host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import (
    THIS_MACHINE,
    Grid,
    Spare,
    build_grid,
    build_node,
    kind_of,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import find_problems, find_warnings
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import FAILED
from ansible_collections.openmined.pygrid.plugins.plugin_utils.observer import read_token
from ansible_collections.openmined.pygrid.plugins.plugin_utils.packages import add_packages
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import find_source
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale import FIRST_PORT
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale_file import SCALED, UNFINISHED, is_read, place_of
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import unknown_variable, validate


class ActionModule(ActionBase):
    """Read every host of the group pygrid, whatever --limit says: nodes depend on each other."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the grid, or fail with all problems of all hosts at once."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        problems: list[tuple[str, str]] = []
        nodes, spare = self._hosts(task_vars["groups"])
        problems.extend(_unread_file(task_vars))
        problems.extend(("inventory", f"not all of it could be seen: {told}") for told in task_vars.get(FAILED) or [])
        grid = self._read(task_vars["hostvars"], nodes, spare, problems)
        if not problems:
            problems.extend(find_problems(grid))
        if not grid.nodes and not problems:
            problems.append(("inventory", "the group pygrid has no host; see inventories/local/hosts.yml for a grid"))
        if problems:
            text = "\n".join(f"  {host}: {problem}" for host, problem in dict.fromkeys(problems))
            return {
                **result,
                "failed": True,
                "msg": f"The inventory has to be mended first; nothing was changed.\n{text}",
            }
        warnings = [*find_warnings(grid), *_unfinished(task_vars["hostvars"], nodes)]
        for host, sentence in warnings if self._task.args.get("warn", True) else []:
            Display().warning(f"{host}: {sentence}")
        return {**result, "changed": False, "grid": grid.as_data()}

    def _hosts(self, groups: dict[str, list[str]]) -> tuple[list[str], list[str]]:
        """Those that are nodes, and those that are none now, whatever other groups they are in."""
        without = self._task.args.get("without") or []
        spare = groups.get("pygrid_spare", [])
        return [host for host in groups.get("pygrid", []) if host not in {*spare, *without}], spare

    def _read(self, hostvars: Any, hosts: list[str], spare: list[str], problems: list[tuple[str, str]]) -> Grid:
        nodes = {}
        all_values: dict[str, dict[str, Any]] = {}
        scaled = self._scaled(hostvars, hosts, problems)
        for host in hosts:
            given = {**self._variables(host, hostvars[host], problems), **scaled.get(host, {})}
            kind, problem = kind_of(list(hostvars[host]["group_names"]))
            if kind is None:
                problems.append((host, problem or ""))
                continue
            values, wrong = validate(kind, given)
            problems.extend((host, sentence) for sentence in wrong)
            if wrong:
                continue
            try:
                source = find_source(values["pygrid_version"], values["pygrid_lock_file"] or None)
                observer = _observer_token(values["pygrid_observer_token_file"])
            except PygridError as error:
                problems.append((host, str(error)))
                continue
            try:
                location = _location(host, hostvars[host])
            except AnsibleError as error:
                problems.append((host, f"ansible_host cannot be worked out from other hosts' variables: {error}"))
                continue
            nodes[host] = build_node(host, kind, values, location, source.summary(), observer)
            all_values[host] = values
        grid = build_grid(nodes, all_values, {host: _spare(host, hostvars[host]) for host in spare})
        add_packages(grid)
        return grid

    def _scaled(self, hostvars: Any, hosts: list[str], problems: list[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        """What scale.yml and resize.yml decided of nodes: it wins over whatever else the inventory says of them."""
        scaled = (hostvars[hosts[0]].get(SCALED) if hosts else None) or {}
        if not (isinstance(scaled, Mapping) and all(isinstance(values, Mapping) for values in scaled.values())):
            problems.append(("inventory", f"{SCALED} has to hold variables by inventory name"))
            return {}
        found = {host: dict(values) for host, values in scaled.items()}
        for host, values in (self._task.args.get("scaled") or {}).items():
            found[host] = {**found.get(host, {}), **values}
        for host, values in found.items():
            problems.extend((host, f"{SCALED}: {unknown}") for name in values if (unknown := unknown_variable(name)))
        return found

    @staticmethod
    def _variables(host: str, variables: Any, problems: list[tuple[str, str]]) -> dict[str, Any]:
        """Our variables of one host, templated; what cannot be templated is a problem of its own."""
        given = {}
        for name in [name for name in variables if str(name).startswith("pygrid_")]:
            unknown = unknown_variable(name)
            if unknown:
                problems.append((host, unknown))
                continue
            try:
                given[name] = variables[name]
            except AnsibleError as error:
                problems.append((host, f"{name} cannot be worked out: {error}"))
        return given


def _spare(host: str, variables: Any) -> Spare:
    port = variables.get("pygrid_worker_port")
    domain = variables.get("pygrid_worker_domain")
    return Spare(host, _location(host, variables), domain, int(port or FIRST_PORT) if domain else None)


def _unread_file(task_vars: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Half of an inventory must not be taken for all of it: Workers that were added would be locked out."""
    sources = task_vars.get("ansible_inventory_sources") or []
    place = place_of("", sources)
    if place and place.exists() and not is_read(place, sources):
        yield (
            "inventory",
            f"{place} belongs to it and was not read; add -i {place}, or give the folder: -i {place.parent}",
        )


def _unfinished(hostvars: Any, hosts: list[str]) -> Iterator[tuple[str, str]]:
    marks = (hostvars[hosts[0]].get(UNFINISHED) if hosts else None) or {}
    for host, what in marks.items():
        yield (
            host,
            f"a run of scale.yml was cut off before it had ended ({what}); run scale.yml again, it goes on there",
        )


@cache
def _observer_token(path: str) -> str | None:
    return read_token(path) if path else None


def _location(host: str, variables: Any) -> str:
    """The machine a node is on, as far as the inventory tells: nodes with one ``ansible_host`` share it."""
    if variables.get("ansible_connection") == "local":
        return THIS_MACHINE
    return str(variables.get("ansible_host", host))
