# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One backup of one node: a snapshot of what it knows and is, put into its repository and read back.

The runtime makes the snapshot in the node's own folder, as the node's own account, which might play tricks there. So
from the moment at which root's program reads it, its folders are root's, and it is reached by descriptors only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.backup_engine import Restic, digest_of
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_folder import BackupFolder, Plan
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import locked, read_json, read_text, to_json
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.snapshots import delete_snapshots, snapshot

SCHEMA = 1
PREFIX = "backup-"
# Always the same name, so that restic finds the former backup by its path.
UPLOAD = "backup-upload"
# In the backup, beside what the runtime's snapshot holds: what the node is.
NODE, NOTES = "node", "node/backup.json"


@dataclass(frozen=True)
class Result:
    """A backup that was written and read back. ``warnings``: what went wrong after that."""

    id: str
    at: float
    bytes: int
    added_bytes: int
    read_back_files: int
    read_back_bytes: int
    kept: int
    seconds: float
    warnings: tuple[str, ...] = ()


class Backup:
    """Backing up one node of this host."""

    def __init__(self, home: Home, name: str) -> None:
        self._home, self._node = home, home.node(name)
        self._folder = BackupFolder(self._node)

    def take(self) -> Result:
        """Make a backup, verify it, and forget those that are not to be kept.

        Raises:
            PygridError: there is no new backup; the reason is noted for whoever asks for the state of the node.
        """
        with locked(self._home.locks / f"backup-{self._node.name}.lock"):
            try:
                result = self._take()
            except (PygridError, OSError) as error:
                if self._node.backup.is_dir():
                    self._folder.note(failed={"at": time.time(), "error": str(error)})
                raise
            good = {key: value for key, value in result.__dict__.items() if key != "warnings"}
            self._folder.note(good=good, failed=None)
        return result

    def _take(self) -> Result:
        began = time.monotonic()
        plan = self._folder.plan()
        if plan is None:
            raise PygridError(f"{self._node.name} is not set up for backups; run playbooks/backup.yml")
        if not (self._node.identity.exists() and self._node.settings.exists() and self._node.active_release()):
            raise PygridError(f"{self._node.name} is not deployed here: there is nothing to back up")
        restic = Restic(self._home, self._folder, plan)
        self._ensure_repository(restic, plan)
        restic.unlock()
        with self._staged(plan) as (folder, notes):
            summary, changed = restic.backup(folder)
            digests = {path: _digest_below(folder, path) for path in changed}
            restic.read_back(summary["snapshot_id"], digests, summary["total_bytes_processed"])
            read_back_bytes = sum(_size_below(folder, path) for path in changed)
        restic.check()
        warnings = []
        try:
            restic.forget(plan.keep)
        except PygridError as error:
            warnings.append(f"older backups could not be forgotten: {error}")
        return Result(
            id=summary["snapshot_id"][:8],
            at=notes["taken_at"],
            bytes=summary["total_bytes_processed"],
            added_bytes=summary["data_added"],
            read_back_files=len(changed),
            read_back_bytes=read_back_bytes,
            kept=len(restic.snapshots()),
            seconds=round(time.monotonic() - began, 1),
            warnings=tuple(warnings),
        )

    def _ensure_repository(self, restic: Restic, plan: Plan) -> None:
        """Make the repository the first time; one that has vanished since is no reason to begin a new one."""
        known = self._folder.last()["repository"] or {}
        found = restic.repository_id()
        if found is None:
            if known.get("place") == plan.repository:
                raise PygridError(
                    f"the repository at {plan.repository} is gone, with all backups in it: is its disk mounted? To"
                    f" begin a new one, delete {self._folder.root}/last.json on this host"
                )
            found = restic.create()
        if known.get("id") != found:
            self._folder.note(repository={"place": plan.repository, "id": found})

    # -- what is saved -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _staged(self, plan: Plan) -> Iterator[tuple[int, dict[str, Any]]]:
        """A folder (descriptor) with everything that belongs to the node, and the notes that are in it."""
        staging = self._worker_staged() if plan.kind == "worker" else self._snapshot_staged()
        with staging as (folder, taken):
            notes = {
                "schema": SCHEMA,
                "node": self._node.name,
                "kind": plan.kind,
                "uid": (read_json(self._node.identity) or {}).get("uid"),
                "taken_at": (taken or {}).get("taken_at", time.time()),
                "release": self._node.active_release(),
                "syft_version": (self._node.active_release() or "").partition("-")[0],
                "collection_version": plan.collection_version,
                "host": os.uname().nodename,
                "snapshot": taken,
            }
            os.mkdir(NODE, 0o700, dir_fd=folder)
            for path in (self._node.identity, self._node.settings, self._node.workers):
                text = read_text(path)
                if text is not None:
                    _write_below(folder, f"{NODE}/{path.name}", text)
            _write_below(folder, NOTES, to_json(notes))
            yield folder, notes

    @contextlib.contextmanager
    def _worker_staged(self) -> Iterator[tuple[int, None]]:
        """A Worker keeps nothing that its Domain does not have."""
        staging = self._folder.root / UPLOAD
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield folder, None
        finally:
            os.close(folder)
            shutil.rmtree(staging, ignore_errors=True)

    @contextlib.contextmanager
    def _snapshot_staged(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """A snapshot of the runtime's, which nobody but root can change while it is read."""
        python = self._node.python
        self._forget_uploads(python)
        taken = snapshot(self._node, python, "take", UPLOAD)
        folder = open_below(self._node.state, "snapshots", UPLOAD)
        try:
            _give(folder, os.geteuid(), os.getegid())
            yield folder, taken
        finally:
            os.close(folder)
            self._forget_uploads(python)

    def _forget_uploads(self, python: Path) -> None:
        """Delete the snapshots that were made for a backup, this one's or one's that was killed."""
        owner = self._node.state.stat()
        for entry in (self._node.state / "snapshots").glob(f"{PREFIX}*"):
            folder = open_below(self._node.state, "snapshots", entry.name)
            try:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(f"/proc/self/fd/{folder}/{NODE}")
                _give(folder, owner.st_uid, owner.st_gid)
            finally:
                os.close(folder)
        delete_snapshots(self._node, python, PREFIX)


def open_below(base: Path, *names: str) -> int:
    """A descriptor of a folder; none of ``names`` may be a link to somewhere else.

    ``base`` itself lies in a folder of root's (in scope user: of the account's).
    """
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    for name in names:
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _give(folder: int, user: int, group: int) -> None:
    """Make a snapshot's folders somebody's; its files stay whose they are, many are the node's own blobs."""
    if os.geteuid() != 0:
        return
    os.fchown(folder, user, group)
    with contextlib.suppress(FileNotFoundError):
        blobs = os.open("blobs", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        try:
            os.fchown(blobs, user, group)
        finally:
            os.close(blobs)


def _write_below(folder: int, path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def _digest_below(folder: int, path: str) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as stream:
        return digest_of(stream)


def _size_below(folder: int, path: str) -> int:
    return os.stat(path, dir_fd=folder, follow_symlinks=False).st_size
