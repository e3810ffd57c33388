# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL of one's own for tests: real server processes on a loopback port, with TLS, and gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from .runtime import free_port

PASSWORD = "p@ss:w/rd %41"  # what a URL cannot hold as it is
_ACCOUNT = "postgres"  # the server refuses to run as root
_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
ssl = on
ssl_cert_file = '{folder}/server.pem'
ssl_key_file = '{folder}/server.key'
fsync = off
log_connections = on
"""
_ACCESS = """
local all all trust
hostssl all all 127.0.0.1/32 scram-sha-256
"""


def binaries() -> Path | None:
    """The folder of the server's programs, or None when none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or sorted(Path("/usr/bin").glob("initdb"))
    return found[-1].parent if found else None


class Postgresql:
    """One cluster. Its certificate is for `localhost`, and not for 127.0.0.1."""

    def __init__(self) -> None:
        found = binaries()
        assert found is not None
        self._binaries = found
        self.folder = Path(tempfile.mkdtemp(prefix="pygrid-postgresql-"))
        self.folder.chmod(0o755)  # certificates are read from here by others; the data folder is 0700
        self.port = free_port()
        self.authority = self._make_certificates()
        if os.geteuid() == 0:
            account = pwd.getpwnam(_ACCOUNT)
            for path in (self.folder, self.folder / "server.key", self.folder / "server.pem"):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run("initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-D", self.folder / "data")
        settings = _SETTINGS.format(port=self.port, folder=self.folder)
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write(settings)
        (self.folder / "data" / "pg_hba.conf").write_text(_ACCESS)
        self.start()

    def _make_certificates(self) -> Path:
        folder = self.folder
        for name in ("authority", "stranger"):
            _openssl(
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
            )  # fmt: skip
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=database",
            "-keyout", folder / "server.key", "-out", folder / "server.csr",
        )  # fmt: skip
        (folder / "names").write_text("subjectAltName=DNS:localhost\n")
        _openssl(
            "x509", "-req", "-in", folder / "server.csr", "-CA", folder / "authority.pem", "-CAkey",
            folder / "authority.key", "-CAcreateserial", "-days", "1", "-extfile", folder / "names", "-out",
            folder / "server.pem",
        )  # fmt: skip
        return folder / "authority.pem"

    @property
    def stranger(self) -> Path:
        """An authority that the server's certificate is not from."""
        return self.folder / "stranger.pem"

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--clear-groups", *command]
        subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-D", self.folder / "data", "-l", self.folder / "server.log", "start")

    def stop(self) -> None:
        """As an administrator does it: connections are ended, transactions rolled back."""
        self._run("pg_ctl", "-w", "-D", self.folder / "data", "-m", "fast", "stop")

    def restart(self, away_seconds: float) -> None:
        self.stop()
        time.sleep(away_seconds)
        self.start()

    def sql(self, statement: str, database: str = "postgres") -> list[list[str]]:
        """Run a statement as the server's own administrator; returns the rows."""
        command = [self._binaries / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", self.folder]
        command += ["-p", str(self.port), "-d", database, "-F", "\t", "-c", statement]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def make_database(self, name: str, connections: int = 100) -> None:
        """A database and the role that owns it, both of that name."""
        self._make_role(name, connections)
        self.sql(f'create database "{name}" owner "{name}"')
        self.sql(f'revoke all on database "{name}" from public')

    def make_member(self, name: str, owner: str, connections: int = 100) -> None:
        """A login role of a worker, which acts as the database's owner: what it made would be its own otherwise."""
        self._make_role(name, connections)
        self.sql(f'grant "{owner}" to "{name}"')
        self.sql(f"""alter role "{name}" in database "{owner}" set role = '{owner}'""")

    def _make_role(self, name: str, connections: int) -> None:
        self.sql(f"""create role "{name}" login password '{PASSWORD}' connection limit {connections}""")

    def url(self, user: str, database: str, host: str = "localhost") -> str:
        return f"postgresql://{quote(user)}:{quote(PASSWORD, safe='')}@{host}:{self.port}/{database}"

    def connections(self) -> dict[str, int]:
        """How many connections each role has now; those of workers' roles count as theirs."""
        rows = self.sql("select usename, count(*) from pg_stat_activity where client_addr is not null group by 1")
        return {name: int(number) for name, number in rows}

    def close(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=True)
