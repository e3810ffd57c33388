# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the controller to a host: files in general, and those parts of a bundle that the host lacks."""

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
from ansible.utils.display import Display

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_archive import BundleArchive

MODULE = "openmined.pygrid.bundle"
# What is sent at once, and so at most sent again after a run was killed.
PARCEL_BYTES = 64_000_000


@contextmanager
def one_at_a_time(context: Any, home: str | None) -> Iterator[None]:
    """Let the forks of this run that work on the same host wait for each other, so that only one sends files.

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


def hand_over(action: ActionBase, file: Path) -> str:
    """Return a path of the file on the host; on this machine that is the file itself."""
    if action._connection.transport == "local" and action._connection.become is None:
        return str(file)
    shell = action._connection._shell
    if shell.tmpdir is None:
        action._make_tmp_path()
    remote = action._transfer_file(str(file), shell.join_path(shell.tmpdir, file.name))
    action._fixup_perms2((shell.tmpdir, remote))
    return remote


def send(
    action: ActionBase, archive: BundleArchive, paths: list[str], arguments: dict[str, Any], task_vars: dict[str, Any]
) -> dict[str, Any]:
    """Bring those of ``paths`` that the host lacks, and return the answer of the module about all of them.

    arguments: home and scope of the grid on the host.
    """

    def call(**more: Any) -> dict[str, Any]:
        given = {**arguments, "digest": archive.digest, **more}
        answer = action._execute_module(module_name=MODULE, module_args=given, task_vars=task_vars)
        if answer.get("failed"):
            raise PygridError(answer.get("msg", "the bundle could not be brought to the host"))
        return answer

    entries = archive.entries(paths)
    answer = call(files=entries)
    if action._task.check_mode:
        return answer
    missing = set(answer["missing"])
    parcels = list(_parcels([entry for entry in entries if entry["path"] in missing]))
    total = sum(entry["size"] for parcel in parcels for entry in parcel)
    sent = 0
    for number, parcel in enumerate(parcels):
        with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as folder:
            packed = archive.pack([entry["path"] for entry in parcel], Path(folder) / f"bundle-{number}.tar")
            call(files=parcel, archive=hand_over(action, packed))
        sent += sum(entry["size"] for entry in parcel)
        host = task_vars.get("inventory_hostname", "localhost")
        Display().display(f"{host}: {sent // 1_000_000} of {total // 1_000_000} MB of the bundle are there")
    return {**answer, "changed": bool(parcels)}


def _parcels(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    parcel: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        if parcel and size + entry["size"] > PARCEL_BYTES:
            yield parcel
            parcel, size = [], 0
        parcel.append(entry)
        size += entry["size"]
    if parcel:
        yield parcel
