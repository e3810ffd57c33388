# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots: what a Network or a Domain knew at one moment, its database and its blobs, kept beside its data.

A snapshot is a folder <node>/snapshots/<name>. It has that name only when it is complete; before that it is hidden.
Blobs are never changed in place, so they are hard links, which cost neither time nor room. Blobs in S3 stay where they
are. Everything is done as the account that the data belongs to.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .blob_store import is_name
from .database_copy import DatabaseCopy, Rows
from .errors import EXIT_TEMPORARY, NodeError
from .files import replace_private_text, sync
from .settings import Settings

_MANIFEST, _ROWS, _BLOBS = "manifest.json", "rows.json.gz", "blobs"
_SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# What nodes write by themselves, all the time or at their first start with a release; nobody would miss a change of it.
_PASSING = frozenset(
    {
        "WorkerPool", "SyftWorker", "SyftWorkerImage", "ServerPeer", "ServerSettings", "QueueItem", "Notification",
        "SyftLog",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of one node.

    Args:
        settings: of the node.
        database: how its database is copied.
    """

    settings: Settings
    database: DatabaseCopy

    @property
    def folder(self) -> Path:
        return self.settings.node_directory / "snapshots"

    def take(self, name: str, notes: dict[str, Any]) -> dict[str, Any]:
        """Keep what the node knows now under a name; the node may be running.

        A blob that is named by the saved database was there when that was saved, so it is linked before or after.

        Args:
            notes: what the caller wants to find in the manifest, such as the release.

        Returns:
            The manifest.
        """
        target, draft = self._path(name), self.folder / f".{name}.part"
        if target.exists():
            raise NodeError(f"there is a snapshot {name} already")
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            _remove(draft)
            (draft / _BLOBS).mkdir(mode=0o700, parents=True)
            self._link_blobs(draft / _BLOBS)
            rows = self.database.save(draft / self.database.file_name)
            self._link_blobs(draft / _BLOBS)
            if self.settings.owner_file.exists():
                shutil.copyfile(self.settings.owner_file, draft / self.settings.owner_file.name)
            (draft / _ROWS).write_bytes(gzip.compress(json.dumps(rows).encode(), compresslevel=1))
            manifest = self._manifest(draft, rows, notes)
            (draft / _MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            for path in (*draft.iterdir(), draft):  # the blobs themselves were safe before
                sync(path)
            draft.rename(target)
            sync(self.folder)
        except OSError as error:
            raise _failed(f"cannot keep the snapshot {name}", error) from None
        return manifest

    def restore(self, name: str) -> dict[str, Any]:
        """Put database and blobs back as they were; the node has to be stopped.

        May be killed at any moment and repeated: what the database names is always there, because the blobs that are
        missing come before it, and those that it does not name any more go after it.

        Returns:
            The manifest.
        """
        manifest, source = self.read(name), self._path(name)
        if manifest["database"] != self.database.kind:
            raise NodeError(f"the snapshot {name} is of {manifest['database']}, the node has {self.database.kind} now")
        try:
            self.settings.data_directory.mkdir(mode=0o700, exist_ok=True)
            in_files = manifest["blob_store"] == "files"
            if in_files:
                self._put_blobs_back(source / _BLOBS)
            self.database.load(source / self.database.file_name)
            if in_files:
                self._drop_other_blobs(source / _BLOBS)
            owner = source / self.settings.owner_file.name
            if owner.exists():
                replace_private_text(self.settings.owner_file, owner.read_text(encoding="utf-8"))
            sync(self.settings.data_directory)
        except OSError as error:
            raise _failed(f"cannot restore the snapshot {name}", error) from None
        return manifest

    def compare(self, name: str) -> dict[str, Any]:
        """What would be lost by going back to a snapshot.

        Returns:
            ``lost``: kind of object -> how many came after the snapshot; ``changed``: how many are not what they were;
            ``blobs``: how many blobs came after it.
        """
        self.read(name)
        former: Rows = json.loads(gzip.decompress((self._path(name) / _ROWS).read_bytes()))
        lost: Counter[str] = Counter()
        changed: Counter[str] = Counter()
        for table, rows in self.database.rows().items():
            if table in _PASSING:
                continue
            known = former.get(table, {})
            lost[table] += sum(key not in known for key in rows)
            changed[table] += sum(key in known and known[key] != digest for key, digest in rows.items())
        kept = _names_in(self._path(name) / _BLOBS)
        blobs = sum(blob not in kept for blob in self._blob_names())
        return {"lost": dict(+lost), "changed": dict(+changed), "blobs": blobs}

    def read(self, name: str) -> dict[str, Any]:
        """The manifest of a snapshot."""
        try:
            manifest = json.loads((self._path(name) / _MANIFEST).read_text(encoding="utf-8"))
            schema = manifest["schema"]
        except FileNotFoundError:
            raise NodeError(f"there is no snapshot {name} of {self.settings.name} here") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise NodeError(f"the snapshot {name} of {self.settings.name} is damaged") from None
        if schema != _SCHEMA:
            raise NodeError(f"the snapshot {name} was made by another version of the collection (schema {schema})")
        return manifest

    def names(self) -> list[str]:
        """The complete snapshots, the oldest first."""
        if not self.folder.is_dir():
            return []
        found = [entry for entry in self.folder.iterdir() if not entry.name.startswith(".")]
        return [entry.name for entry in sorted(found, key=lambda entry: entry.stat().st_mtime)]

    def delete(self, name: str) -> None:
        """Forget a snapshot; half of one is never left under its name."""
        doomed = self.folder / f".{name}.gone"
        try:
            _remove(doomed)
            self._path(name).rename(doomed)
            _remove(doomed)
        except OSError as error:
            raise _failed(f"cannot delete the snapshot {name}", error) from None

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise NodeError(f"{name!r} cannot be the name of a snapshot")
        return self.folder / name

    def _manifest(self, draft: Path, rows: Rows, notes: dict[str, Any]) -> dict[str, Any]:
        blobs = list((draft / _BLOBS).iterdir())
        return {
            **notes,
            "schema": _SCHEMA,
            "node": self.settings.name,
            "kind": self.settings.kind,
            "taken_at": time.time(),
            "database": self.database.kind,
            "database_bytes": (draft / self.database.file_name).stat().st_size,
            "rows": {table: len(found) for table, found in sorted(rows.items()) if found},
            "blob_store": self.settings.blobs.kind,
            "blobs": len(blobs),
            "blob_bytes": sum(blob.stat().st_size for blob in blobs),
        }

    def _blob_names(self) -> list[str]:
        folder = self.settings.blob_directory
        return [name for name in _names_in(folder) if is_name(name)] if folder.is_dir() else []

    def _link_blobs(self, target: Path) -> None:
        for name in self._blob_names():
            with contextlib.suppress(FileExistsError, FileNotFoundError):  # deleted meanwhile
                _link(self.settings.blob_directory / name, target / name)

    def _put_blobs_back(self, source: Path) -> None:
        folder = self.settings.blob_directory
        folder.mkdir(mode=0o700, exist_ok=True)
        for kept in source.iterdir():
            present = folder / kept.name
            if not present.exists() or not present.samefile(kept):
                draft = folder / f".{kept.name}.restored"
                draft.unlink(missing_ok=True)
                _link(kept, draft)
                draft.replace(present)
        sync(folder)

    def _drop_other_blobs(self, source: Path) -> None:
        for name in set(self._blob_names()) - _names_in(source):
            (self.settings.blob_directory / name).unlink()


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system knows no such thing."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _failed(what: str, error: OSError) -> NodeError:
    return NodeError(f"{what}: {error.strerror or error}", EXIT_TEMPORARY)
