# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""settings.json: what is accepted, and the one line for everything else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pygrid_node.errors import NodeError
from pygrid_node.settings import Blobs, least_connections, load_settings, parse_settings

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def document(kind: str = "network", **more: Any) -> dict[str, Any]:
    """A valid document of that kind, changed by `more`; a value of ... takes a key away."""
    own = {
        "network": {"auto_approve_domains": False},
        "domain": {"queue": {"host": "127.0.0.1", "port": 5500, "workers_file": "/n/workers.json"}},
        "worker": {
            "domain": {
                "name": "alice", "uid": "a" * 32, "verify_key": "b" * 64, "queue_url": "tcp://127.0.0.1:5500",
                "queue_public_key": KEY,
            },
            "pool": "default-pool", "orphaned_jobs": "requeue", "database_url": "sqlite:////d/node.db",
            "blob_directory": "/d/blobs",
        },
    }[kind]  # fmt: skip
    common = {
        "schema": 1, "kind": kind, "name": "alice", "identity_file": "/n/identity.json", "node_directory": "/n",
        "listen": {"host": "127.0.0.1", "port": 5000}, "database_url": None, "database_url_file": None,
        "blob_directory": None, "log_level": "INFO", "stop_with_parent": True,
    }  # fmt: skip
    return {key: value for key, value in {**common, **own, **more}.items() if value is not ...}


POSTGRESQL = {"database_url": "postgresql://u:hidden-word@db.example:5432/d"}


@pytest.mark.parametrize("kind", ["network", "domain", "worker"])
def test_valid(kind: str) -> None:
    settings = parse_settings(document(kind))
    assert (settings.kind, settings.name, settings.listen.port) == (kind, "alice", 5000)
    assert settings.data_directory == Path("/n/data")


def test_own_database_and_blobs_lie_in_the_node_directory() -> None:
    settings = parse_settings(document("domain"))
    assert settings.database_url == "sqlite:////n/data/node.db"
    assert settings.sqlite_file == Path("/n/data/node.db")
    assert settings.blob_directory == Path("/n/data/blobs")


def test_what_scope_user_does_not_set() -> None:
    settings = parse_settings(document("worker"))
    assert settings.run_directory == Path("/n/run")
    assert (settings.trust_file, settings.client_certificate_file, settings.notify) == (None, None, False)
    assert (settings.database_tls, settings.database_connections, settings.processes) == (None, None, 1)
    assert settings.blobs == Blobs("files")


def test_what_scope_system_sets() -> None:
    settings = parse_settings(
        document(
            "worker", **POSTGRESQL, run_directory="/run/n", trust_file="/t.pem", client_certificate_file="/c.pem",
            database_tls=True, database_connections=20, notify=True, processes=8, blob_directory=None,
            blobs={"kind": "domain", "url": "https://alice.example:8443"},
        )
    )  # fmt: skip
    assert settings.run_directory == Path("/run/n")
    assert (settings.trust_file, settings.client_certificate_file) == (Path("/t.pem"), Path("/c.pem"))
    assert (settings.database_tls, settings.database_connections) == (True, 20)
    assert (settings.notify, settings.processes) == (True, 8)
    assert settings.blobs == Blobs("domain", url="https://alice.example:8443")
    s3 = parse_settings(document("domain", blobs={"kind": "s3", "credentials_file": "/s3.json"}))
    assert s3.blobs == Blobs("s3", credentials_file=Path("/s3.json"))


def test_credentials_of_systemd_come_before_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, passed = tmp_path / "own", tmp_path / "passed"
    for folder, word in ((own, "own"), (passed, "passed")):
        folder.mkdir()
        for name in ("identity.json", "database.url", "s3.json", "client.pem"):
            file = folder / name
            file.touch(0o600)
            file.write_text(f"postgresql://u:{word}@127.0.0.1:5432/d\n")
    (passed / "s3.json").unlink()
    changed = document(
        "domain", identity_file=str(own / "identity.json"), database_url_file=str(own / "database.url"),
        blobs={"kind": "s3", "credentials_file": str(own / "s3.json")}, client_certificate_file=str(own / "client.pem"),
    )  # fmt: skip
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert parse_settings(changed).identity_file == own / "identity.json"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(passed))
    settings = parse_settings(changed)
    assert settings.identity_file == passed / "identity.json"
    assert settings.database_url == "postgresql://u:passed@127.0.0.1:5432/d"
    assert settings.blobs.credentials_file == own / "s3.json"
    # Renewed while the node runs, which systemd would not notice.
    assert settings.client_certificate_file == own / "client.pem"


@pytest.mark.parametrize(("kind", "processes", "least"), [("network", 1, 10), ("worker", 1, 6), ("worker", 8, 20)])
def test_least_connections(kind: str, processes: int, least: int) -> None:
    own = {"processes": processes} if kind == "worker" else {}
    assert least_connections(kind, processes) == least
    accepted = parse_settings(document(kind, **POSTGRESQL, **own, database_connections=least))
    assert accepted.database_connections == least
    with pytest.raises(NodeError, match=f"from {least} to"):
        parse_settings(document(kind, **POSTGRESQL, **own, database_connections=least - 1))


