# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node never starts on the data of somebody else."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest

from pygrid_node.errors import NodeError
from pygrid_node.identity import Identity
from pygrid_node.owner import check_owner, write_owner
from pygrid_node.settings import Settings, parse_settings

from .test_settings import document

ME = Identity(uid="1" * 32, verify_key="a" * 64)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return parse_settings(document("domain", node_directory=str(tmp_path)))


def make_database(settings: Settings, uid: str, verify_key: str, table: str = "ServerSettings") -> None:
    with sqlite3.connect(settings.sqlite_file) as connection:
        connection.execute(f"create table {table} (id text, fields json)")
        fields = json.dumps({"id": uid, "verify_key": verify_key})
        connection.execute(f"insert into {table} values (?, ?)", (uid, fields))  # noqa: S608 - the name is a test's own


def test_nothing_there(settings: Settings) -> None:
    check_owner(settings, ME)


def test_own_data(settings: Settings) -> None:
    write_owner(settings, ME, "0.9.5")
    make_database(settings, ME.uid, ME.verify_key)
    check_owner(settings, ME)
    settings.owner_file.unlink()
    check_owner(settings, ME)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
def test_root_looks_with_the_eyes_of_the_account_that_has_the_data() -> None:
    """As a deploy does before it changes the settings of a node: what the node wrote belongs to another account."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        settings = parse_settings(document("domain", node_directory=folder))
        settings.owner_file.parent.mkdir()
        write_owner(settings, ME, "0.9.5")
        for path in (settings.owner_file.parent, settings.owner_file):
            os.chown(path, 4242, 4242)
        check_owner(settings, ME)
        assert os.geteuid() == 0
        settings.owner_file.unlink()
        settings.owner_file.symlink_to("/etc/shadow")
        with pytest.raises(NodeError, match="Permission denied"):
            check_owner(settings, ME)
        assert os.geteuid() == 0


@pytest.mark.parametrize(("uid", "key"), [("2" * 32, "a" * 64), ("1" * 32, "b" * 64)])
def test_data_of_another(settings: Settings, uid: str, key: str) -> None:
    write_owner(settings, Identity(uid=uid, verify_key=key), "0.9.5")
    with pytest.raises(NodeError, match=f"belongs to node {uid}"):
        check_owner(settings, ME)
    settings.owner_file.unlink()
    make_database(settings, uid, key)
    with pytest.raises(NodeError, match=f"belongs to node {uid}"):
        check_owner(settings, ME)


def test_data_of_an_old_version(settings: Settings) -> None:
    write_owner(settings, ME, "0.9.1")
    with pytest.raises(NodeError, match=r"written by syft 0\.9\.1"):
        check_owner(settings, ME)
    settings.owner_file.unlink()
    make_database(settings, ME.uid, ME.verify_key, table="SomethingOlder")
    with pytest.raises(NodeError, match=r"not made by syft 0\.9\.2 or later"):
        check_owner(settings, ME)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"uid": "x"}'])
def test_damaged_owner_file(settings: Settings, content: str) -> None:
    settings.owner_file.write_text(content)
    with pytest.raises(NodeError, match=r"owner\.json is damaged"):
        check_owner(settings, ME)


def test_damaged_database(settings: Settings) -> None:
    settings.sqlite_file.write_bytes(b"not a database" * 100)
    with pytest.raises(NodeError, match="cannot be read"):
        check_owner(settings, ME)
