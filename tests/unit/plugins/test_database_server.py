# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL: what is read of it, what the plan does to it, and who can log in afterwards."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.openmined.pygrid.plugins.filter.database import database_plan
from ansible_collections.openmined.pygrid.plugins.module_utils.database_login import UnknownIssuerError, try_login
from ansible_collections.openmined.pygrid.plugins.module_utils.database_scram import verifier
from ansible_collections.openmined.pygrid.plugins.module_utils.database_url import DatabaseUrl
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

CHECKOUT = Path(__file__).resolve().parents[3]
QUERIES = CHECKOUT / "roles" / "database" / "files"
PROGRAMS = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path("/usr/bin")]
BIN = next((folder for folder in PROGRAMS if (folder / "initdb").exists()), None)
PASSWORDS = {"alice": "a" * 40, "alice-w1": "w" * 40}
USERS = {"alice": "pygrid_alice", "alice-w1": "pygrid_alice_w1"}

pytestmark = pytest.mark.skipif(BIN is None, reason="needs a PostgreSQL server (Debian: postgresql)")


@dataclass
class Server:
    """A cluster of its own in a folder of its own."""

    folder: Path
    port: int
    account: str | None

    def command(self, *words: str, text: str | None = None) -> str:
        """Run a program of PostgreSQL under the account that owns the cluster."""
        assert BIN is not None
        result = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            input=text,
            user=self.account,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def sql(self, *statements: str, database: str = "postgres", user: str | None = None) -> str:
        script = ";\n".join(statements)
        owner = user or self.account or pwd.getpwuid(os.getuid()).pw_name
        words = ["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-p", str(self.port)]
        return self.command("psql", *words, "-U", owner, "-d", database, text=script)

    def start(self, how: str = "start") -> None:
        self.command("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), how)

    def read(self) -> dict[str, Any]:
        values = {
            "unit": "''",
            "roles": "array['pygrid_alice', 'pygrid_alice_w1']",
            "certificate": f"'{self.folder}/server.pem'",
            "key": f"'{self.folder}/server.key'",
        }
        query = re.sub(r"%\((\w+)\)s", lambda match: values[match[1]], (QUERIES / "read_server.sql").read_text())
        return json.loads(self.sql(query.replace("%%", "%")))

    def apply(self, plan: dict[str, Any]) -> None:
        """Work a plan off as the tasks of the role do."""
        assert plan["problems"] == []
        if plan["settings_text"] is not None:
            (self.folder / "data" / "pygrid.conf").write_text(plan["settings_text"])
        if plan["include_settings"] is not None:
            file, line = Path(plan["config_file"]), "include_if_exists = 'pygrid.conf'\n"
            file.write_text(file.read_text().replace(line, "") + (line if plan["include_settings"] else ""))
        if plan["hba_block"] is not None:
            file = Path(plan["hba_file"])
            rest = file.read_text().partition("# END openmined.pygrid\n")
            block = f"# BEGIN openmined.pygrid\n{plan['hba_block']}\n# END openmined.pygrid\n"
            file.write_text((block if plan["hba_block"] else "") + (rest[2] or rest[0]))
        self.sql(*plan["statements"], *plan["passwords"])
        for holding in plan["holdings"]:
            self.sql(*holding["statements"], database=holding["database"])
        self.sql(*plan["farewells"])
        assert self.sql((QUERIES / "check_files.sql").read_text()) == ""
        self.start("restart")

    def log_in(self, node: str, password: str = "", **changes: Any) -> None:
        tls = changes.pop("tls", True)
        wanted = {"user": USERS[node], "host": "127.0.0.1", "port": self.port, "database": "pygrid_alice", **changes}
        trust = self.folder / "ca.pem"
        try_login(DatabaseUrl(password=password or PASSWORDS[node], **wanted), tls, trust, 10)


def write_certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    (folder / "server.pem").write_bytes(pem)
    private = serialization.PrivateFormat.PKCS8
    text = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    (folder / "server.key").write_bytes(text)
    (folder / "server.key").chmod(0o600)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    root = os.getuid() == 0
    with tempfile.TemporaryDirectory(prefix="pygrid-postgresql-") as name:
        folder = Path(name)
        write_certificate(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = Server(folder, port, "postgres" if root else None)
        if root:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "postgres", "postgres")
        server.command("initdb", "-D", str(folder / "data"), "-A", "trust", "-E", "UTF8", "--locale", "C")
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"unix_socket_directories = '{folder}'\nport = {port}\nfsync = off\n")
        server.start()
        try:
            yield server
        finally:
            server.command("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")


