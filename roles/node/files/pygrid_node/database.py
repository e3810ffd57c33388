# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access to a node's database that several processes share: settings of each connection, and one lock between them.

server.py and worker.py call `tune_sqlite()` after syft is imported and before the first database is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LOCK_TIMEOUT_SECONDS = 60.0
_ADVISORY_LOCK = 7317001  # any number, but the same in the domain and all its workers
_BUSY_MILLISECONDS = 30_000


def tune_sqlite() -> None:
    """Make every database connection of this process fit for a domain, its workers and a busy API side by side.

    Upstream sets busy_timeout on the first connection of the pool only, and its pool of 15 is smaller than the web
    server's 40 threads, of which some hold two connections (S/store/db/sqlite.py, S/store/db/db.py).
    May be called twice.
    """
    import sqlalchemy
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from syft.store.db import db
    from syft.store.db.sqlite import SQLiteDBManager

    SQLiteDBManager.update_settings = lambda _self: None  # type: ignore[method-assign] # _set_pragmas does it
    if not event.contains(Engine, "connect", _set_pragmas):
        event.listen(Engine, "connect", _set_pragmas)
    if db.create_engine is not _create_engine:
        _create_engine.original = sqlalchemy.create_engine  # type: ignore[attr-defined]
        db.create_engine = _create_engine


def _create_engine(url: str, **options: Any) -> Any:
    if url != "sqlite://":  # that one is in memory and has another kind of pool
        options = {"pool_size": 20, "max_overflow": 60, "pool_pre_ping": True, **options}
    return _create_engine.original(url, **options)  # type: ignore[attr-defined]


def _set_pragmas(connection: Any, _record: Any) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA temp_store = MEMORY")
    cursor.close()


class DatabaseLock:
    """A lock between all processes that use one database: an advisory lock of PostgreSQL, a locked file beside SQLite.

    Args:
        engine: SQLAlchemy engine of the database.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the lock; raises TimeoutError after a minute."""
        held = self._held_postgresql() if self._engine.dialect.name == "postgresql" else self._held_file()
        with held:
            yield

    @contextlib.contextmanager
    def _held_postgresql(self) -> Iterator[None]:
        import sqlalchemy

        with self._engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"set lock_timeout = '{int(_LOCK_TIMEOUT_SECONDS)}s'"))
            connection.execute(sqlalchemy.text(f"select pg_advisory_lock({_ADVISORY_LOCK})"))
            try:
                yield
            finally:
                connection.execute(sqlalchemy.text(f"select pg_advisory_unlock({_ADVISORY_LOCK})"))
                connection.execute(sqlalchemy.text("reset lock_timeout"))

    @contextlib.contextmanager
    def _held_file(self) -> Iterator[None]:
        path = Path(f"{self._engine.url.database}.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock_file(descriptor, path)
            yield
        finally:
            os.close(descriptor)  # releases the lock


def _lock_file(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} is locked by another process") from None
            time.sleep(0.02)


def missing_schema(sqlite_file: Path) -> str | None:
    """Why this database is not one that a domain has made yet, or None when it is. Never creates the file."""
    if not sqlite_file.exists():
        return f"the domain has not created {sqlite_file} yet"
    try:
        with contextlib.closing(sqlite3.connect(f"{sqlite_file.as_uri()}?mode=rw", uri=True, timeout=5)) as connection:
            tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.Error as error:
        return f"the domain's database cannot be read yet: {error}"
    return None if "WorkerPool" in tables else "the domain has not created its tables yet"
