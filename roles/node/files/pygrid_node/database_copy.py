# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of a node's database: saved while others use it, put back while nobody does.

SQLite is copied by its own backup, PostgreSQL by pg_dump and pg_restore of the distribution. Either a copy is put back
as a whole or nothing of it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from .database import one_line
from .errors import EXIT_TEMPORARY, NodeError
from .files import create_private_text, sync

#: Table -> id of the row -> digest of what the row says.
Rows = dict[str, dict[str, str]]

# Whatever a release may have made; the extensions and the schema itself are the administrator's.
_DROP_EVERYTHING = """
DO $$ DECLARE found record; BEGIN
  FOR found IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND pg_get_userbyid(c.relowner) = current_user
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i', 'e'))
  LOOP
    EXECUTE format('DROP %s IF EXISTS %s CASCADE',
      CASE found.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
      ELSE 'TABLE' END, found.name);
  END LOOP;
  FOR found IN SELECT t.oid::regtype AS name FROM pg_type t
    WHERE t.typnamespace = current_schema()::regnamespace AND t.typtype = 'e'
      AND pg_get_userbyid(t.typowner) = current_user
  LOOP
    EXECUTE format('DROP TYPE IF EXISTS %s CASCADE', found.name);
  END LOOP;
END $$;
"""


class DatabaseCopy(Protocol):
    """How one kind of database is copied. Every method raises NodeError with the reason in one line."""

    kind: str
    #: Name of the file that holds the copy.
    file_name: str

    def save(self, target: Path) -> Rows:
        """Write the database as it is at one moment to a new file; returns its rows at that moment."""

    def load(self, source: Path) -> None:
        """Make the database what it was when `source` was saved; nobody may use it meanwhile."""

    def rows(self) -> Rows:
        """The rows as they are now; none when there is no database yet."""


def copy_of(url: str, tls: dict[str, str], private_folder: Path) -> DatabaseCopy:
    """How the database of a node is copied.

    Args:
        url: as settings.py has it: SQLite's has an absolute path, PostgreSQL's a user, a host, a port and a name.
        tls: libpq's variables that say whom to trust.
        private_folder: of the account that works, for a moment it holds the password in a file.
    """
    if url.startswith("sqlite:///"):
        return SqliteCopy(Path(url[len("sqlite:///") :]))
    return PostgresqlCopy(url, tls, private_folder)


