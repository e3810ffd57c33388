# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every store of big objects has in common: names, errors, and how a content is checked."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Protocol
from urllib.parse import urlsplit

from .errors import NodeError

# A uid of syft and the suffixes of an uploaded file (S/types/blob_storage.py, CreateBlobStorageEntry.file_name). Such a
# name is one component of a path whatever the suffixes are, neither hidden nor "..".
_NAME = re.compile(r"[0-9a-f]{32}(?:\.[^./\\\x00-\x1f\x7f]{1,40}){0,10}")
_MAX_NAME_BYTES = 180  # a store adds to it, and 255 is what file systems take


class BlobError(Exception):
    """Why a blob cannot be read or written, in one line without secrets: it is shown to the owner of the job."""


class BlobMissing(BlobError):
    """There is no such blob."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no blob {name}")


class Store(Protocol):
    """Where blobs live. `name` is always one that `is_name` accepts."""

    def read(self, name: str) -> bytes:
        """The blob's content.

        Raises:
            BlobMissing: there is none.
            BlobError: the store cannot be reached, or what it has is damaged.
        """

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a blob; on return it is safe, and readers see the old or the new content, never a part."""

    def delete(self, name: str) -> None:
        """Delete a blob; raises BlobMissing when there is none."""

    def problem(self) -> str:
        """Why the store cannot be used now, "" when it can."""


def is_name(text: str) -> bool:
    """Whether this is a name as syft gives to blobs."""
    return bool(_NAME.fullmatch(text)) and len(text.encode()) <= _MAX_NAME_BYTES


def digest_of(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def checked_url(url: str, what: str) -> str:
    """A base URL without its closing slash: https, or http on this host itself.

    Raises:
        NodeError: anything else, because blobs are the private data.
    """
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        raise NodeError(f"{what} {url!r} is not a URL") from None
    if not parts.hostname or parts.username or parts.query or parts.fragment or parts.scheme not in ("http", "https"):
        raise NodeError(f"{what} {url!r} must look like https://host:port")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise NodeError(f"{what} {url!r} must begin with https://: blobs never cross a network unencrypted")
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
