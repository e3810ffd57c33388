# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""settings.json: everything a node is told, and nothing secret.

The file is checked strictly: an unknown key, a missing key or a wrong type ends the start with one line that names
the key. Schema 1 is described in the fields below. A file of secrets that the settings name is looked for among the
credentials that systemd passes first (files.credential).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import NodeError
from .fields import Fields
from .files import credential, read_private_text

KINDS = ("network", "domain", "worker")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ORPHAN_POLICIES = ("requeue", "interrupt")
BLOB_KINDS = {"network": ("files", "s3"), "domain": ("files", "s3"), "worker": ("files", "domain", "s3")}
MOST_PROCESSES = 64
_MOST_CONNECTIONS = 10_000
_SERVER_CONNECTIONS = 10  # below this a busy API would wait for connections that it holds itself
_HEX = re.compile(r"[0-9a-f]+")
_Z85_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")

_COMMON = {
    "schema", "kind", "name", "identity_file", "node_directory", "run_directory", "listen", "database_url",
    "database_url_file", "database_tls", "database_connections", "blob_directory", "blobs", "trust_file",
    "client_certificate_file", "log_level", "stop_with_parent", "notify", "trial_file",
}  # fmt: skip
_OWN_KEYS = {
    "network": {"auto_approve_domains", "listen_nodes", "observer_digest"},
    "domain": {"queue", "listen_nodes", "observer_digest"},
    "worker": {"domain", "pool", "orphaned_jobs", "processes"},
}


def least_connections(kind: str, processes: int = 1) -> int:
    """The smallest database_connections with which a node of that kind works."""
    if kind != "worker":
        return _SERVER_CONNECTIONS
    return MAIN_CONNECTIONS + JOB_CONNECTIONS * processes


#: A worker's main process: one for the lock that it shares with others, one for what it does under it, one for what
#: its slots ask meanwhile, one for health.
MAIN_CONNECTIONS = 4
#: A job's process: upstream holds one connection while it asks for a second.
JOB_CONNECTIONS = 2


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
class Blobs:
    """Where the big objects live: files (blob_directory), domain (fetched from the Domain at `url`), s3 (a bucket)."""

    kind: str = "files"
    url: str = ""
    credentials_file: Path | None = None


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
    """A node's settings after validation; paths are absolute, `database_url` is resolved.

    Attributes:
        trust_file: PEM bundle of the authorities that the node trusts as a client, None for the system's.
        client_certificate_file: PEM, certificate and key that the node shows to servers that ask for one.
        database_tls: True verifies PostgreSQL's certificate and name, False allows no TLS, None leaves it to libpq.
        database_connections: the most connections of the whole node to PostgreSQL, None for no limit.
        listen_nodes: where nodes of the grid get in on trial too: a domain's workers for blobs, peers to be known.
        notify: speak with systemd, and take its sockets.
        trial_file: while it is there when the node starts, the node is on trial (trial.Trial); None for never.
        processes: how many jobs a worker runs at the same time.
        observer_digest: SHA-256 (hex) of the token with which one may ask who belongs to the node; None: nobody may.
    """

    kind: str
    name: str
    identity_file: Path
    node_directory: Path
    run_directory: Path
    listen: Listen
    database_url: str
    blob_directory: Path
    log_level: str
    stop_with_parent: bool
    digest: str
    trust_file: Path | None = None
    client_certificate_file: Path | None = None
    database_tls: bool | None = None
    database_connections: int | None = None
    notify: bool = False
    trial_file: Path | None = None
    listen_nodes: Listen | None = None
    blobs: Blobs = Blobs()
    auto_approve_domains: bool = False
    queue: Queue | None = None
    domain: DomainReference | None = None
    pool: str = "default-pool"
    orphaned_jobs: str = "requeue"
    processes: int = 1
    observer_digest: str | None = None

    @property
    def data_directory(self) -> Path:
        return self.node_directory / "data"

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
    fields = Fields(document)
    kind = fields.choice("kind", KINDS)
    fields.refuse_others(_COMMON | _OWN_KEYS[kind], f"for a {kind}")
    node_directory = fields.path("node_directory")
    blobs = _blobs(fields, kind)
    common = {
        "kind": kind,
        "name": fields.name("name"),
        "identity_file": credential(fields.path("identity_file")),
        "node_directory": node_directory,
        "run_directory": fields.optional_path("run_directory") or node_directory / "run",
        "listen": _listen(fields),
        "database_url": _database_url(fields, kind, node_directory),
        "blob_directory": _blob_directory(fields, kind, blobs, node_directory),
        "blobs": blobs,
        "trust_file": fields.optional_path("trust_file"),
        # No credential of systemd's: those are read once, and this file is renewed while the node runs.
        "client_certificate_file": fields.optional_path("client_certificate_file"),
        "log_level": fields.choice("log_level", LOG_LEVELS, "INFO"),
        "stop_with_parent": fields.boolean("stop_with_parent", True),
        "notify": fields.boolean("notify", False),
        "trial_file": fields.optional_path("trial_file"),
        "digest": digest,
    }
    processes = fields.number("processes", 1, MOST_PROCESSES, 1) if kind == "worker" else 1
    common["database_tls"] = _database_tls(fields, common["database_url"])
    if fields.has("database_connections"):
        least = least_connections(kind, processes)
        common["database_connections"] = fields.number("database_connections", least, _MOST_CONNECTIONS)
    if fields.has("listen_nodes"):  # not for a worker, whose keys have no such name
        common["listen_nodes"] = _listen(fields, "listen_nodes")
    if fields.has("observer_digest"):
        common["observer_digest"] = _digest(fields, "observer_digest")
    if kind == "network":
        return Settings(**common, auto_approve_domains=fields.boolean("auto_approve_domains", False))
    if kind == "domain":
        return Settings(**common, queue=_queue(fields))
    return Settings(
        **common,
        domain=_domain(fields),
        pool=fields.name("pool", "default-pool"),
        orphaned_jobs=fields.choice("orphaned_jobs", ORPHAN_POLICIES, "requeue"),
        processes=processes,
    )