def test_postgresql_has_no_file_and_no_password_in_its_repr() -> None:
    settings = parse_settings(document(database_url="postgresql://u:hidden-word@h:5432/d"))
    assert settings.sqlite_file is None
    assert "hidden-word" not in repr(settings)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("network", {"schema": 2}, "schema must be 1"),
        ("network", {"kind": "relay"}, "kind must be one of network, domain, worker"),
        ("network", {"colour": "red"}, "unknown key 'colour' for a network"),
        ("network", {"queue": {}}, "unknown key 'queue' for a network"),
        ("network", {"name": ...}, "name is missing"),
        ("network", {"name": "a/b"}, "name 'a/b' must be"),
        ("network", {"name": 5}, "name must be of type str"),
        ("network", {"auto_approve_domains": "yes"}, "auto_approve_domains must be of type bool"),
        ("network", {"identity_file": "identity.json"}, "identity_file must be an absolute path"),
        ("network", {"listen": {"host": "127.0.0.1"}}, "listen.port is missing"),
        ("network", {"listen": {"host": "127.0.0.1", "port": True}}, "listen.port must be of type int"),
        ("network", {"listen": {"host": "127.0.0.1", "port": 65536}}, "listen.port must be a port"),
        ("network", {"listen": {"host": "127.0.0.1", "port": 1, "tls": 1}}, "unknown key 'tls' in listen"),
        ("network", {"log_level": "LOUD"}, "log_level must be one of"),
        ("network", {"database_url": "mysql://u:hidden-word@h/d"}, "database_url must start with"),
        ("network", {"database_url": "postgresql://u:hidden-word@h/d"}, "database_url must look like"),
        ("network", {"database_url": "postgresql://u:hidden-word@h:port/d"}, "database_url is not a URL"),
        ("network", {"database_url": "sqlite:///relative.db"}, "an SQLite file needs an absolute path"),
        ("network", {"database_url": "sqlite:////d", "database_url_file": "/f"}, "exclude each other"),
        ("domain", {"queue": ...}, "queue is missing"),
        ("domain", {"queue": {"host": "127.0.0.1", "port": 5500}}, "queue.workers_file is missing"),
        ("worker", {"database_url": ...}, "a worker needs its domain's"),
        ("worker", {"blob_directory": None}, "blob_directory is missing"),
        ("network", {"run_directory": "run"}, "run_directory must be an absolute path"),
        ("network", {"notify": 1}, "notify must be of type bool"),
        ("network", {"processes": 2}, "unknown key 'processes' for a network"),
        ("network", {"database_tls": True}, "database_tls is for PostgreSQL"),
        ("network", {**POSTGRESQL, "database_tls": True}, "database_tls needs trust_file"),
        ("network", {**POSTGRESQL, "database_tls": False}, "database_tls may be false only"),
        ("network", {"blobs": {"kind": "domain", "url": "https://a"}}, "blobs.kind must be one of files, s3"),
        ("domain", {"blobs": {"kind": "s3"}}, "blobs.credentials_file is missing"),
        ("domain", {"blobs": {"kind": "files", "url": "https://a"}}, "blobs.url belongs to kind domain, not files"),
        ("worker", {"blobs": {"kind": "domain"}}, "blobs.url is missing"),
        ("worker", {"blobs": {"kind": "domain", "url": "http://a.example"}}, "blobs.url must be a URL that begins"),
        ("worker", {"blobs": {"kind": "domain", "url": "https://u:hidden-word@a"}}, "blobs.url must be a URL"),
        ("worker", {"blobs": {"kind": "files", "colour": "red"}}, "unknown key 'colour' in blobs"),
        ("worker", {"processes": 0}, "processes must be a number from 1 to 64"),
        ("worker", {"processes": 65}, "processes must be a number from 1 to 64"),
        ("worker", {"orphaned_jobs": "drop"}, "orphaned_jobs must be one of requeue, interrupt"),
        ("worker", {"domain": {**document("worker")["domain"], "uid": "x"}}, "domain.uid must be 32 hex digits"),
        ("worker", {"domain": {**document("worker")["domain"], "queue_url": "alice:5"}}, "domain.queue_url must look"),
        ("worker", {"domain": {**document("worker")["domain"], "queue_public_key": "x"}}, "must be a Z85 CURVE key"),
    ],
)
def test_invalid(kind: str, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(NodeError) as caught:
        parse_settings({**document(kind), **change} if ... not in change.values() else document(kind, **change))
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message
    assert "hidden-word" not in message
    assert caught.value.exit_code == 78


def test_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(document(), indent=7))
    assert load_settings(file).digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_url_file_must_be_private(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://u:hidden-word@h:5432/d\n")
    secret.chmod(0o644)
    settings = document(database_url_file=str(secret))
    with pytest.raises(NodeError, match="everybody may read it"):
        parse_settings(settings)
    secret.chmod(0o600)
    assert parse_settings(settings).database_url == "postgresql://u:hidden-word@h:5432/d"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema": 1}'])
def test_broken_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(content)
    with pytest.raises(NodeError, match=str(file)):
        load_settings(file)


def test_file_that_others_may_write(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(document()))
    file.chmod(0o666)
    with pytest.raises(NodeError, match="others may write it"):
        load_settings(file)
