# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the grid from the variables of the inventory's hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from ansible.errors import AnsibleError

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import (
    THIS_MACHINE,
    Grid,
    Spare,
    build_grid,
    build_node,
    kind_of,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.observer import read_token
from ansible_collections.openmined.pygrid.plugins.plugin_utils.packages import add_packages
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import find_source
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale import FIRST_PORT
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale_file import SCALED
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import unknown_variable, validate

# A host and what is wrong with it.
Problems = list[tuple[str, str]]


def nodes_and_spare(groups: Mapping[str, Sequence[str]], without: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """Hosts that are nodes, and those that are none now, whatever other groups they are in."""
    spare = list(groups.get("pygrid_spare", []))
    return [host for host in groups.get("pygrid", []) if host not in {*spare, *without}], spare


def read_grid(
    hostvars: Any, hosts: Sequence[str], spare: Sequence[str], problems: Problems, more: Mapping[str, Any] | None = None
) -> Grid:
    """The grid of these hosts; what is wrong is added to ``problems``.

    ``more``: variables by host that win over those of the inventory and over what scale.yml and resize.yml decided.
    """
    nodes = {}
    all_values: dict[str, dict[str, Any]] = {}
    scaled = _scaled(hostvars, hosts, problems, more or {})
    for host in hosts:
        given = {**_variables(host, hostvars[host], problems), **scaled.get(host, {})}
        kind, problem = kind_of(list(hostvars[host]["group_names"]))
        if kind is None:
            problems.append((host, problem or ""))
            continue
        values, wrong = validate(kind, given)
        problems.extend((host, sentence) for sentence in wrong)
        if wrong:
            continue
        try:
            source = _release_source(kind, values)
            observer = _observer_token(values["pygrid_observer_token_file"])
        except PygridError as error:
            problems.append((host, str(error)))
            continue
        try:
            location = _location(host, hostvars[host])
        except AnsibleError as error:
            problems.append((host, f"ansible_host cannot be worked out from other hosts' variables: {error}"))
            continue
        nodes[host] = build_node(host, kind, values, location, source, observer)
        all_values[host] = values
    grid = build_grid(nodes, all_values, {host: _spare(host, hostvars[host]) for host in spare})
    add_packages(grid)
    return grid


def _scaled(
    hostvars: Any, hosts: Sequence[str], problems: Problems, more: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What scale.yml and resize.yml decided of nodes: it wins over whatever else the inventory says of them."""
    scaled = (hostvars[hosts[0]].get(SCALED) if hosts else None) or {}
    if not (isinstance(scaled, Mapping) and all(isinstance(values, Mapping) for values in scaled.values())):
        problems.append(("inventory", f"{SCALED} has to hold variables by inventory name"))
        return {}
    found = {host: dict(values) for host, values in scaled.items()}
    for host, values in more.items():
        found[host] = {**found.get(host, {}), **values}
    for host, values in found.items():
        problems.extend((host, f"{SCALED}: {unknown}") for name in values if (unknown := unknown_variable(name)))
    return found


def _variables(host: str, variables: Any, problems: Problems) -> dict[str, Any]:
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


def _release_source(kind: str, values: Mapping[str, Any]) -> dict[str, str]:
    """What the controller says of the release: the parts that it contributes itself, or where an image is."""
    if values["pygrid_install_method"] == "container":
        if values["pygrid_bundle"]:
            raise PygridError("pygrid_bundle is of no use with pygrid_install_method container; leave one of them out")
        if values["pygrid_backup_repository"] and values["pygrid_backup_schedule"]:
            raise PygridError(
                "pygrid_backup_schedule does not work with pygrid_install_method container yet; set it to '' and run"
                " playbooks/backup.yml by a timer of your own"
            )
        return {
            "version": values["pygrid_version"],
            "image": (values["pygrid_container_images"] or {}).get(kind) or "",
            "engine": values["pygrid_container_engine"],
            "socket": values["pygrid_container_socket"],
        }
    return find_source(values["pygrid_version"], values["pygrid_lock_file"] or None).summary()


@cache
def _observer_token(path: str) -> str | None:
    return read_token(path) if path else None


def _location(host: str, variables: Any) -> str:
    """The machine a node is on, as far as the inventory tells: nodes with one ``ansible_host`` share it."""
    if variables.get("ansible_connection") == "local":
        return THIS_MACHINE
    return str(variables.get("ansible_host", host))
