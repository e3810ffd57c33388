# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action: hand the controller's part of a release to the module, and files only when the host lacks them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.release_files import platform_tag
from ansible_collections.openmined.pygrid.plugins.plugin_utils import release_source

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
        if arguments.get("state", "present") == "pruned" or arguments.get("name") or not arguments.get("version"):
            return self._module(arguments, task_vars)
        source = release_source.find_source(arguments["version"], arguments.get("lock_file"))
        contribution = {
            **source.summary(),
            "supervisor_version": release_source.supervisor_version(),
            "uv_version": release_source.uv_version(),
        }
        with one_at_a_time(self._play_context, arguments.get("home")):
            answer = self._module({**arguments, "source": contribution}, task_vars)
            needs = answer.pop("needs", None)
            if not needs:
                return answer
            if needs["uv"]:
                release_source.find_uv()  # or say how to get it
            if needs["uv"] and needs["platform"] != platform_tag() and not release_source.uv_is_chosen():
                raise PygridError(
                    f"the controller's uv is built for {platform_tag()} and the host is {needs['platform']}; "
                    "set PYGRID_UV in the environment of ansible-playbook to a uv that runs on the host"
                )
            with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as folder:
                archive = release_source.pack(source, Path(folder) / "release.tar.gz")
                contribution["archive"] = self._hand_over(archive)
                if needs["uv"]:
                    contribution["uv"] = self._hand_over(release_source.find_uv())
                return self._module({**arguments, "source": contribution}, task_vars)

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)

    def _hand_over(self, file: Path) -> str:
        """Return a path of the file on the host; on this machine that is the file itself."""
        if self._connection.transport == "local" and self._connection.become is None:
            return str(file)
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        remote = self._transfer_file(str(file), shell.join_path(shell.tmpdir, file.name))
        self._fixup_perms2((shell.tmpdir, remote))
        return remote


@contextmanager
def one_at_a_time(context: Any, home: str | None) -> Iterator[None]:
    """Let the forks of this run that stage on the same host wait for each other, so that only one sends files.

    Runs from other controllers are kept apart by the lock on the host.
    """
    place = "\0".join(str(part) for part in (context.remote_addr, context.port, context.remote_user, home))
    name = f"pygrid-release-{hashlib.sha256(place.encode()).hexdigest()[:16]}.lock"
    descriptor = os.open(Path(constants.DEFAULT_LOCAL_TMP) / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
