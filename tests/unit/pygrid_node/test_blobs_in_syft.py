# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""syft's own storage service over a store of ours, and what its clients of https need."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("syft", reason="runs in the environment of a node: see tests/e2e/test_runtime_units.py")

from requests import Session
from syft.server.credentials import SyftSigningKey
from syft.service.blob_storage import service
from syft.service.blob_storage.service import BlobStorageService
from syft.service.context import AuthedServiceContext
from syft.service.user.user_roles import ServiceRole
from syft.store.blob_storage.on_disk import (
    OnDiskBlobStorageClient,
    OnDiskBlobStorageClientConfig,
    OnDiskBlobStorageConnection,
)
from syft.store.db.sqlite import SQLiteDBConfig, SQLiteDBManager
from syft.types.blob_storage import CreateBlobStorageEntry, SecureFilePathLocation
from syft.types.errors import SyftException
from syft.types.server_url import ServerURL
from syft.types.uid import UID

from pygrid_node import blobs, tls
from pygrid_node.blob_files import FileStore

KEY = SyftSigningKey.generate()
SERVER = UID()


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is patched here is put back for the other tests."""
    for name in ("read", "allocate", "delete"):
        monkeypatch.setattr(OnDiskBlobStorageConnection, name, getattr(OnDiskBlobStorageConnection, name))
    monkeypatch.setattr(service, "Path", service.Path)
    monkeypatch.setattr(ServerURL, "__copy__", ServerURL.__copy__)
    monkeypatch.setattr(Session, "__init__", Session.__init__)


class Storage:
    """Upstream's service and its table in a database, over the store of one node."""

    def __init__(self, folder: Path) -> None:
        config = SQLiteDBConfig(path=folder, filename="node.db")
        database: Any = SQLiteDBManager(config=config, server_uid=SERVER, root_verify_key=KEY.verify_key)
        self.service = BlobStorageService(store=database)
        database.init_tables()
        self.use(folder / "domain")

    def use(self, folder: Path) -> None:
        """As a process with its blobs in that folder does it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.store = FileStore(folder)
        blobs.install(self.store)
        client = OnDiskBlobStorageClient(config=OnDiskBlobStorageClientConfig(base_directory=folder))
        server: Any = SimpleNamespace(
            id=SERVER, verify_key=KEY.verify_key, blob_storage_client=client, signing_key=KEY, name="alice"
        )
        self.context: Any = AuthedServiceContext.model_construct(
            server=server, credentials=KEY.verify_key, role=ServiceRole.ADMIN
        )

    def keep(self, data: bytes, **options: Any) -> UID:
        entry = CreateBlobStorageEntry(file_size=len(data), **options)
        deposit = self.service.allocate(self.context, entry)
        self.service.write_to_disk(self.context, uid=deposit.blob_storage_entry_id, data=data)
        return deposit.blob_storage_entry_id

    def bytes_of(self, uid: UID) -> bytes:
        return self.service.read(self.context, uid).syft_object


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def test_upstream_writes_and_reads_and_deletes_by_the_store(storage: Storage) -> None:
    uid = storage.keep(b"content", extensions=[".tar", ".gz"])
    (file,) = storage.store.folder.iterdir()
    assert file.name == f"{uid.no_dash}.tar.gz"
    assert storage.bytes_of(uid) == b"content"
    storage.service.delete(storage.context, uid)
    assert not list(storage.store.folder.iterdir())


def test_only_the_name_of_a_location_counts(storage: Storage, tmp_path: Path) -> None:
    """The database has one location for all; each node has a folder of its own, and a restored one is elsewhere."""
    uid = storage.keep(b"content")
    (tmp_path / "domain").rename(tmp_path / "elsewhere")
    storage.use(tmp_path / "elsewhere")
    assert storage.bytes_of(uid) == b"content"


@pytest.mark.parametrize("suffix", ["/../../node.db", "/x", "\n", "/" * 300])
def test_suffixes_of_a_guest_lead_nowhere(storage: Storage, tmp_path: Path, suffix: str) -> None:
    uid = storage.keep(b"content", extensions=[suffix])
    assert [file.name for file in storage.store.folder.iterdir()] == [uid.no_dash]
    assert storage.bytes_of(uid) == b"content"
    assert sorted(path.name for path in tmp_path.iterdir() if "node.db" not in path.name) == ["domain"]


def test_a_location_that_is_no_blob_is_refused(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "domain" / "secret").write_text("private")
    with storage.context.server.blob_storage_client.connect() as connection:
        for path in (str(tmp_path / "domain" / "secret"), "/etc/passwd", ".."):
            with pytest.raises(SyftException, match="no name of a blob"):
                connection.read(SecureFilePathLocation(path=path), None)
            with pytest.raises(SyftException, match="no name of a blob"):
                connection.delete(SecureFilePathLocation(path=path))
    assert (tmp_path / "domain" / "secret").exists()


def test_the_reason_reaches_whoever_asked(storage: Storage) -> None:
    uid = storage.keep(b"content")
    storage.store.delete(uid.no_dash)
    with pytest.raises(SyftException, match=f"there is no blob {uid.no_dash}"):
        storage.bytes_of(uid)


def test_ports_of_https_are_kept() -> None:
    """When the first assertion fails, upstream was mended and keep_ports() may go."""
    url = ServerURL("https", "alice.example", 8443)
    assert url.with_path("/api").port == 443
    tls.keep_ports()
    assert str(url.with_path("/api/v2/metadata")) == "https://alice.example:8443/api/v2/metadata"
    assert str(copy.copy(ServerURL("http", "h", 80, "/p", "a=b"))) == "http://h:80/p?a=b"


def test_every_session_shows_the_certificate(tmp_path: Path) -> None:
    assert Session().cert is None
    tls.show_client_certificate(tmp_path / "client.pem")
    assert Session().cert == str(tmp_path / "client.pem")
