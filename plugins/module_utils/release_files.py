# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders, locks and child processes while releases are staged and removed. Standard library only, Python 3.8+."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Iterator

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.homes import ensure_home
from ansible_collections.openmined.pygrid.plugins.module_utils.host_checks import nearest_existing
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import STAGING_PREFIX

LOCK_TIMEOUT_SECONDS = 1800
_PR_SET_PDEATHSIG = 1
# What would make uv or Python use another environment than the one that is being staged.
_FOREIGN_VARIABLES = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")


class Lock:
    """An exclusive lock that child processes inherit.

    A run that was killed leaves children behind for a moment; they keep the lock, so that nobody tidies up below them.
    """

    def __init__(self, descriptor: int, waited_seconds: float) -> None:
        self.descriptor = descriptor
        self.waited_seconds = waited_seconds

    def run(self, command: list, **options: object) -> subprocess.Popen:
        """Start a child that holds the lock too and dies with this process."""
        return subprocess.Popen(command, pass_fds=(self.descriptor,), preexec_fn=_die_with_parent, **options)


@contextlib.contextmanager
def locked(home: Home) -> Iterator[Lock]:
    """Hold <home>/locks/releases.lock; wait for whoever has it."""
    folder = home.locks
    make_home(home)
    make_folder(folder)
    descriptor = os.open(folder / "releases.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    started = time.monotonic()
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - started > LOCK_TIMEOUT_SECONDS:
                    raise PygridError(
                        f"another run has been holding {folder / 'releases.lock'} for more than "
                        f"{LOCK_TIMEOUT_SECONDS // 60} minutes; look for a hanging uv on this host"
                    ) from None
                time.sleep(0.1)
        yield Lock(descriptor, time.monotonic() - started)
    finally:
        os.close(descriptor)


def make_home(home: Home) -> None:
    """Create the home folder itself, with a note of what was made above it; the error is that of make_folder()."""
    try:
        ensure_home(home)
    except OSError:
        make_folder(home.root)


def make_folder(folder: Path) -> None:
    """Create a folder with its parents; raises PygridError with the remedy when that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PygridError(
            f"cannot make the folder {folder}: {error.strerror}; make it writable or set pygrid_home to one that is"
        ) from error


def check_writable(home: Path) -> None:
    """Refuse a grid folder that cannot be written, without changing anything."""
    folder = nearest_existing(home)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise PygridError(f"cannot write below {folder}; make it writable or set pygrid_home to another folder")


def check_space(home: Path, needed_mb: int) -> None:
    """Refuse when the file system of the grid folder has less than needed_mb megabytes left."""
    folder = nearest_existing(home)
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < needed_mb:
        raise PygridError(
            f"{folder} has {free_mb} MB of free space and a release needs about {needed_mb} MB; "
            "free some, prune old releases, or set pygrid_home to a larger file system"
        )


def staging_folder(parent: Path) -> Path:
    """Make a new folder whose name nobody takes for a finished one."""
    make_folder(parent)
    folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=str(parent)))
    folder.chmod(0o755)
    return folder


def finish(staging: Path, manifest: dict, target: Path) -> None:
    """Write the manifest as the last file and give the folder its name, so that it is there whole or not at all."""
    write_durably(staging / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    sync_folder(staging)
    if target.exists():  # incomplete or broken, else nothing would have been staged
        target.rename(staging.with_name(f"{staging.name}.replaced"))
    staging.rename(target)
    sync_folder(target.parent)


def remove_leftovers(parent: Path) -> list:
    """Remove what killed runs left in a folder; only under the lock. Returns the names."""
    try:
        names = sorted(path.name for path in parent.iterdir() if path.name.startswith(STAGING_PREFIX))
    except OSError:
        return []
    for name in names:
        shutil.rmtree(parent / name, ignore_errors=True)
    return names


def remove_folder(folder: Path) -> None:
    """Remove a finished folder: it loses its name first, so that it is never seen half removed."""
    trash = folder.with_name(f"{STAGING_PREFIX}removed-{folder.name}")
    shutil.rmtree(trash, ignore_errors=True)
    folder.rename(trash)
    shutil.rmtree(trash)


def write_durably(path: Path, text: str) -> None:
    """Write a text file and wait until it is on the disk."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(str(folder), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the regular files of an archive that the controller packed."""
    root = folder.resolve()
    with tarfile.open(archive) as content:
        for member in content:
            target = (root / member.name).resolve()
            if not member.isfile() or root not in target.parents:
                raise PygridError(f"the controller's archive holds '{member.name}', which does not belong there")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.extractfile(member).read())
            target.chmod(0o644)


def platform_tag() -> str:
    """Return what a uv must be built for to run here, for example linux-x86_64."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def child_environment(**extra: str) -> dict:
    """Return this process's environment (proxies, certificates, index settings stay) without foreign Pythons."""
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN_VARIABLES}
    environment.update(extra)
    return environment


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the inherited lock is protection enough
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
