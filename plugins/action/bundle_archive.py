# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.bundle_archive: runs on the controller and talks to no host."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import distribution_key, summary
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.operating_system import describe
from ansible_collections.openmined.pygrid.plugins.module_utils.pythons import SUPPORTED_TEXT, SUPPORTED_VERSIONS
from ansible_collections.openmined.pygrid.plugins.module_utils.release_files import platform_tag
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import normal_packages
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_archive import contents_of, open_archive
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_make import Distribution, Plan, make
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Target, Workshop, cache_folder
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import kind_of
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import find_source
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import ROLES, validate

FAMILIES = {"debian": "debian", "ubuntu": "debian", "el": "redhat"}
NEEDED = ("pygrid_scope", "pygrid_version", "pygrid_lock_file", "pygrid_worker_packages", "pygrid_managed_python")


class ActionModule(ActionBase):
    """Make a bundle for the hosts of the inventory, or look into those that a deploy is to use."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the bundle holds."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "state": {"type": "str", "choices": ["present", "checked"], "default": "present"},
                "file": {"type": "str"},
                "pythons": {"type": "list", "elements": "str", "default": []},
                "platforms": {"type": "list", "elements": "str", "default": []},
                "distributions": {"type": "list", "elements": "str", "default": []},
                "known_distributions": {"type": "dict", "default": {}},
                "apt_sources": {"type": "dict", "default": {}},
                "cache": {"type": "str", "default": ""},
            },
            required_if=[("state", "present", ["file"])],
        )
        try:
            if arguments["state"] == "checked":
                return {**result, "changed": False, "bundles": look_into(bundles_of(task_vars or {}))}
            return {**result, **self._make(arguments, task_vars or {})}
        except PygridError as error:
            return {**result, "failed": True, "msg": str(error)}

    def _make(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        hosts = task_vars["groups"].get("pygrid", [])
        nodes = [node for host in hosts if (node := _node(task_vars["hostvars"][host]))]
        plan = make_plan(nodes, arguments)
        file = Path(arguments["file"]).expanduser().absolute()
        if self._task.check_mode:
            return {"changed": not plan.is_outline_of(contents_of(file)), "file": str(file), "contents": plan.steps()}
        started = time.monotonic()
        workshop = Workshop(cache_folder(arguments["cache"]), Display().display)
        index = make(plan, file, workshop)
        return {
            "changed": index["changed"],
            "file": str(file),
            "contents": plan.steps(),
            "files": len(index["files"]),
            "size_mb": file.stat().st_size // 1_000_000,
            "seconds": round(time.monotonic() - started, 1),
        }


def bundles_of(task_vars: dict[str, Any]) -> list[str]:
    """The bundles that the hosts of the play are to be deployed from; nodes on one machine share one."""
    machines: dict[str, dict[str, str]] = {}
    for host in task_vars["ansible_play_hosts"]:
        variables = task_vars["hostvars"][host]
        place = str(variables.get("ansible_host", host))
        machines.setdefault(place, {})[str(variables.get("pygrid_bundle", ""))] = host
    for files in machines.values():
        if len(files) > 1:
            raise PygridError(
                f"{' and '.join(files.values())} are on one machine and have different bundles "
                f"({' and '.join(file or 'none' for file in files)}); set pygrid_bundle alike for both"
            )
    return sorted({file for files in machines.values() for file in files} - {""})


def look_into(files: list[str]) -> dict[str, Any]:
    """Check every byte of the bundles, and return for each what tells whether it fits a host."""
    found = {}
    for file in files:
        archive = open_archive(file)
        archive.verify()
        found[file] = {"file": str(archive.path), **summary(archive.index)}
    return found


def _node(variables: Any) -> dict[str, Any] | None:
    """The variables of one host that decide what it needs from a bundle, with their defaults."""
    kind, _problem = kind_of(list(variables["group_names"]))
    if kind is None:
        return None
    given = {name: variables[name] for name in NEEDED if name in variables}
    values, _problems = validate(kind, given)
    return {name: values[name] for name in NEEDED}


def make_plan(nodes: list[dict[str, Any]], arguments: dict[str, Any]) -> Plan:
    """What the bundle has to hold so that each of the nodes can be deployed from it."""
    known = arguments["known_distributions"]
    names = arguments["distributions"] or [distribution_key(describe())]
    for name in names:
        if name not in known:
            raise PygridError(f"'{name}' is no distribution that a host can have; choose of {', '.join(sorted(known))}")
    managed = sorted({node["pygrid_managed_python"] for node in nodes} - {""})
    pythons = arguments["pythons"] or sorted({known[name]["python"] for name in names} - {""} | set(managed))
    if not pythons:
        raise PygridError(
            f"{', '.join(names)} brings no Python {SUPPORTED_TEXT}; "
            "set pygrid_managed_python for its hosts, or pygrid_bundle_pythons to what they have"
        )
    for python in pythons:
        if python not in SUPPORTED_VERSIONS:
            raise PygridError(f"Python {python} cannot run a node; choose {SUPPORTED_TEXT}")
    platforms = [f"linux-{machine}" for machine in arguments["platforms"]] or [platform_tag()]
    targets = [Target(python, platform) for platform in platforms for python in pythons]
    system = any(node["pygrid_scope"] == "system" for node in nodes)
    return Plan(
        releases=_releases(nodes),
        targets=targets,
        pythons=[target for target in targets if target.python in managed],
        distributions=[_distribution(name, platform, arguments) for platform in platforms for name in names if system],
    )


def _releases(nodes: list[dict[str, Any]]) -> list[tuple[Any, list[str]]]:
    found = {}
    for node in nodes:
        source = find_source(node["pygrid_version"], node["pygrid_lock_file"] or None)
        packages = normal_packages(node["pygrid_worker_packages"])
        found[source.version, source.lock_sha256, tuple(packages)] = (source, packages)
    return [found[key] for key in sorted(found)]


def _distribution(name: str, platform: str, arguments: dict[str, Any]) -> Distribution:
    file = ROLES / "host" / "vars" / f"{FAMILIES[name.partition('-')[0]]}.yml"
    table = yaml.safe_load(file.read_text(encoding="utf-8"))
    packages = dict.fromkeys(package for packages in table["_host_packages"].values() for package in packages)
    sources = arguments["apt_sources"].get(name, [])
    suite = arguments["known_distributions"][name].get("suite", "")
    return Distribution(name, platform, suite, tuple(packages), tuple(sources))
