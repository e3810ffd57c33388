# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a node's blobs live. syft knows one kind, files of one folder; this puts a store of our choice under it.

syft's configuration stays that of its on-disk storage, so what it serialises into jobs and keeps in the database is as
ever, and its clients notice nothing. Of a stored location only the name counts: every node has a folder of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .blob_cache import BlobCache
from .blob_files import FileStore
from .blob_store import BlobError, Store, checked_url, is_name
from .errors import EXIT_TEMPORARY, NodeError
from .identity import Identity
from .settings import Settings

if TYPE_CHECKING:
    from fastapi import APIRouter

_CACHE_FOLDER = "blob-cache"


def make_store(settings: Settings, identity: Identity) -> Store:
    """The store that the settings name; nothing is asked over the network yet.

    Raises:
        NodeError: a URL, a key or the credentials file is not usable.
    """
    blobs = settings.blobs
    if blobs.kind == "files":
        return FileStore(settings.blob_directory)
    cache = BlobCache(settings.data_directory / _CACHE_FOLDER)
    if blobs.kind == "s3":
        from .blob_s3 import S3Store, load_s3_credentials

        assert blobs.credentials_file is not None  # noqa: S101 - settings.py has checked it
        return S3Store(load_s3_credentials(blobs.credentials_file), cache, settings.trust_file)
    from .blob_client import ChannelStore
    from .blob_gate import ChannelKey

    if settings.domain is None or not identity.queue_public_key or not identity.queue_secret_key:
        raise NodeError("blobs of kind domain need a domain and queue keys")
    key = ChannelKey(identity.queue_secret_key, settings.domain.queue_public_key)
    url = checked_url(str(blobs.url), "blobs.url")
    return ChannelStore(url, key, identity.queue_public_key, cache, settings.trust_file)


def check(store: Store) -> None:
    """Refuse to start a Network or Domain whose blobs cannot be reached; raises NodeError."""
    problem = store.problem()
    if problem:
        raise NodeError(problem, EXIT_TEMPORARY)
    if isinstance(store, FileStore):
        store.clean()


def install(store: Store) -> None:
    """Put a store under syft's on-disk storage, for this process and those forked from it."""
    from syft.service.blob_storage import service
    from syft.service.response import SyftSuccess
    from syft.store.blob_storage import SyftObjectRetrieval
    from syft.store.blob_storage.on_disk import OnDiskBlobStorageConnection
    from syft.types.blob_storage import SecureFilePathLocation
    from syft.types.errors import SyftException

    def read(_self: Any, location: Any, type_: type | None, **_unused: Any) -> Any:
        try:
            name = _name_in(location.path)
            return SyftObjectRetrieval(syft_object=store.read(name), file_name=name, type_=type_)
        except BlobError as error:
            raise SyftException(public_message=str(error)) from error

    def allocate(self: Any, entry: Any) -> Any:
        # The suffixes are whatever a client sends, and guests may allocate.
        name = entry.file_name if is_name(entry.file_name) else entry.id.no_dash
        return SecureFilePathLocation(path=str((self._base_directory / name).absolute()))

    def delete(_self: Any, location: Any) -> Any:
        try:
            store.delete(_name_in(location.path))
        except BlobError as error:
            raise SyftException(public_message=str(error)) from error
        return SyftSuccess(message="Successfully deleted file.")

    class Destination:
        """What `write_to_disk` of S/service/blob_storage/service.py makes of a location, and writes to."""

        def __init__(self, path: str) -> None:
            self._name = _name_in(path)

        def write_bytes(self, data: bytes) -> None:
            store.write(self._name, data)

    OnDiskBlobStorageConnection.read = read  # type: ignore[method-assign]
    OnDiskBlobStorageConnection.allocate = allocate  # type: ignore[method-assign]
    OnDiskBlobStorageConnection.delete = delete  # type: ignore[method-assign]
    service.Path = Destination  # type: ignore[attr-defined]


def channel_routes(settings: Settings, identity: Identity, store: Store) -> APIRouter | None:
    """The routes for a Domain's Workers on other hosts, or None when these have another way to the blobs."""
    if settings.queue is None or not identity.queue_secret_key or not isinstance(store, FileStore):
        return None
    from .allow_list import AllowList
    from .blob_channel import BlobChannel
    from .blob_gate import Gate

    return BlobChannel(store, Gate(identity.queue_secret_key, AllowList(settings.queue.workers_file))).routes()


def _name_in(path: str) -> str:
    name = Path(path).name
    if not is_name(name):
        raise BlobError(f"{name!r} is no name of a blob")
    return name
