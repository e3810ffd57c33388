# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access to a node's database that several processes share: settings of each connection, and one lock between them.

server.py and worker.py call `tune()` after syft is imported and before the first database is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

log = logging.getLogger("pygrid_node.database")

LOST_EXIT_CODE = 75  # how a job's process ends that lost its database: the job has not failed, and is run again
_LOCK_TIMEOUT_SECONDS = 60.0
_ADVISORY_LOCK = 7317001  # any number, but the same in the domain and all its workers
_VERSION_TABLE = "pygrid_domain"
_BUSY_MILLISECONDS = 30_000
_RETRY_SECONDS = 0.5
_HEALTH_SECONDS = 3.0
# libpq's: without these a query over a network that was cut hangs for a quarter of an hour.
_NETWORK_LIMITS = {
    "connect_timeout": 10, "tcp_user_timeout": 20_000, "keepalives_idle": 15, "keepalives_interval": 5,
    "keepalives_count": 3,
}  # fmt: skip


@dataclass
class _Tuning:
    """Of this process and those forked from it; see `tune` and `be_patient`."""

    connections: int | None = None
    patience_seconds: float = 0.0


_tuning = _Tuning()


def tune(connections: int | None = None) -> None:
    """Make every database connection of this process fit for a domain, its workers and a busy API side by side.

    Upstream sets busy_timeout on the first connection of the pool only, and its pool of 15 is smaller than the web
    server's 40 threads, of which some hold two connections (S/store/db/sqlite.py, S/store/db/db.py).
    May be called again, as a job's process does, whose share of the connections is another one.

    Args:
        connections: the most connections of this process to PostgreSQL, None for no limit of ours.
    """
    import sqlalchemy
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from syft.store.db import db
    from syft.store.db.sqlite import SQLiteDBManager

    _tuning.connections = connections
    SQLiteDBManager.update_settings = lambda _self: None  # type: ignore[method-assign] # _set_pragmas does it
    if not event.contains(Engine, "connect", _set_pragmas):
        event.listen(Engine, "connect", _set_pragmas)
    if db.create_engine is not _create_engine:
        _create_engine.original = sqlalchemy.create_engine  # type: ignore[attr-defined]
        db.create_engine = _create_engine


def be_patient(seconds: float) -> None:
    """From now on, let whoever needs a connection wait so long for a PostgreSQL that is being restarted."""
    _tuning.patience_seconds = seconds


def leave_when_lost() -> None:
    """End this process (LOST_EXIT_CODE) at once when PostgreSQL goes away under a statement; for jobs only.

    Upstream would report the failed statement as the failure of the user's code.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def lost(context: Any) -> None:
        if not context.is_pre_ping and (context.is_disconnect or context.connection is None):
            log.error("the job lost its database: %s", one_line(context.original_exception))
            os._exit(LOST_EXIT_CODE)

    event.listen(Engine, "handle_error", lost)


def configuration(url: str) -> Any:
    """Upstream's description of a database; its own parser leaves %40 and the like in passwords as they are."""
    from syft.store.db.db import DBConfig
    from syft.store.db.postgres import PostgresDBConfig

    config = DBConfig.from_connection_string(url)
    if isinstance(config, PostgresDBConfig):
        config.user, config.password = unquote(config.user), unquote(config.password or "")
    return config


def _create_engine(url: str, **options: Any) -> Any:
    from sqlalchemy import event

    original = _create_engine.original  # type: ignore[attr-defined]
    if url == "sqlite://":  # that one is in memory and has another kind of pool
        return original(url, **options)
    size, most = 20, _tuning.connections or 80
    if url.startswith("postgresql"):
        options = {"connect_args": _NETWORK_LIMITS, **options}
    else:
        most = 80
    size = min(size, most)
    pool = {"pool_size": size, "max_overflow": most - size, "pool_pre_ping": True}
    engine = original(url, **{**pool, **options})
    if engine.dialect.name == "postgresql":
        event.listen(engine, "do_connect", _connect_patiently)
    return engine


