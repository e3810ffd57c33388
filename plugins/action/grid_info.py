# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.grid_info: runs on the controller and sends nothing to any host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import find_problems, find_warnings
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_reader import Problems, nodes_and_spare, read_grid
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import FAILED
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale_file import UNFINISHED, is_read, place_of


class ActionModule(ActionBase):
    """Read every host of the group pygrid, whatever --limit says: nodes depend on each other."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the grid, or fail with all problems of all hosts at once."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        problems: Problems = []
        nodes, spare = nodes_and_spare(task_vars["groups"], self._task.args.get("without") or [])
        problems.extend(_unread_file(task_vars))
        problems.extend(("inventory", f"not all of it could be seen: {told}") for told in task_vars.get(FAILED) or [])
        grid = read_grid(task_vars["hostvars"], nodes, spare, problems, self._task.args.get("scaled"))
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
