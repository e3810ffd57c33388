# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing files so that a reader, or a run after a kill, sees the old or the new content and nothing between."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def to_json(value: Any) -> str:
    """The one textual form of settings and lists, so that equal values have equal digests."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def write_atomic(path: Path, text: str, mode: int = 0o600, group: int | None = None) -> None:
    """Replace ``path`` by a synced file with ``mode``; created with that mode, never wider for a moment.

    ``group``: number of the group that the file is to have; None leaves the account's own.
    """
    write_atomic_bytes(path, text.encode("utf-8"), mode, group)


def write_atomic_bytes(path: Path, content: bytes, mode: int = 0o600, group: int | None = None) -> None:
    """Like :func:`write_atomic`, for what is no text."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if group is not None:
                os.fchown(stream.fileno(), -1, group)
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def write_if_different(path: Path, text: str, mode: int = 0o600, group: int | None = None) -> bool:
    """Write ``text`` unless the file already holds it with ``mode`` and ``group``; returns whether it differed."""
    if read_text(path) == text:
        status = path.stat()
        if status.st_mode & 0o777 == mode and group in (None, status.st_gid):
            return False
    write_atomic(path, text, mode, group)
    return True


def link_atomic(link: Path, target: str) -> None:
    """Point ``link`` at ``target`` in one step: there is no moment without a link."""
    temporary = link.parent / f".{link.name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json(path: Path) -> Any:
    """The parsed file, or None when it is missing or not JSON (a reader then treats it as not there)."""
    text = read_text(path)
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive ``flock`` on ``path``: nodes that share a host are changed at the same time.

    The kernel frees the lock when its holder dies, so a killed run leaves nothing to clean up. Who may read the file
    can hold its lock, so nobody else may.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
