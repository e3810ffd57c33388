# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive of a bundle on the controller: writing it, and reading it with a look at whether it is sound."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import INDEX, read_index, sha256_of
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

# Fixed, so that the same contents are the same archive.
MEMBER_TIME = 315532800
CHECKSUM_SUFFIX = ".sha256"


class BundleArchive:
    """An uncompressed tar (wheels and packages are compressed) whose first member lists the others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise PygridError(
                f"the bundle {path} is not on the controller; "
                "correct pygrid_bundle, or make one with playbooks/bundle.yml"
            )
        try:
            with tarfile.open(path, "r:") as content:
                self._places = {member.name: (member.offset_data, member.size) for member in content}
            text = self._read(INDEX)
            self.index = read_index(text)
        except (OSError, ValueError, KeyError, tarfile.TarError) as error:
            raise PygridError(self._damaged(f"{error} (is it a bundle at all?)")) from error
        self.digest = hashlib.sha256(text).hexdigest()
        self._files: dict[str, dict[str, Any]] = {entry["path"]: entry for entry in self.index["files"]}
        self._files[INDEX] = {"path": INDEX, "size": len(text), "sha256": self.digest}
        if missing := sorted(set(self._files) - set(self._places)):
            raise PygridError(self._damaged(f"{missing[0]} is missing"))

    def _damaged(self, reason: str) -> str:
        return f"the bundle {self.path} is damaged: {reason}; copy it again from where it was made"

    def _read(self, name: str) -> bytes:
        offset, size = self._places[name]
        with self.path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def verify(self) -> None:
        """Compare every byte with the checksum beside the archive, or without one with the list inside."""
        beside = self.path.with_name(self.path.name + CHECKSUM_SUFFIX)
        if beside.is_file():
            said = beside.read_text(encoding="utf-8").split(maxsplit=1)
            if not said or sha256_of(self.path) != said[0]:
                raise PygridError(self._damaged(f"its checksum is not the one in {beside.name}"))
            return
        for path, entry in self._files.items():
            if hashlib.sha256(self._read(path)).hexdigest() != entry["sha256"]:
                raise PygridError(self._damaged(f"{path} is not what its list of contents says"))

    def entries(self, paths: list[str]) -> list[dict[str, Any]]:
        """Path, size and sha256 of the list of contents and of these files, for a host to compare."""
        keys = ("path", "size", "sha256")
        return [{key: self._files[path][key] for key in keys} for path in (INDEX, *dict.fromkeys(paths))]

    def inside(self, folder: str) -> list[str]:
        """The files below a folder of the bundle."""
        return [path for path in self._files if path.startswith(f"{folder}/")]

    def pack(self, paths: list[str], target: Path) -> Path:
        """Write an archive of only these files."""
        with tarfile.open(target, "w:", format=tarfile.PAX_FORMAT) as packed:
            for path in paths:
                data = self._read(path)
                packed.addfile(_member(path, len(data)), io.BytesIO(data))
        return target


@cache
def open_archive(path: str) -> BundleArchive:
    """The bundle that the variable ``pygrid_bundle`` names."""
    return BundleArchive(Path(path).expanduser().absolute())


def contents_of(path: Path) -> dict[str, Any] | None:
    """What a bundle that was made before holds, None when there is none that can be read."""
    try:
        return BundleArchive(path).index
    except PygridError:
        return None


def write_archive(path: Path, index: dict[str, Any], sources: dict[str, Path]) -> None:
    """Write the archive and the checksum beside it; whatever happens, there is the old one or the new one.

    sources: the file for each path inside.
    """
    text = (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()
    partial = path.with_name(f".{path.name}.partial")
    beside = path.with_name(path.name + CHECKSUM_SUFFIX)
    try:
        with partial.open("wb") as stream:
            with tarfile.open(fileobj=stream, mode="w:", format=tarfile.PAX_FORMAT) as packed:
                packed.addfile(_member(INDEX, len(text)), io.BytesIO(text))
                for name in sorted(sources):
                    with sources[name].open("rb") as source:
                        packed.addfile(_member(name, sources[name].stat().st_size), source)
            stream.flush()
            os.fsync(stream.fileno())
        checksum = sha256_of(partial)
        beside.unlink(missing_ok=True)  # never one beside an archive that it does not belong to
        partial.replace(path)
        beside.write_text(f"{checksum}  {path.name}\n", encoding="utf-8")
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PygridError(f"cannot write {path}: {error.strerror}; make room, or set pygrid_bundle_file") from error


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mtime = MEMBER_TIME
    return member
