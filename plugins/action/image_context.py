# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.image_context: runs on the controller and talks to no host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import find_engine
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import normal_packages
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Workshop, cache_folder
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import kind_of
from ansible_collections.openmined.pygrid.plugins.plugin_utils.image_context import fill, python_of
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import ReleaseSource, find_source
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import validate

NEEDED = ("pygrid_version", "pygrid_lock_file", "pygrid_worker_packages")


class ActionModule(ActionBase):
    """Fill the folder that the images of a grid are built from."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return where the folder is, and how the engine is called."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "base": {"type": "str", "required": True},
                "engine": {"type": "str", "choices": ["auto", "docker", "podman"], "default": "auto"},
                "socket": {"type": "str", "default": ""},
                "cache": {"type": "str", "default": ""},
            }
        )
        try:
            return {**result, **self._fill(arguments, task_vars or {})}
        except PygridError as error:
            return {**result, "failed": True, "msg": str(error)}

    def _fill(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        source, packages = _wanted(task_vars)
        engine, problem = find_engine(arguments["engine"], arguments["socket"])
        if engine is None:
            raise PygridError(f"{problem}; images are built on the controller")
        answer = {**source.summary(), "packages": packages, "command": engine.command(), "changed": False}
        if self._task.check_mode:
            return answer
        target = python_of(engine, arguments["base"])
        workshop = Workshop(cache_folder(arguments["cache"]), Display().display)
        folder, changed = fill(source, packages, target, workshop)
        return {**answer, "folder": str(folder), "python": target.python, "changed": changed}


def _wanted(task_vars: dict[str, Any]) -> tuple[ReleaseSource, list[str]]:
    """The one release that all nodes in containers are to have, with the packages of all of them."""
    found: dict[str, dict[str, Any]] = {}
    for host in task_vars["groups"].get("pygrid", []):
        variables = task_vars["hostvars"][host]
        kind, _problem = kind_of(list(variables["group_names"]))
        if kind:
            found[host], _problems = validate(kind, {name: variables[name] for name in NEEDED if name in variables})
    releases = {(values["pygrid_version"], values["pygrid_lock_file"]) for values in found.values()}
    if len(releases) != 1:
        versions = ", ".join(sorted(version for version, _lock in releases)) or "none"
        raise PygridError(f"the nodes of the inventory have to have one version for images, and have {versions}")
    version, lock = releases.pop()
    packages = normal_packages([package for values in found.values() for package in values["pygrid_worker_packages"]])
    return find_source(version, lock or None), packages