def _connect_patiently(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    deadline = time.monotonic() + _tuning.patience_seconds
    while True:
        try:
            return dialect.loaded_dbapi.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _set_pragmas(connection: Any, _record: Any) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA temp_store = MEMORY")
    cursor.close()


class Health:
    """Asks a database whether it answers, over a connection of its own: neither the pool nor patience delays it.

    Args:
        engine: SQLAlchemy engine of the database.
    """

    def __init__(self, engine: Any) -> None:
        import sqlalchemy

        options = {"connect_args": {**_NETWORK_LIMITS, "connect_timeout": 3}} if _is_postgresql(engine) else {}
        self._engine = sqlalchemy.create_engine(
            engine.url, pool_size=1, max_overflow=0, pool_timeout=_HEALTH_SECONDS, pool_pre_ping=True, **options
        )

    def problem(self) -> str:
        """Why the database cannot be used now, in one line, or "" when it can."""
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.connect() as connection:
                connection.execute(sqlalchemy.text("select 1"))
        except SQLAlchemyError as error:
            return f"database: {reason(error)}"
        return ""


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
        held = self._held_postgresql() if _is_postgresql(self._engine) else self._held_file()
        with held:
            yield

    @contextlib.contextmanager
    def _held_postgresql(self) -> Iterator[None]:
        """Held by a transaction, so that PostgreSQL releases it however this ends."""
        import sqlalchemy
        from sqlalchemy.exc import OperationalError

        with _thread_lock(self._engine), self._engine.connect() as connection:
            try:
                connection.execute(sqlalchemy.text(f"set local lock_timeout = '{int(_LOCK_TIMEOUT_SECONDS)}s'"))
                connection.execute(sqlalchemy.text(f"select pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            except OperationalError as error:
                if getattr(error.orig, "pgcode", None) == "55P03":  # lock_not_available
                    raise TimeoutError("another process holds the lock of the database") from None
                raise
            yield

    @contextlib.contextmanager
    def _held_file(self) -> Iterator[None]:
        path = Path(f"{self._engine.url.database}.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock_file(descriptor, path)
            yield
        finally:
            os.close(descriptor)  # releases the lock


_thread_locks: weakref.WeakKeyDictionary[Any, threading.Lock] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def _thread_lock(engine: Any) -> Iterator[None]:
    """Let one thread at a time ask for the lock: those that wait would hold all connections, the holder needs one."""
    lock = _thread_locks.setdefault(engine, threading.Lock())
    if not lock.acquire(timeout=_LOCK_TIMEOUT_SECONDS):
        raise TimeoutError("another thread holds the lock of the database")
    try:
        yield
    finally:
        lock.release()


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


def note_version(engine: Any, version: str) -> None:
    """Write into a domain's database which syft it is used by, for its workers; see `noted_version`."""
    import sqlalchemy

    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"create table if not exists {_VERSION_TABLE} (syft_version text)"))
        connection.execute(sqlalchemy.text(f"delete from {_VERSION_TABLE}"))  # noqa: S608 - a name of ours
        connection.execute(
            sqlalchemy.text(f"insert into {_VERSION_TABLE} values (:version)"),  # noqa: S608
            {"version": version},
        )


def noted_version(engine: Any) -> str:
    """The syft that the domain of this database runs with, "" when it was never noted."""
    import sqlalchemy

    if not sqlalchemy.inspect(engine).has_table(_VERSION_TABLE):
        return ""
    with engine.connect() as connection:
        return str(connection.execute(sqlalchemy.text(f"select syft_version from {_VERSION_TABLE}")).scalar() or "")  # noqa: S608


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


def reason(error: BaseException) -> str:
    """What a driver says, without SQLAlchemy's statement and hints around it: its first line."""
    text = str(getattr(error, "orig", None) or error).strip()
    return " ".join(text.splitlines()[0].split())[:300] if text else type(error).__name__


def one_line(error: BaseException) -> str:
    """An exception's text on one line, for a log."""
    return " ".join(str(error).split())[:300]


def _is_postgresql(engine: Any) -> bool:
    return engine.dialect.name == "postgresql"
