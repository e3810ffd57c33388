# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a bundle on a host: which of them are there, taking in more, and apt and dnf that use nothing else.

Standard library only, Python 3.8+.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any, Iterator

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import INDEX, read_index, sha256_of
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.host_checks import nearest_existing
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home

# Room that is left over on the file system, whatever arrives.
RESERVE_BYTES = 200_000_000
PARTIAL = ".partial"
REMOVED = ".removed-"

# Nothing of the host's own configuration applies: no other source, no proxy, no hook that would want to go out.
APT_CONFIGURATION = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
"""
# No signature: the list of packages came with the bundle, whose checksums were compared when it arrived, and apt
# compares those of the packages with the list.
APT_SOURCE = "deb [trusted=yes] file:{repository} ./\n"
DNF_CONFIGURATION = """\
[main]
reposdir=/dev/null
cachedir={folder}/cache
plugins=0

[pygrid-bundle]
name=Packages of the bundle
baseurl=file://{repository}
gpgcheck=1
gpgkey={keys}
"""
RPM_KEYS = Path("/etc/pki/rpm-gpg")


def bundles_folder(home: Home) -> Path:
    """Where bundles lie on a host: beside the cache of packages."""
    return home.cache.with_name("bundles")


class Store:
    """One bundle on this host, complete or in part; files are only ever there whole and checked."""

    def __init__(self, home: Home, digest: str) -> None:
        self.all_bundles = bundles_folder(home)
        self.folder = self.all_bundles / digest[:16]
        self._mode = home.mode

    def missing(self, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of ``files`` (path, size, sha256) that are not there, or not as they should be."""
        return [entry for entry in files if not _is_sound(self.folder / entry["path"], entry)]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nodes that share a host bring the same bundle at the same time."""
        for folder in (self.all_bundles.parent, self.all_bundles, self.folder):
            _make_folder(folder, self._mode)
        with (self.all_bundles / ".lock").open("a", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def reuse(self, files: list[dict[str, Any]]) -> None:
        """Link what an older bundle on this host holds too, so that it need not be sent again."""
        wanted = {entry["sha256"]: entry for entry in self.missing(files)}
        for older in self._other_bundles():
            with contextlib.suppress(OSError, ValueError, KeyError):
                for entry in read_index((older / INDEX).read_bytes())["files"]:
                    source = older / entry["path"]
                    if entry["sha256"] in wanted and source.exists() and sha256_of(source) == entry["sha256"]:
                        self._link(source, self.folder / wanted.pop(entry["sha256"])["path"])

    @staticmethod
    def _link(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # the file systems may differ: then it is sent
            os.link(source, target)

    def check_space(self, missing: list[dict[str, Any]]) -> None:
        """Refuse when what is missing does not fit on the disk."""
        needed = sum(entry["size"] for entry in missing) + (RESERVE_BYTES if missing else 0)
        folder = nearest_existing(self.folder)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise PygridError(
                f"{folder} has {free // 1_000_000} MB of free space and the bundle needs {needed // 1_000_000} MB; "
                "free some"
            )

    def take_in(self, archive: Path, files: list[dict[str, Any]]) -> None:
        """Unpack what the controller sent; a file gets its name when its checksum was found right."""
        wanted = {entry["path"]: entry for entry in files}
        with tarfile.open(archive) as content:
            for member in content:
                entry = wanted.get(member.name)
                if entry is None or not member.isfile():
                    raise PygridError(f"the controller sent '{member.name}', which was not asked for")
                self._write(self.folder / entry["path"], content.extractfile(member), entry["sha256"])

    @staticmethod
    def _write(target: Path, source: Any, sha256: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}{PARTIAL}")
        digest = hashlib.sha256()
        with partial.open("wb") as stream:
            while block := source.read(1 << 20):
                digest.update(block)
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        if digest.hexdigest() != sha256:
            partial.unlink()
            raise PygridError(f"{target.name} of the bundle arrived damaged; run again, or copy the bundle anew")
        partial.chmod(0o644)
        partial.replace(target)

    def prune(self) -> list[str]:
        """Remove the other bundles and what killed runs left; returns their names."""
        others = self._other_bundles()
        for folder in others:
            trash = folder if folder.name.startswith(REMOVED) else folder.with_name(f"{REMOVED}{folder.name}")
            if trash != folder:
                folder.rename(trash)
            shutil.rmtree(trash)
        for leftover in self.folder.rglob(f".*{PARTIAL}"):
            leftover.unlink()
        return [folder.name for folder in others]

    def _other_bundles(self) -> list[Path]:
        if not self.all_bundles.is_dir():
            return []
        return sorted(path for path in self.all_bundles.iterdir() if path.is_dir() and path != self.folder)

    def configure_apt(self, repository: str) -> Path:
        """Write a configuration by which apt knows this bundle and nothing else; returns its path."""
        folder = self.folder / f"apt-{Path(repository).name}"
        for part in (folder, folder / "lists" / "partial", folder / "cache" / "archives" / "partial"):
            part.mkdir(parents=True, exist_ok=True)
        write_if_different(folder / "sources.list", APT_SOURCE.format(repository=self.folder / repository), 0o644)
        configuration = folder / "apt.conf"
        write_if_different(configuration, APT_CONFIGURATION.format(folder=folder), 0o644)
        return configuration

    def configure_dnf(self, repository: str) -> Path:
        """Write a configuration by which dnf knows this bundle and nothing else; returns its path."""
        folder = self.folder / f"dnf-{Path(repository).name}"
        folder.mkdir(exist_ok=True)
        keys = " ".join(f"file://{path}" for path in sorted(RPM_KEYS.glob("RPM-GPG-KEY-*")))
        text = DNF_CONFIGURATION.format(folder=folder, repository=self.folder / repository, keys=keys)
        configuration = folder / "dnf.conf"
        write_if_different(configuration, text, 0o644)
        return configuration


class UnpackedBundle:
    """A bundle on this host as a source for staging; a file is compared with the list before it is used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.index = read_index((folder / INDEX).read_bytes())
        except (OSError, ValueError) as error:
            raise PygridError(f"the bundle in {folder} cannot be read: {error}; run again") from error
        self._files = {entry["path"]: entry for entry in self.index["files"]}

    def checksum(self, path: str) -> str:
        """What the list of contents says of a file."""
        return self._files[path]["sha256"]

    def checked(self, path: str) -> Path:
        """The absolute path of a file of the bundle that is what the list of contents says."""
        file = self.folder / path
        if not file.is_file() or sha256_of(file) != self.checksum(path):
            raise PygridError(f"{file} is damaged; run again, and it is brought anew")
        return file


def _is_sound(path: Path, entry: dict[str, Any]) -> bool:
    try:
        return path.stat().st_size == entry["size"] and sha256_of(path) == entry["sha256"]
    except OSError:
        return False


def _make_folder(folder: Path, mode: int) -> None:
    """Make a folder whose mode does not depend on the umask of this account."""
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True)
        folder.chmod(mode)
    except FileExistsError:
        return
    except OSError as error:
        raise PygridError(f"cannot make the folder {folder}: {error.strerror}") from error
