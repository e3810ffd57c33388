# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller contributes to a release: lock files, the node runtime, the lists of modules, and uv."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

COLLECTION = Path(__file__).resolve().parents[2]
NODE_FILES = COLLECTION / "roles" / "node" / "files"
LOCKS = NODE_FILES / "locks"
RUNTIME = NODE_FILES / "pygrid_node"
STAGING = NODE_FILES / "staging"
_VERSION = re.compile(r"^[0-9]+(\.[0-9]+){2}$")


@dataclass(frozen=True)
class ReleaseSource:
    """The controller's part of one release; small enough to be computed for every node."""

    version: str
    lock_file: Path
    lock_sha256: str
    runtime_sha256: str

    def summary(self) -> dict[str, str]:
        """Return what release_name() needs, as plain data."""
        return {"version": self.version, "lock_sha256": self.lock_sha256, "runtime_sha256": self.runtime_sha256}


def supported_versions() -> list[str]:
    """Return the syft versions the collection has a lock for, oldest first."""
    found = [path.stem[len("syft-") :] for path in LOCKS.glob("syft-*.txt")]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def runtime_files() -> list[Path]:
    """Return the files of the node runtime in a stable order, without what Python leaves behind."""
    files = (path for path in RUNTIME.rglob("*") if path.is_file())
    return sorted(path for path in files if "__pycache__" not in path.parts and path.suffix != ".pyc")


def runtime_sha256() -> str:
    """Return one sha256 over the names and bytes of the node runtime."""
    digest = hashlib.sha256()
    for path in runtime_files():
        content = path.read_bytes()
        digest.update(f"{path.relative_to(RUNTIME).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def find_source(version: str, lock_file: str | None = None) -> ReleaseSource:
    """Return the source of a release of `version`.

    lock_file: a lock of one's own on the controller. Raises PygridError for a version or a file that cannot be used.
    """
    version = str(version).strip()
    if lock_file:
        lock = Path(lock_file).expanduser()
        if not lock.is_file():
            raise PygridError(f"the lock file {lock} is not on the controller; correct pygrid_lock_file")
        if not _VERSION.match(version):
            raise PygridError(f"'{version}' is no version of syft; set pygrid_version to what {lock} pins")
    else:
        lock = LOCKS / f"syft-{version}.txt"
        if version not in supported_versions():
            raise PygridError(
                f"version '{version}' is not supported{_why_not(version)}; "
                f"set pygrid_version to one of {', '.join(supported_versions())}"
            )
    content = lock.read_bytes()
    if not re.search(rf"^syft=={re.escape(version)}(\s|$)".encode(), content, re.MULTILINE):
        raise PygridError(f"the lock file {lock} does not pin syft=={version}; pygrid_version and the lock must agree")
    return ReleaseSource(version, lock, hashlib.sha256(content).hexdigest(), runtime_sha256())


def _why_not(version: str) -> str:
    if not _VERSION.match(version):
        return " (a version looks like 0.9.5)"
    numbers = tuple(int(part) for part in version.split("."))
    if numbers >= (0, 10, 0):
        return " (syft has no server any more from 0.10.0 on)"
    if numbers < (0, 9, 2):
        return " (before 0.9.2 the database of a node cannot be chosen, and an upgrade in place would start empty)"
    return ""


def supervisor_version() -> str:
    """Return the version of the supervisor that its lock pins."""
    found = re.search(r"^supervisor==(\S+)", (LOCKS / "supervisor.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise PygridError("the collection's supervisor.txt pins no supervisor; install the collection again")
    return found.group(1)


@functools.cache
def find_uv() -> Path:
    """Return PYGRID_UV, else the uv of the tool environment that runs Ansible, else the one on PATH."""
    if uv_is_chosen():
        return Path(os.environ["PYGRID_UV"])
    try:
        from uv import find_uv_bin

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise PygridError(
            f"uv is missing on the controller; install it beside Ansible: {sys.executable} -m pip install uv"
        )
    return Path(found)


def uv_is_chosen() -> bool:
    """Tell whether the user named a uv, for example one that is built for another kind of host."""
    return bool(os.environ.get("PYGRID_UV"))


@functools.cache
def uv_version() -> str:
    """Return the version of the controller's uv; empty when there is none, for the host may have one already."""
    try:
        answer = subprocess.run([str(find_uv()), "--version"], capture_output=True, text=True, timeout=60, check=True)
    except PygridError:
        return ""
    except (OSError, subprocess.SubprocessError) as error:
        raise PygridError(f"{find_uv()} does not run on the controller: {error}; install uv again") from error
    return answer.stdout.split()[1]


def pack(source: ReleaseSource, archive: Path) -> Path:
    """Write an archive of all that the host needs besides uv and the packages themselves."""
    content = {
        "lock.txt": source.lock_file,
        "supervisor.txt": LOCKS / "supervisor.txt",
        "imports.txt": LOCKS / "imports.txt",
        **{path.name: path for path in STAGING.glob("*.py")},
        **{f"pygrid_node/{path.relative_to(RUNTIME).as_posix()}": path for path in runtime_files()},
    }
    # Level 1: the archive is small, and on this machine nobody waits for a network.
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        for name, path in content.items():
            data = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return archive
