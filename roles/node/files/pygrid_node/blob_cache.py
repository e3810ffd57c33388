# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Worker's own copies of blobs that live elsewhere, so that a dataset crosses the network once and not with each job.

A copy is only ever used after its store has said that it is the current version. The cache is a convenience: nothing
fails because it is full, gone, or used by several processes at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
from pathlib import Path

log = logging.getLogger("pygrid_node.blobs")

MAX_BYTES = 2 << 30
_KEEP_FREE_BYTES = 512 << 20  # the disk also holds the Worker's scratch files
_VERSION = re.compile(r"[0-9A-Za-z-]{1,70}")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class BlobCache:
    """Copies of blobs in one folder, `<name>@<version>` each; the ones not used for longest go first.

    Args:
        folder: a folder for this alone.
        max_bytes: how much it may hold.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        # Copies are not synced to the disk: after a crash of the machine they may be torn, so a boot starts anew.
        self._folder = folder / _boot()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for former in folder.iterdir():
            if former != self._folder:
                shutil.rmtree(former, ignore_errors=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for torn in self._folder.glob(".*"):  # of a job that was killed; this runs before there is any job
            torn.unlink(missing_ok=True)

    def version(self, name: str) -> str:
        """The version that the cache has of a blob, or ""."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name.startswith(f"{name}@"):
                    return path.name.rpartition("@")[2]
        return ""

    def get(self, name: str, version: str) -> bytes | None:
        """The content, unless another process has thrown it out meanwhile."""
        path = self._path(name, version)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, name: str, version: str, data: bytes) -> None:
        """Keep a content that has been checked; the other versions of this blob go."""
        if not _VERSION.fullmatch(version) or len(data) > self._max_bytes:
            return
        temporary = self._folder / f".{secrets.token_hex(8)}"
        try:
            self._make_room(len(data))
            if shutil.disk_usage(self._folder).free - len(data) < _KEEP_FREE_BYTES:
                return
            temporary.touch(mode=0o600, exist_ok=False)
            temporary.write_bytes(data)
            self.drop(name)
            temporary.replace(self._path(name, version))
        except OSError as error:
            log.warning("not keeping a copy of blob %s: %s", name, error.strerror)
            with contextlib.suppress(OSError):
                temporary.unlink()

    def drop(self, name: str) -> None:
        """Forget a blob."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name.startswith(f"{name}@"):
                    path.unlink(missing_ok=True)

    def _path(self, name: str, version: str) -> Path:
        return self._folder / f"{name}@{version}"

    def _make_room(self, size: int) -> None:
        copies = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                copies.append((status.st_mtime, status.st_size, path))
        total = sum(kept for _used, kept, _path in copies)
        for _used, freed, path in sorted(copies):
            if total + size <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= freed


def _boot() -> str:
    """A name that changes when the machine boots."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux: then with each start
        return secrets.token_hex(8)