class SqliteCopy:
    """One file, and while it is used its write-ahead log."""

    kind = "sqlite"
    file_name = "node.db"

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, target: Path) -> Rows:
        try:
            with contextlib.closing(self._open()) as source, contextlib.closing(sqlite3.connect(target)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, complete by itself
                rows = _rows_of_sqlite(copy)
            sync(target)
        except (sqlite3.Error, OSError) as error:
            raise _failed(f"cannot copy {self._path}", error) from None
        return rows

    def load(self, source: Path) -> None:
        draft = self._path.with_name(f".{self._path.name}.restored")
        try:
            shutil.copyfile(source, draft)
            draft.chmod(0o600)
            sync(draft)
            # What the log still held must not be played into the copy.
            if self._path.exists():
                with contextlib.closing(self._open()) as present:
                    present.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for suffix in ("-wal", "-shm", "-journal"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            draft.replace(self._path)
            sync(self._path.parent)
        except (sqlite3.Error, OSError) as error:
            raise _failed(f"cannot put {self._path} back", error) from None

    def rows(self) -> Rows:
        if not self._path.exists():
            return {}
        try:
            with contextlib.closing(self._open()) as connection:
                return _rows_of_sqlite(connection)
        except sqlite3.Error as error:
            raise _failed(f"cannot read {self._path}", error) from None

    def _open(self) -> sqlite3.Connection:
        # Not read-only: a log that a killed process left has to be played first.
        return sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=30)


class PostgresqlCopy:
    """A database of a server, reached as the node reaches it."""

    kind = "postgresql"
    file_name = "database.dump"

    def __init__(self, url: str, tls: dict[str, str], private_folder: Path) -> None:
        parts = urlsplit(url)
        self._place = f"the database {parts.path.strip('/')} on {parts.hostname}:{parts.port}"
        self._password = unquote(parts.password or "")
        self._folder = private_folder
        self._environment = {
            "PATH": os.defpath,
            "PGHOST": str(parts.hostname),
            "PGPORT": str(parts.port),
            "PGUSER": unquote(parts.username or ""),
            "PGDATABASE": unquote(parts.path.strip("/")),
            "PGCONNECT_TIMEOUT": "10",
            **tls,
        }

    def save(self, target: Path) -> Rows:
        with self._one_moment() as cursor:
            cursor.execute("select pg_export_snapshot()")
            [moment] = cursor.fetchone()
            rows = _rows_of_postgresql(cursor)
            # Not compressed: whoever keeps many of them finds equal parts better.
            self._run("pg_dump", "--format=custom", "--compress=0", f"--snapshot={moment}", f"--file={target}")
            sync(target)
        return rows

    def load(self, source: Path) -> None:
        """In one transaction, which is only ended when everything was read."""
        with self._password_file() as environment:
            reading = self._start(
                ["pg_restore", "--no-owner", "--no-privileges", "--file=-", str(source)],
                environment,
                stdout=subprocess.PIPE,
            )
            writing = self._start(
                ["psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--file=-"],
                environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            assert writing.stdin is not None and reading.stdout is not None  # noqa: S101, PT018 - asked for above
            with contextlib.suppress(BrokenPipeError):  # then psql says why
                writing.stdin.write(f"BEGIN;\nSET client_min_messages = error;\n{_DROP_EVERYTHING}".encode())
                shutil.copyfileobj(reading.stdout, writing.stdin)
                if reading.wait() == 0:
                    writing.stdin.write(b"\nCOMMIT;\n")
            self._finish("pg_restore", reading)
            self._finish("psql", writing)

    def rows(self) -> Rows:
        with self._one_moment() as cursor:
            return _rows_of_postgresql(cursor)

    @contextlib.contextmanager
    def _one_moment(self) -> Iterator[Any]:
        """A cursor that sees the database as it is at the first statement, whatever others write meanwhile."""
        import psycopg2

        variables = self._environment
        options = {
            "host": variables["PGHOST"],
            "port": variables["PGPORT"],
            "user": variables["PGUSER"],
            "dbname": variables["PGDATABASE"],
            "password": self._password,
            "connect_timeout": 10,
            "sslmode": variables.get("PGSSLMODE"),
            "sslrootcert": variables.get("PGSSLROOTCERT"),
        }
        try:
            connection = psycopg2.connect(**{key: value for key, value in options.items() if value})
            try:
                connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
                with connection.cursor() as cursor:
                    yield cursor
            finally:
                connection.close()
        except psycopg2.Error as error:
            raise _failed(f"cannot read {self._place}", error) from None

    @contextlib.contextmanager
    def _password_file(self) -> Iterator[dict[str, str]]:
        """The environment for a program of PostgreSQL; the password is in a file, which others cannot see."""
        file = self._folder / f".pgpass.{secrets.token_hex(8)}"
        escaped = self._password.replace("\\", "\\\\").replace(":", "\\:")
        create_private_text(file, f"*:*:*:*:{escaped}\n")
        try:
            yield {**self._environment, "PGPASSFILE": str(file)}
        finally:
            file.unlink()

    def _run(self, *command: str) -> None:
        with self._password_file() as environment:
            self._finish(command[0], self._start([*command, "--no-password"], environment))

    def _start(self, command: list[str], environment: dict[str, str], **streams: Any) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **streams)
        except FileNotFoundError:
            raise NodeError(
                f"{command[0]} is not installed on this host; it is needed to copy {self._place}:"
                " install PostgreSQL's client programs"
            ) from None

    def _finish(self, name: str, process: subprocess.Popen[bytes]) -> None:
        _out, said = process.communicate()
        if process.returncode != 0:
            reason = " ".join(said.decode(errors="replace").split())[-500:] or f"it ended with {process.returncode}"
            raise NodeError(f"{name}, {self._place}: {reason}", EXIT_TEMPORARY)


def _rows_of_sqlite(connection: sqlite3.Connection) -> Rows:
    names = connection.execute("select name from sqlite_master where type = 'table' order by name").fetchall()
    found: Rows = {}
    for (name,) in names:
        columns = {column[1] for column in connection.execute(f'pragma table_info("{name}")')}
        if {"id", "fields"} <= columns:
            query = f'select id, fields from "{name}"'  # noqa: S608 - the database's own names
            found[name] = {str(key): _digest(str(fields)) for key, fields in connection.execute(query)}
    return found


def _rows_of_postgresql(cursor: Any) -> Rows:
    cursor.execute(
        "select table_name from information_schema.columns where table_schema = current_schema()"
        " and column_name in ('id', 'fields') group by table_name having count(*) = 2 order by table_name"
    )
    found: Rows = {}
    for (name,) in cursor.fetchall():
        quoted = name.replace('"', '""')
        cursor.execute(f'select id::text, fields::text from "{quoted}"')  # noqa: S608 - the database's own names
        found[name] = {key: _digest(fields or "") for key, fields in cursor}
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _failed(what: str, error: BaseException) -> NodeError:
    reason = error.strerror if isinstance(error, OSError) else one_line(error)
    return NodeError(f"{what}: {reason}", EXIT_TEMPORARY)
