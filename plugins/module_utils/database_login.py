# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logging in to a PostgreSQL server with nothing but the standard library.

Before a release is staged a host has neither libpq nor psycopg, and that is when a wrong URL has to be found out.
The protocol is that of https://www.postgresql.org/docs/current/protocol.html, version 3.0.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.database_scram import METHOD, ScramLogin
from ansible_collections.openmined.pygrid.plugins.module_utils.database_url import DatabaseUrl, is_loopback
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

PROTOCOL = 196608
ASK_FOR_TLS = 80877103
# Longer than anything a server sends before a query; whoever sends more is no PostgreSQL.
LONGEST_MESSAGE = 1_000_000
MAY_CREATE = (
    "select coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), current_setting('server_encoding')"
)


class UnknownIssuerError(PygridError):
    """The server's certificate is signed by an authority that the given file does not hold."""


def try_login(url: DatabaseUrl, tls: bool, trust_file: Path | None, timeout_seconds: float) -> None:
    """Return when a node could work with this URL; else a PygridError says why not, without any secret.

    ``tls``: verify the server's certificate and name, by the authorities in ``trust_file`` (None: the system's).
    """
    place = f"{url.host}:{url.port}"
    try:
        with socket.create_connection((url.host, url.port), timeout=timeout_seconds) as plain:
            stream = _start_tls(plain, url.host, trust_file) if tls else plain
            session = _Session(stream, url)
            session.log_in()
            session.check_rights()
    except ssl.SSLCertVerificationError as error:
        text = f"the certificate of {place} is refused: {error.verify_message}"
        kind = UnknownIssuerError if error.verify_code in (2, 18, 19, 20, 21) else PygridError
        raise kind(f"{text}; add its authority to what the grid trusts, or correct the name in the URL") from None
    except ssl.SSLError as error:
        raise PygridError(f"TLS with {place} fails: {error.reason or error}; it needs TLS 1.2 or newer") from None
    except OSError as error:
        reason = "it does not answer" if isinstance(error, socket.timeout) else error.strerror or str(error)
        raise PygridError(
            f"{place} cannot be reached from this host: {reason}; is it running and does a firewall let us through?"
        ) from None


def _start_tls(plain: socket.socket, host: str, trust_file: Path | None) -> ssl.SSLSocket:
    plain.sendall(struct.pack("!ii", 8, ASK_FOR_TLS))
    if plain.recv(1) != b"S":
        raise PygridError(f"{host} refuses TLS, and nothing crosses the network without it; switch ssl on there")
    context = ssl.create_default_context(cafile=str(trust_file) if trust_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context.wrap_socket(plain, server_hostname=host)


class _Session:
    """One connection as one user."""

    def __init__(self, stream: socket.socket, url: DatabaseUrl) -> None:
        self._stream = stream
        self._url = url

    def log_in(self) -> None:
        """Send the start-up message and answer what the server asks, until it is ready for a query."""
        words = ["user", self._url.user, "database", self._url.database, "application_name", "pygrid", ""]
        start = struct.pack("!i", PROTOCOL) + b"".join(word.encode() + b"\0" for word in words)
        self._stream.sendall(struct.pack("!i", len(start) + 4) + start)
        scram = ScramLogin(self._url.password)
        for kind, body in self._messages():
            if kind == b"R":
                self._authenticate(struct.unpack("!i", body[:4])[0], body[4:], scram)

    def _authenticate(self, request: int, body: bytes, scram: ScramLogin) -> None:
        """Answer one request; 0 says that no more is asked."""
        if request == 10 and METHOD.encode() in body.split(b"\0"):
            first = scram.first()
            self._send(b"p", METHOD.encode() + b"\0" + struct.pack("!i", len(first)) + first)
        elif request == 11:
            self._send(b"p", scram.final(body))
        elif request == 12:
            scram.check(body)
        elif request == 5:
            self._send(b"p", self._md5(body[:4]) + b"\0")
        elif request == 3 and (isinstance(self._stream, ssl.SSLSocket) or is_loopback(self._url.host)):
            self._send(b"p", self._url.password.encode() + b"\0")
        elif request != 0:
            raise PygridError(
                f"{self._url.host} asks {self._url.user} for another proof than a password (method {request});"
                " give the account a password and a line with scram-sha-256 in pg_hba.conf"
            )

    def _md5(self, salt: bytes) -> bytes:
        inner = hashlib.md5((self._url.password + self._url.user).encode()).hexdigest()  # noqa: S324 - the server's choice
        return b"md5" + hashlib.md5(inner.encode() + salt).hexdigest().encode()  # noqa: S324

    def check_rights(self) -> None:
        """A node makes its tables itself."""
        self._send(b"Q", MAY_CREATE.encode() + b"\0")
        row = next(_columns(body) for kind, body in self._messages() if kind == b"D")
        self._send(b"X", b"")
        if row[0] != "t":
            raise PygridError(
                f"{self._url.user} may not create tables in the database {self._url.database}; make it the owner of the"
                " database, or grant CREATE on its schema"
            )
        if row[1] != "UTF8":
            raise PygridError(f"the database {self._url.database} is in {row[1]}; make one with ENCODING 'UTF8'")

    def _send(self, kind: bytes, body: bytes) -> None:
        self._stream.sendall(kind + struct.pack("!i", len(body) + 4) + body)

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """What the server sends until it waits for the next query; an error ends it."""
        while True:
            kind, length = struct.unpack("!ci", self._receive(5))
            if not 4 <= length <= LONGEST_MESSAGE:
                raise PygridError(f"what answers on {self._url.host}:{self._url.port} is no PostgreSQL")
            body = self._receive(length - 4)
            if kind == b"E":
                raise PygridError(f"{self._url.host} refuses the login of {self._url.user}: {_error_text(body)}")
            if kind == b"Z":
                return
            yield kind, body

    def _receive(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            chunk = self._stream.recv(count - len(received))
            if not chunk:
                raise PygridError(f"{self._url.host}:{self._url.port} closed the connection; is it PostgreSQL?")
            received += chunk
        return received


def _error_text(body: bytes) -> str:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return fields.get(b"M", "it does not say why")


def _columns(body: bytes) -> list[str]:
    """The columns of one row, as text."""
    (count,) = struct.unpack("!h", body[:2])
    columns, offset = [], 2
    for _column in range(count):
        (length,) = struct.unpack("!i", body[offset : offset + 4])
        columns.append(body[offset + 4 : offset + 4 + max(length, 0)].decode())
        offset += 4 + max(length, 0)
    return columns
