# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose data lies in a node's folder: a node never starts on the data of another identity.

Upstream exits with a stack trace on another key, and starts silently empty on data of syft < 0.9.2, which kept its
database elsewhere and in other tables.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

from .environment import SUPPORTED_FROM, version_numbers
from .errors import NodeError
from .files import acting_as_owner_of, read_private_text, replace_private_text
from .identity import Identity
from .settings import Settings


def check_owner(settings: Settings, identity: Identity) -> None:
    """Compare owner.json, and without one the database file itself, with the node's identity.

    Raises:
        NodeError: the data belongs to another identity, or was written by syft before 0.9.2.
    """
    database = settings.sqlite_file
    with acting_as_owner_of(settings.owner_file.parent):
        if settings.owner_file.exists():
            _check_owner_file(settings.owner_file, identity)
        elif database is not None and database.exists() and database.stat().st_size > 0:
            _check_database(database, identity)


def write_owner(settings: Settings, identity: Identity, syft_version: str) -> None:
    """Record whose data this is, and which syft wrote it last; called once the server is built.

    Raises:
        NodeError: the data folder is not writable.
    """
    document = {"uid": identity.uid, "verify_key": identity.verify_key, "syft_version": syft_version}
    text = json.dumps(document) + "\n"
    with contextlib.suppress(OSError):
        if settings.owner_file.read_text(encoding="utf-8") == text:
            return
    replace_private_text(settings.owner_file, text)


def _check_owner_file(path: Path, identity: Identity) -> None:
    try:
        owner = json.loads(read_private_text(path, "owner", allow_readers=True))
        uid, verify_key, syft_version = owner["uid"], owner["verify_key"], str(owner["syft_version"])
    except (ValueError, KeyError, TypeError):
        raise NodeError(f"data {path.parent}: owner.json is damaged; restore it, or move the data away") from None
    if uid != identity.uid or verify_key != identity.verify_key:
        raise _belongs_to_another(path.parent, uid, identity)
    if version_numbers(syft_version) < SUPPORTED_FROM:
        raise NodeError(
            f"data {path.parent}: written by syft {syft_version}, which 0.9.2 and later cannot read in place; "
            "move the data away, or migrate it with get_migration_data and load_migration_data"
        )


def _check_database(path: Path, identity: Identity) -> None:
    """Read the settings row that every syft >= 0.9.2 server keeps (S/service/settings/settings.py)."""
    try:
        # Through a URI with mode=rw: never creates the file, and can still recover a write-ahead log.
        uri = f"{path.as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
            tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
            if tables and "ServerSettings" not in tables:
                raise NodeError(f"database {path}: not made by syft 0.9.2 or later; move it away, or migrate it")
            rows = connection.execute("select fields from ServerSettings").fetchall() if tables else []
    except sqlite3.Error as error:
        raise NodeError(f"database {path}: cannot be read: {error}") from None
    for (fields,) in rows:
        uid, verify_key = _row_owner(fields)
        if uid != identity.uid or verify_key != identity.verify_key:
            raise _belongs_to_another(path, uid, identity)


def _row_owner(fields: str) -> tuple[str, str]:
    document = json.loads(fields)
    return str(document.get("id", "")).replace("-", ""), str(document.get("verify_key", ""))


def _belongs_to_another(path: Path, uid: str, identity: Identity) -> NodeError:
    same = " with another key" if uid == identity.uid else ""
    return NodeError(
        f"data {path}: belongs to node {uid or 'unknown'}{same}, but the identity is {identity.uid}; "
        "restore that identity, or move the data away"
    )
