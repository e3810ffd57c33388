# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and creating the small private files of a node."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import NodeError

_MAX_BYTES = 1_000_000


def credential(path: Path) -> Path:
    """Where a file of secrets really is: among the credentials systemd passes to the service, or at its own place.

    systemd gives the credentials directory to the service alone, also when the file itself is root's.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    passed = Path(directory) / path.name if directory else path
    return passed if passed.exists() else path


@contextlib.contextmanager
def acting_as_owner_of(folder: Path) -> Iterator[None]:
    """Work as the account that a folder belongs to, when this is root.

    What lies there may be a trick of that account, and what is written there has to be its own. For one thread only.
    """
    status = folder.stat() if folder.exists() else None
    if status is None or status.st_uid == 0 or os.geteuid() != 0:
        yield
        return
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def read_private_text(path: Path, what: str, allow_readers: bool = False) -> str:
    """Read a file that only its owner (or root) may write, and nobody else may read.

    Args:
        path: the file.
        what: what it holds, for the message.
        allow_readers: the content is no secret: others may read it, but still not write it.

    Raises:
        NodeError: missing, unreadable, too large, not text, or readable or writable by the wrong accounts.
    """
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            _check_mode(path, what, status, allow_readers)
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise NodeError(f"{what} file {path}: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise NodeError(f"{what} file {path}: larger than {_MAX_BYTES} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise NodeError(f"{what} file {path}: not UTF-8 text") from None


def _check_mode(path: Path, what: str, status: os.stat_result, allow_readers: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise NodeError(f"{what} file {path}: not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise NodeError(f"{what} file {path}: belongs to account number {status.st_uid}, not to this one or root")
    if mode & 0o022:
        raise NodeError(f"{what} file {path}: others may write it (mode {mode:04o}), chmod 600 it")
    if not allow_readers and mode & 0o007:
        raise NodeError(f"{what} file {path}: everybody may read it (mode {mode:04o}), chmod 600 it")


def create_private_text(path: Path, text: str) -> bool:
    """Create a file of mode 0600 in one step; an existing file is never touched.

    Returns:
        True when the file was created, False when one was there already.

    Raises:
        NodeError: the folder is missing or not writable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_new(temporary, text)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync(path.parent)
        return True
    except OSError as error:
        raise NodeError(f"cannot create {path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def replace_private_text(path: Path, text: str) -> None:
    """Write a file of mode 0600 so that a reader sees the old or the new content, never a part.

    Raises:
        NodeError: the folder is missing or not writable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_new(temporary, text)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise NodeError(f"cannot write {path}: {error.strerror}") from None


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
