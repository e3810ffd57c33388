# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action: hand the controller's part of a release to the module, and files only when the host lacks them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import (
    find_python,
    find_release,
    find_uv,
    why_no_release,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.release_files import platform_tag
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import normal_packages
from ansible_collections.openmined.pygrid.plugins.plugin_utils import listening, release_source
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_archive import BundleArchive, open_archive
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_send import hand_over, one_at_a_time, send

MODULE = "openmined.pygrid.release"


class ActionModule(ActionBase):
    """Run the module once to ask, and a second time with files when they are needed."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result; a failure names the host."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        arguments = dict(self._task.args)
        arguments.pop("source", None)
        try:
            result.update(self._stage(arguments, task_vars))
        except PygridError as error:
            result.update(failed=True, msg=str(error))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        if result.get("failed") and "msg" in result:
            result["msg"] = f"{task_vars.get('inventory_hostname', 'localhost')}: {result['msg']}"
        return result

    def _stage(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if (
            arguments.get("image")
            or arguments.get("state", "present") == "pruned"
            or arguments.get("name")
            or not arguments.get("version")
        ):
            return self._module(arguments, task_vars)
        source = release_source.find_source(arguments["version"], arguments.get("lock_file"))
        bundle = open_archive(arguments["bundle"]) if arguments.get("bundle") else None
        contribution = {
            **source.summary(),
            "supervisor_version": release_source.supervisor_version(),
            "uv_version": bundle.index["uv_version"] if bundle else release_source.uv_version(),
        }
        with one_at_a_time(self._play_context, arguments.get("home")):
            answer = self._module({**arguments, "source": contribution}, task_vars)
            needs = answer.pop("needs", None)
            if not needs:
                return answer
            if bundle:
                contribution["bundle"] = self._send_bundle(bundle, needs, contribution, arguments, task_vars)
            elif needs["uv"]:
                check_uv(needs["platform"])
            with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as folder:
                archive = release_source.pack(source, Path(folder) / "release.tar.gz")
                contribution["archive"] = hand_over(self, archive)
                if needs["uv"] and not bundle:
                    contribution["uv"] = hand_over(self, release_source.find_uv())
                return self._module({**arguments, "source": contribution}, task_vars)

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        return listening.execute(self, MODULE, arguments, task_vars)

    def _send_bundle(
        self,
        bundle: BundleArchive,
        needs: dict[str, Any],
        contribution: dict[str, Any],
        arguments: dict[str, Any],
        task_vars: dict[str, Any],
    ) -> str:
        """Bring what the release is made of, and return where it lies on the host."""
        need = {key: contribution[key] for key in ("version", "lock_sha256")}
        need["packages"] = normal_packages(arguments.get("packages"))
        need.update(tag=needs["tag"], platform=needs["platform"])
        index = bundle.index
        if problem := why_no_release(index, need):
            raise PygridError(f"the bundle {bundle.path} does not fit: {problem}")
        entry = find_release(index, need)
        paths = [entry["requirements"], *entry["wheels"]]
        if arguments.get("service_manager") == "supervisor":
            paths += [index["supervisor"]["requirements"], *index["supervisor"]["wheels"]]
        if needs["uv"]:
            paths.append(find_uv(index, needs["platform"]))
        if needs["python"]:
            python = find_python(index, needs["tag"], needs["platform"])
            if python is None:
                raise PygridError(f"the bundle {bundle.path} has no CPython for {needs['platform']} ({needs['tag']})")
            paths.append(python["path"])
        place = {"home": arguments["home"], "scope": arguments.get("scope", "user")}
        return send(self, bundle, paths, place, task_vars)["folder"]


def check_uv(platform: str) -> None:
    """Refuse when the controller has no uv that runs on the host."""
    release_source.find_uv()  # or say how to get it
    if platform != platform_tag() and not release_source.uv_is_chosen():
        raise PygridError(
            f"the controller's uv is built for {platform_tag()} and the host is {platform}; "
            "set PYGRID_UV in the environment of ansible-playbook to a uv that runs on the host, or use a bundle"
        )
