# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""settings.json: everything a node is told, and nothing secret.

The file is checked strictly: an unknown key, a missing key or a wrong type ends the start with one line that names
the key. Schema 1 is described in the fields below.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import NodeError
from .files import read_private_text

KINDS = ("network", "domain", "worker")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ORPHAN_POLICIES = ("requeue", "interrupt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HEX = re.compile(r"[0-9a-f]+")
_Z85_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")

_COMMON = {
    "schema", "kind", "name", "identity_file", "node_directory", "listen", "database_url", "database_url_file",
    "blob_directory", "log_level", "stop_with_parent",
}  # fmt: skip
_OWN_KEYS = {
    "network": {"auto_approve_domains"},
    "domain": {"queue"},
    "worker": {"domain", "pool", "orphaned_jobs"},
}


@dataclass(frozen=True)
class Listen:
    """Where the node's HTTP server listens: an address of this host and a TCP port."""

    host: str
    port: int


@dataclass(frozen=True)
class Queue:
    """Where a domain's job queue listens, and the allow-list of the workers that may connect (0600, JSON)."""

    host: str
    port: int
    workers_file: Path


@dataclass(frozen=True)
class DomainReference:
    """What a worker knows about its domain: public parts only."""

    name: str
    uid: str
    verify_key: str
    queue_url: str
    queue_public_key: str


@dataclass(frozen=True)
class Settings:
    """A node's settings after validation; paths are absolute, `database_url` is resolved."""

    kind: str
    name: str
    identity_file: Path
    node_directory: Path
    listen: Listen
    database_url: str
    blob_directory: Path
    log_level: str
    stop_with_parent: bool
    digest: str
    auto_approve_domains: bool = False
    queue: Queue | None = None
    domain: DomainReference | None = None
    pool: str = "default-pool"
    orphaned_jobs: str = "requeue"

    @property
    def data_directory(self) -> Path:
        return self.node_directory / "data"

    @property
    def run_directory(self) -> Path:
        return self.node_directory / "run"

    @property
    def tmp_directory(self) -> Path:
        return self.node_directory / "tmp"

    @property
    def owner_file(self) -> Path:
        return self.data_directory / "owner.json"

    @property
    def sqlite_file(self) -> Path | None:
        """The database file, or None when the database is PostgreSQL."""
        prefix = "sqlite:///"
        return Path(self.database_url[len(prefix) :]) if self.database_url.startswith(prefix) else None

    def __repr__(self) -> str:
        # The database URL may hold a password, so it must not reach a log by an accidental print.
        return f"Settings(kind={self.kind!r}, name={self.name!r}, node_directory={str(self.node_directory)!r})"


def load_settings(path: str | Path) -> Settings:
    """Read and validate a settings file.

    Raises:
        NodeError: with one line naming the file, the key and what is wrong with it.
    """
    path = Path(path)
    raw = read_private_text(path, "settings", allow_readers=True)
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise NodeError(f"settings {path}: not valid JSON: {error}") from None
    try:
        return parse_settings(document, hashlib.sha256(raw.encode()).hexdigest())
    except NodeError as error:
        raise NodeError(f"settings {path}: {error}") from None


def parse_settings(document: Any, digest: str = "") -> Settings:
    """Validate a decoded settings document; `digest` is the SHA-256 (hex) of the bytes it was read from."""
    if not isinstance(document, dict):
        raise NodeError("must be a JSON object")
    if document.get("schema") != 1:
        raise NodeError(f"schema must be 1, not {document.get('schema')!r}")
    kind = _choice(document, "kind", KINDS)
    unknown = sorted(set(document) - _COMMON - _OWN_KEYS[kind])
    if unknown:
        raise NodeError(f"unknown key {unknown[0]!r} for a {kind}")
    node_directory = _path(document, "node_directory")
    common = {
        "kind": kind,
        "name": _name(document, "name"),
        "identity_file": _path(document, "identity_file"),
        "node_directory": node_directory,
        "listen": _listen(document, "listen"),
        "database_url": _database_url(document, kind, node_directory),
        "blob_directory": _blob_directory(document, kind, node_directory),
        "log_level": _choice(document, "log_level", LOG_LEVELS, "INFO"),
        "stop_with_parent": _boolean(document, "stop_with_parent", True),
        "digest": digest,
    }
    if kind == "network":
        return Settings(**common, auto_approve_domains=_boolean(document, "auto_approve_domains", False))
    if kind == "domain":
        return Settings(**common, queue=_queue(document))
    return Settings(
        **common,
        domain=_domain(document),
        pool=_name(document, "pool", "default-pool"),
        orphaned_jobs=_choice(document, "orphaned_jobs", ORPHAN_POLICIES, "requeue"),
    )


def _value(document: Mapping[str, Any], key: str, expected: type, default: Any = None) -> Any:
    value = document.get(key)
    if value is None:
        value = default
    if value is None:
        raise NodeError(f"{key} is missing")
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise NodeError(f"{key} must be of type {expected.__name__}, not {type(value).__name__}")
    return value


def _text(document: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value: str = _value(document, key, str, default)
    if not value.strip():
        raise NodeError(f"{key} is empty")
    return value


def _boolean(document: Mapping[str, Any], key: str, default: bool) -> bool:
    return _value(document, key, bool, default)


def _choice(document: Mapping[str, Any], key: str, choices: tuple[str, ...], default: str | None = None) -> str:
    value = _text(document, key, default)
    if value not in choices:
        raise NodeError(f"{key} must be one of {', '.join(choices)}, not {value!r}")
    return value


def _name(document: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = _text(document, key, default)
    if not _NAME.fullmatch(value):
        raise NodeError(f"{key} {value!r} must be 1 to 63 letters, digits, dots, dashes or underscores")
    return value


def _path(document: Mapping[str, Any], key: str) -> Path:
    value = Path(_text(document, key))
    if not value.is_absolute():
        raise NodeError(f"{key} must be an absolute path, not {str(value)!r}")
    return value


def _port(document: Mapping[str, Any], key: str) -> int:
    value: int = _value(document, key, int)
    if not 1 <= value <= 65535:
        raise NodeError(f"{key} must be a port from 1 to 65535, not {value}")
    return value


def _section(document: Mapping[str, Any], key: str, keys: set[str]) -> dict[str, Any]:
    section: dict[str, Any] = _value(document, key, dict)
    unknown = sorted(set(section) - keys)
    if unknown:
        raise NodeError(f"unknown key {unknown[0]!r} in {key}")
    return section


def _within(key: str, error: NodeError) -> NodeError:
    return NodeError(f"{key}.{error}")


def _listen(document: Mapping[str, Any], key: str) -> Listen:
    section = _section(document, key, {"host", "port"})
    try:
        return Listen(_text(section, "host"), _port(section, "port"))
    except NodeError as error:
        raise _within(key, error) from None


def _queue(document: Mapping[str, Any]) -> Queue:
    section = _section(document, "queue", {"host", "port", "workers_file"})
    try:
        return Queue(_text(section, "host"), _port(section, "port"), _path(section, "workers_file"))
    except NodeError as error:
        raise _within("queue", error) from None


def _domain(document: Mapping[str, Any]) -> DomainReference:
    section = _section(document, "domain", {"name", "uid", "verify_key", "queue_url", "queue_public_key"})
    try:
        reference = DomainReference(
            name=_name(section, "name"),
            uid=_text(section, "uid").replace("-", "").lower(),
            verify_key=_text(section, "verify_key").lower(),
            queue_url=_text(section, "queue_url"),
            queue_public_key=_text(section, "queue_public_key"),
        )
        for key, value, length in (("uid", reference.uid, 32), ("verify_key", reference.verify_key, 64)):
            if len(value) != length or not _HEX.fullmatch(value):
                raise NodeError(f"{key} must be {length} hex digits")
        if not re.fullmatch(r"tcp://[^/\s]+:\d{1,5}", reference.queue_url):
            raise NodeError(f"queue_url must look like tcp://host:port, not {reference.queue_url!r}")
        if not _Z85_KEY.fullmatch(reference.queue_public_key):
            raise NodeError("queue_public_key must be a Z85 CURVE key of 40 characters")
    except NodeError as error:
        raise _within("domain", error) from None
    return reference


def _blob_directory(document: Mapping[str, Any], kind: str, node_directory: Path) -> Path:
    if document.get("blob_directory") is not None:
        return _path(document, "blob_directory")
    if kind == "worker":
        raise NodeError("blob_directory is missing: a worker needs its domain's")
    return node_directory / "data" / "blobs"


def _database_url(document: Mapping[str, Any], kind: str, node_directory: Path) -> str:
    """The database URL, from the settings, from the file they name, or the node's own SQLite file."""
    if document.get("database_url") is not None and document.get("database_url_file") is not None:
        raise NodeError("database_url and database_url_file exclude each other")
    if document.get("database_url_file") is not None:
        url = read_private_text(_path(document, "database_url_file"), "database URL").strip()
        key = "database_url_file"
    elif document.get("database_url") is not None:
        url, key = _text(document, "database_url"), "database_url"
    elif kind == "worker":
        raise NodeError("database_url or database_url_file is missing: a worker needs its domain's")
    else:
        return f"sqlite:///{node_directory / 'data' / 'node.db'}"
    _check_database_url(key, url)
    return url


def _check_database_url(key: str, url: str) -> None:
    """Reasons never repeat the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NodeError(f"{key} is not a URL") from None
    if parts.scheme == "sqlite":
        if not url.startswith("sqlite:////"):
            raise NodeError(f"{key}: an SQLite file needs an absolute path (sqlite:////path/node.db)")
    elif parts.scheme == "postgresql":
        if not (parts.hostname and port and parts.username and parts.path.strip("/")):
            # syft's own parser refuses a URL without a port (DBConfig.from_connection_string).
            raise NodeError(f"{key} must look like postgresql://user:password@host:port/database")
    else:
        raise NodeError(f"{key} must start with sqlite:/// or postgresql://")
