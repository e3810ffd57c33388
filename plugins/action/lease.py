# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action: name this run, and find out whether the run that stands in its way is dead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.openmined.pygrid.plugins.module_utils.record import DONE, ENDED, Record
from ansible_collections.openmined.pygrid.plugins.plugin_utils import controller_process, run_state
from ansible_collections.openmined.pygrid.plugins.plugin_utils.controller_record import record_path
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import collection_version

MODULE = "openmined.pygrid.lease"
# How many ends of former runs are told to the hosts, which may have missed them.
ENDS_TOLD = 20
OF_AN_END = ("run", "verb", "result", "message", "seconds")


class ActionModule(ActionBase):
    """Run the module, and once more when its way was barred by a run of this controller that has ended.

    The record of the controller is written here, by whichever host comes first.
    """

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result; a failure names the host."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        given = self._task.args
        path = record_path(str(given.get("record_file") or ""))
        record = Record(path) if path and not self._task.check_mode else None
        arguments = {
            **given,
            "run": controller_process.own_name(),
            "who": controller_process.person(task_vars),
            "facts": {"collection": collection_version(), "wanted": str(given.get("wanted") or "")},
        }
        if given.get("state", "held") == "held":
            answer = self._hold(arguments, task_vars, record)
        else:
            answer = self._release(arguments, task_vars, record)
        if answer.get("failed") and "msg" in answer:
            answer["msg"] = f"{task_vars.get('inventory_hostname', 'localhost')}: {answer['msg']}"
        return {**result, **answer, "record_file": str(path or "")}

    def _hold(self, arguments: dict[str, Any], task_vars: dict[str, Any], record: Record | None) -> dict[str, Any]:
        if record:
            arguments["ends"] = self._noting(lambda: _ends(record)) or []
        answer = self._module(arguments, task_vars)
        holder = answer.get("held_by")
        if holder and controller_process.is_dead(holder):
            answer = self._module({**arguments, "instead_of": holder}, task_vars)
        if record and not answer.get("failed"):
            facts = {
                "who": arguments["who"],
                "inventory": ", ".join(map(str, task_vars.get("ansible_inventory_sources") or [])),
                **arguments["facts"],
                "nodes": arguments.get("nodes") or {},
            }
            self._noting(lambda: record.begin(arguments["run"], arguments["verb"], **facts))
        return answer

    def _release(self, arguments: dict[str, Any], task_vars: dict[str, Any], record: Record | None) -> dict[str, Any]:
        changed = run_state.STATE.changed
        arguments["facts"] = {} if changed is None else {"changed": changed}
        answer = self._module(arguments, task_vars)
        if record and arguments.get("verb"):
            self._noting(
                lambda: record.end(
                    arguments["run"],
                    arguments["verb"],
                    arguments.get("result", DONE),
                    str(arguments.get("reason") or ""),
                    changes=arguments.get("changes"),
                    **arguments["facts"],
                )
            )
        return answer

    @staticmethod
    def _noting(note: Callable[[], Any]) -> Any:
        """A record that cannot be written is no reason to leave the grid as it is."""
        try:
            return note()
        except OSError as error:
            Display().warning(f"The record of changes on the controller (pygrid_record_file) is not complete: {error}")
            return None

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)


def _ends(record: Record) -> list[dict[str, Any]]:
    """Note which runs of this controller have ended without noting it, and return how the latest ones ended badly."""
    record.close(controller_process.is_dead, message="it had ended when the next run began")
    ended = [entry for entry in record.entries() if entry["event"] == ENDED and entry.get("result") != DONE]
    return [{key: entry.get(key) for key in OF_AN_END} for entry in ended[-ENDS_TOLD:]]