@pytest.fixture
def grid(server: Server) -> dict[str, Any]:
    database = {
        "managed": True, "on": "alice", "location": "db", "host": "127.0.0.1", "port": server.port,
        "name": "pygrid_alice", "owner": "pygrid_alice",
    }  # fmt: skip
    alice = {**database, "user": "pygrid_alice", "tls": False, "connections": 5}
    worker = {**database, "user": "pygrid_alice_w1", "tls": True, "connections": 2}
    return {
        "nodes": {
            "alice": {"host": "alice", "name": "alice", "kind": "domain", "database": alice},
            "alice-w1": {"host": "alice-w1", "name": "alice-w1", "kind": "worker", "database": worker},
        },
        "hosts": {"db": {"database_port": server.port}},
    }


def plan(server: Server, grid: dict[str, Any], **more: Any) -> dict[str, Any]:
    accounts = {
        node: {
            "verifier": verifier(password, node.encode()),
            "client_addresses": ["127.0.0.1"],
            "server_addresses": ["127.0.0.1"],
        }
        for node, password in PASSWORDS.items()
    }
    hostvars = {node: {"__database_account": account} for node, account in accounts.items()}
    files = {"certificate_file": f"{server.folder}/server.pem", "key_file": f"{server.folder}/server.key"}
    return database_plan(server.read(), grid, "db", hostvars, **files, **more)


def test_life_of_a_server(server: Server, grid: dict[str, Any]) -> None:
    server.apply(plan(server, grid))
    again = plan(server, grid)
    assert (again["changes"], again["left"]) == ([], [])

    server.log_in("alice", tls=False)
    server.log_in("alice-w1")
    with pytest.raises(PygridError, match="password authentication failed"):
        server.log_in("alice", password="x" * 40, tls=False)
    with pytest.raises(PygridError, match=r"pg_hba\.conf rejects"):
        server.log_in("alice-w1", tls=False)
    # An owner of the cluster trusts everybody on loopback, but nobody as one of ours.
    with pytest.raises(PygridError, match=r"pg_hba\.conf rejects"):
        server.log_in("alice", database="postgres", tls=False)
    with pytest.raises(PygridError, match=r"certificate of localhost:\d+ is refused: Hostname mismatch"):
        server.log_in("alice-w1", host="localhost")
    address = DatabaseUrl("pygrid_alice_w1", PASSWORDS["alice-w1"], "127.0.0.1", server.port, "pygrid_alice")
    with pytest.raises(UnknownIssuerError):
        try_login(address, True, None, 10)

    leaving = {**grid, "nodes": {"alice": grid["nodes"]["alice"]}}
    server.apply(plan(server, leaving))
    assert plan(server, leaving)["changes"] == []
    with pytest.raises(PygridError, match=r"\"pygrid_alice_w1\""):
        server.log_in("alice-w1", tls=False)
    server.log_in("alice", tls=False)

    server.apply(plan(server, grid, removed=["alice", "alice-w1"]))
    assert "pygrid" not in server.sql("select rolname from pg_roles union select datname from pg_database")
    assert "openmined" not in (server.folder / "data" / "pg_hba.conf").read_text()
    assert "pygrid" not in (server.folder / "data" / "postgresql.conf").read_text().replace(str(server.folder), "")
    assert server.sql("show ssl").strip() == "off"


def test_killed_after_every_statement(server: Server, grid: dict[str, Any]) -> None:
    """Each run does one statement and dies; the next one reads what is there and goes on from it."""
    done = []
    while True:
        planned = plan(server, grid)
        assert planned["problems"] == []
        rest = planned["statements"] + planned["passwords"]
        if not rest:
            break
        assert rest[0] not in done
        server.sql(rest[0])
        done.append(rest[0])
    assert len(done) > 10
    gone = plan(server, grid, removed=["alice", "alice-w1"])
    server.sql(*gone["statements"], *gone["farewells"])


def test_accounts_that_a_node_could_not_work_with(server: Server) -> None:
    server.sql(
        "create role reader login password 'secret-secret'",
        "create database latin owner reader template template0 encoding 'LATIN1'",
    )
    server.sql("create database plain template template0", "revoke create on database plain from public")
    server.sql("revoke create on schema public from public", database="plain")
    base = DatabaseUrl("reader", "secret-secret", "127.0.0.1", server.port, "plain")
    with pytest.raises(PygridError, match="may not create tables"):
        try_login(base, False, None, 10)
    with pytest.raises(PygridError, match="is in LATIN1"):
        try_login(DatabaseUrl("reader", "secret-secret", "127.0.0.1", server.port, "latin"), False, None, 10)
    with pytest.raises(PygridError, match="cannot be reached from this host: Connection refused"):
        try_login(DatabaseUrl("reader", "secret-secret", "127.0.0.1", 1, "plain"), False, None, 10)