def _digest(fields: Fields, key: str) -> str:
    text = fields.text(key)
    if len(text) != 64 or not _HEX.fullmatch(text):
        raise fields.wrong(key, "must be a SHA-256 in hex")
    return text


def _listen(fields: Fields, key: str = "listen") -> Listen:
    section = fields.section(key, {"host", "port"})
    return Listen(section.text("host"), section.port("port"))


def _queue(fields: Fields) -> Queue:
    section = fields.section("queue", {"host", "port", "workers_file"})
    return Queue(section.text("host"), section.port("port"), section.path("workers_file"))


def _domain(fields: Fields) -> DomainReference:
    section = fields.section("domain", {"name", "uid", "verify_key", "queue_url", "queue_public_key"})
    reference = DomainReference(
        name=section.name("name"),
        uid=section.text("uid").replace("-", "").lower(),
        verify_key=section.text("verify_key").lower(),
        queue_url=section.text("queue_url"),
        queue_public_key=section.text("queue_public_key"),
    )
    for key, value, length in (("uid", reference.uid, 32), ("verify_key", reference.verify_key, 64)):
        if len(value) != length or not _HEX.fullmatch(value):
            raise section.wrong(key, f"must be {length} hex digits")
    if not re.fullmatch(r"tcp://[^/\s]+:\d{1,5}", reference.queue_url):
        raise section.wrong("queue_url", f"must look like tcp://host:port, not {reference.queue_url!r}")
    if not _Z85_KEY.fullmatch(reference.queue_public_key):
        raise section.wrong("queue_public_key", "must be a Z85 CURVE key of 40 characters")
    return reference


def _blobs(fields: Fields, kind: str) -> Blobs:
    if not fields.has("blobs"):
        return Blobs()
    section = fields.section("blobs", {"kind", "url", "credentials_file"})
    chosen = section.choice("kind", BLOB_KINDS[kind])
    for key, wanted_by in (("url", "domain"), ("credentials_file", "s3")):
        if section.has(key) and chosen != wanted_by:
            raise section.wrong(key, f"belongs to kind {wanted_by}, not {chosen}")
    if chosen == "domain":
        return Blobs(chosen, url=_blob_url(section))
    if chosen == "s3":
        return Blobs(chosen, credentials_file=credential(section.path("credentials_file")))
    return Blobs(chosen)


def _blob_url(section: Fields) -> str:
    """Without TLS only on this host: the channel is authenticated by itself, but who reads along must be nobody."""
    url = section.text("url")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and not parts.username and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(str(parts.hostname)))):
        raise section.wrong("url", "must be a URL that begins with https://")
    return url


def _blob_directory(fields: Fields, kind: str, blobs: Blobs, node_directory: Path) -> Path:
    if fields.has("blob_directory"):
        return fields.path("blob_directory")
    if kind == "worker" and blobs.kind == "files":
        raise NodeError("blob_directory is missing: a worker needs its domain's")
    return node_directory / "data" / "blobs"


def _database_url(fields: Fields, kind: str, node_directory: Path) -> str:
    """The database URL, from the settings, from the file they name, or the node's own SQLite file."""
    if fields.has("database_url") and fields.has("database_url_file"):
        raise NodeError("database_url and database_url_file exclude each other")
    if fields.has("database_url_file"):
        url = read_private_text(credential(fields.path("database_url_file")), "database URL").strip()
        key = "database_url_file"
    elif fields.has("database_url"):
        url, key = fields.text("database_url"), "database_url"
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


def _database_tls(fields: Fields, url: str) -> bool | None:
    if not fields.has("database_tls"):
        return None
    tls, parts = fields.boolean("database_tls", False), urlsplit(url)
    if tls and parts.scheme == "sqlite":
        raise fields.wrong("database_tls", "is for PostgreSQL: an SQLite file has no connection to encrypt")
    if tls and not fields.has("trust_file"):
        raise fields.wrong("database_tls", "needs trust_file, the authorities that the server's certificate is from")
    if not tls and parts.scheme == "postgresql" and not _is_loopback(str(parts.hostname)):
        raise fields.wrong("database_tls", "may be false only for a PostgreSQL on this host's loopback address")
    return tls


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
