# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.bundle: send the host the packages of its distribution, as far as it lacks them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import distribution_key, find_distribution
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_archive import open_archive
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_send import MODULE, one_at_a_time, send


class ActionModule(ActionBase):
    """Ask the host what it is, then bring what fits it."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result; a failure names the host."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        arguments = dict(self._task.args)
        try:
            archive = open_archive(str(arguments.pop("file", "")))
            with one_at_a_time(self._play_context, arguments.get("home")):
                host = self._execute_module(
                    module_name=MODULE, module_args={**arguments, "digest": archive.digest}, task_vars=task_vars
                )
                if host.get("failed"):
                    return {**result, **host}
                key = distribution_key(host["os"])
                entry = find_distribution(archive.index, key, host["platform"])
                if entry is None:
                    raise PygridError(f"the bundle {archive.path} has no packages for {key} on {host['platform']}")
                arguments["repository"] = entry["folder"]
                result.update(send(self, archive, archive.inside(entry["folder"]), arguments, task_vars))
        except PygridError as error:
            result.update(failed=True, msg=f"{task_vars.get('inventory_hostname', 'localhost')}: {error}")
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result
