# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of a node with SQLite and blobs in files: complete or not there, and back again as it was."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from pygrid_node.blob_files import FileStore
from pygrid_node.database_copy import SqliteCopy
from pygrid_node.errors import NodeError
from pygrid_node.settings import parse_settings
from pygrid_node.snapshot import Snapshots

from .test_settings import document

FIRST, SECOND, THIRD = "1" * 32, "2" * 32, "3" * 32


class Node:
    """The data of a node that does not run."""

    def __init__(self, folder: Path) -> None:
        self.settings = parse_settings(document("domain", node_directory=str(folder)))
        self.settings.blob_directory.mkdir(parents=True)
        self.settings.owner_file.write_text("{}")
        self.store = FileStore(self.settings.blob_directory)
        assert self.settings.sqlite_file is not None
        self.database = self.settings.sqlite_file
        self.snapshots = Snapshots(self.settings, SqliteCopy(self.database))
        with self.connect() as connection:
            connection.execute("pragma journal_mode = wal")
            for table in ("Dataset", "SyftWorker"):
                connection.execute(f"create table {table} (id text primary key, fields json)")

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database, timeout=30)

    def put(self, key: str, value: str, table: str = "Dataset") -> None:
        connection = self.connect()
        with connection:
            connection.execute(f"insert or replace into {table} values (?, ?)", (key, json.dumps(value)))  # noqa: S608
        connection.close()

    def known(self) -> dict[str, str]:
        return dict(self.connect().execute("select id, fields from Dataset"))

    def blobs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.settings.blob_directory.iterdir()}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path)
    node.put("a", "first")
    node.store.write(FIRST, b"one")
    node.store.write(SECOND, b"two")
    return node


def test_everything_is_as_it_was(node: Node) -> None:
    manifest = node.snapshots.take("before", {"release": "0.9.5-x"})
    assert (manifest["rows"], manifest["blobs"], manifest["blob_bytes"]) == ({"Dataset": 1}, 2, 6)
    assert manifest["release"] == "0.9.5-x"
    known, blobs = node.known(), node.blobs()
    node.put("a", "changed")
    node.put("b", "second")
    node.store.write(FIRST, b"another one")
    node.store.write(THIRD, b"three")
    node.store.delete(SECOND)
    assert node.snapshots.compare("before") == {"lost": {"Dataset": 1}, "changed": {"Dataset": 1}, "blobs": 1}
    for _again in range(2):
        node.snapshots.restore("before")
        assert (node.known(), node.blobs()) == (known, blobs)
    assert node.snapshots.compare("before") == {"lost": {}, "changed": {}, "blobs": 0}


def test_what_nodes_note_by_themselves_is_nobodys_loss(node: Node) -> None:
    node.snapshots.take("before", {})
    node.put("w", "beats", "SyftWorker")
    assert node.snapshots.compare("before") == {"lost": {}, "changed": {}, "blobs": 0}


def test_a_log_that_was_not_played_yet_does_not_spoil_the_copy(node: Node) -> None:
    node.snapshots.take("before", {})
    known = node.known()
    busy = node.connect()  # as after a kill: never closed, so its log stays
    busy.execute("pragma wal_autocheckpoint = 0")
    with busy:
        busy.execute("insert into Dataset values ('late', '1')")
    node.snapshots.restore("before")
    assert node.known() == known
    busy.close()


def test_a_snapshot_of_a_busy_node_is_of_one_moment(node: Node) -> None:
    """A row is written after its blob and deleted before it: so each row of a snapshot has its blob."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"{number:032x}"
            node.store.write(name, name.encode())
            node.put(name, name)
            if number > 20:
                with node.connect() as connection:
                    connection.execute("delete from Dataset where id = ?", (f"{number - 20:032x}",))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(10):
            node.snapshots.take(f"busy-{number}", {})
    finally:
        stop.set()
        writer.join()
    for number in range(10):
        folder = node.snapshots.folder / f"busy-{number}"
        rows = {key for (key,) in sqlite3.connect(folder / "node.db").execute("select id from Dataset")} - {"a"}
        assert rows <= {path.name for path in (folder / "blobs").iterdir()}


def test_a_half_one_has_no_name(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NodeError, match=r"node\.db: No space left on device"):
            node.snapshots.take("before", {})
    assert node.snapshots.names() == []
    node.snapshots.take("before", {})
    assert node.snapshots.names() == ["before"]
    with pytest.raises(NodeError, match="there is a snapshot before already"):
        node.snapshots.take("before", {})


def test_deleting_one_leaves_the_blobs_of_the_node(node: Node) -> None:
    node.snapshots.take("before", {})
    node.snapshots.delete("before")
    assert node.snapshots.names() == []
    assert node.blobs() == {FIRST: b"one", SECOND: b"two"}
    with pytest.raises(NodeError, match="there is no snapshot before of alice here"):
        node.snapshots.restore("before")


@pytest.mark.parametrize("name", ["..", "../x", ".hidden", "", "a/b"])
def test_a_name_leads_nowhere_else(node: Node, name: str) -> None:
    with pytest.raises(NodeError, match="cannot be the name of a snapshot"):
        node.snapshots.take(name, {})


def test_of_another_kind_of_database(node: Node) -> None:
    node.snapshots.take("before", {})
    file = node.snapshots.folder / "before" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "database": "postgresql"}))
    with pytest.raises(NodeError, match="is of postgresql, the node has sqlite now"):
        node.snapshots.restore("before")
