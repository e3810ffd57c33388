# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blobs as files of one folder: the store of a Domain, and of a Worker that shares its Domain's folder (scope user)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .blob_store import BlobError, BlobMissing
from .files import sync

_PART = ".part"
_ABANDONED_SECONDS = 86_400.0


@dataclass(frozen=True)
class OpenBlob:
    """A blob opened for reading; what is read belongs together, even when the blob is replaced meanwhile.

    Attributes:
        stream: positioned at the start.
        size: in bytes.
        version: changes with the content.
    """

    stream: BinaryIO
    size: int
    version: str


class FileStore:
    """One file for each blob.

    Args:
        folder: the folder; its Domain makes it, a Worker that shares it waits for that.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes:
        blob = self.open(name)
        with blob.stream:
            return blob.stream.read()

    def write(self, name: str, data: bytes) -> None:
        with IncomingBlob(self.folder, name) as incoming:
            incoming.write(data)
            incoming.commit()

    def delete(self, name: str) -> None:
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            raise BlobMissing(name) from None
        except OSError as error:
            raise BlobError(f"cannot delete blob {name}: {error.strerror}") from None

    def problem(self) -> str:
        return "" if os.access(self.folder, os.R_OK | os.W_OK | os.X_OK) else f"{self.folder} cannot be used"

    def open(self, name: str) -> OpenBlob:
        """Open a blob for reading; raises BlobMissing or BlobError."""
        try:
            stream = (self.folder / name).open("rb")
        except FileNotFoundError:
            raise BlobMissing(name) from None
        except OSError as error:
            raise BlobError(f"cannot read blob {name}: {error.strerror}") from None
        status = os.fstat(stream.fileno())
        return OpenBlob(stream, status.st_size, _version(status))

    def clean(self) -> None:
        """Remove what writers that were killed left behind. Others may be writing now: only what is a day old."""
        limit = time.time() - _ABANDONED_SECONDS
        for path in self.folder.glob(f".*{_PART}"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < limit:
                    path.unlink()


class IncomingBlob:
    """A blob on its way in: a hidden file that takes its name by `commit`, or is gone when the `with` block ends.

    Raises:
        BlobError: from every method, when the file system refuses.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._temporary = folder / f".{name}.{secrets.token_hex(8)}{_PART}"
        self._digest = hashlib.sha256()
        self.size = 0
        try:
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failed(error) from None
        self._stream: BinaryIO | None = os.fdopen(descriptor, "wb", buffering=0)

    def __enter__(self) -> IncomingBlob:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        assert self._stream is not None  # noqa: S101 - not after commit
        self._digest.update(data)
        self.size += len(data)
        rest = memoryview(data)
        try:
            while rest:  # an unbuffered write may be short, and one call takes 2 GiB at most
                rest = rest[self._stream.write(rest) :]
        except OSError as error:
            raise self._failed(error) from None

    def commit(self) -> str:
        """Give the blob its name, once it is on the disk; returns its version."""
        assert self._stream is not None  # noqa: S101 - once
        try:
            os.fsync(self._stream.fileno())
            version = _version(os.fstat(self._stream.fileno()))
            self._temporary.replace(self._folder / self._name)
            sync(self._folder)
        except OSError as error:
            raise self._failed(error) from None
        self._stream.close()
        self._stream = None
        return version

    def _failed(self, error: OSError) -> BlobError:
        return BlobError(f"cannot write blob {self._name}: {error.strerror}")


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
