# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of a node in PostgreSQL, as far as it is the node's own host's business: its password and its address."""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.database_login import UnknownIssuerError, try_login
from ansible_collections.openmined.pygrid.plugins.module_utils.database_scram import verifier
from ansible_collections.openmined.pygrid.plugins.module_utils.database_url import DatabaseUrl, parse_url
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text, write_atomic, write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.lifecycle import make_node_folders
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import NodePaths
from ansible_collections.openmined.pygrid.plugins.module_utils.settings import TRUST

# 256 random bits, 43 characters
PASSWORD_BYTES = 32
SALT_BYTES = 16
OWN_PASSWORD = re.compile(r"[A-Za-z0-9_-]{32,}")


@dataclass(frozen=True)
class Account:
    """What is to be in the files, and whether it differs from what is. ``url`` is None while it is not made yet."""

    url: DatabaseUrl | None
    salt: bytes | None
    before: str
    after: str
    changed: bool

    @property
    def verifier(self) -> str | None:
        """For ALTER ROLE on the database's host; None for an account of somebody else's server."""
        if self.url is None or self.salt is None:
            return None
        return verifier(self.url.password, self.salt)


class AccountFiles:
    """database.url of a node, and beside it the salt of the verifier, which also tells that the password is ours."""

    def __init__(self, node: NodePaths) -> None:
        self._node = node
        self._url_file = node.database_url
        self._salt_file = node.database_url.with_name("database.salt")

    def given(self, text: str, dry_run: bool) -> Account:
        """Keep a URL from the inventory as it is."""
        url = parse_url(text)
        before = read_text(self._url_file)
        changed = before != f"{text}\n" or self._salt_file.exists()
        if not dry_run:
            self._salt_file.unlink(missing_ok=True)
            self._write(text)
        return Account(url, None, _public(before), url.public, changed)

    def own(self, wanted: DatabaseUrl, renew: bool, dry_run: bool) -> Account:
        """Keep the password that is there, or make one; ``renew`` makes one in any case."""
        before = read_text(self._url_file)
        salt = self._salt()
        password = None if renew else self._password(before)
        if password and salt:
            url = replace(wanted, password=password)
            changed = before != f"{url.text}\n"
            if not dry_run:
                self._write(url.text)
            return Account(url, salt, _public(before), url.public, changed)
        if dry_run:
            return Account(None, None, _public(before), wanted.public, True)
        url = replace(wanted, password=secrets.token_urlsafe(PASSWORD_BYTES))
        salt = secrets.token_bytes(SALT_BYTES)
        # Killed in between: a URL without its salt is not taken for ours, and the next run makes both anew.
        self._salt_file.unlink(missing_ok=True)
        self._write(url.text)
        write_atomic(self._salt_file, base64.b64encode(salt).decode() + "\n")
        return Account(url, salt, _public(before), url.public, True)

    def _write(self, text: str) -> None:
        if not self._node.root.is_dir():
            make_node_folders(self._node)
        write_if_different(self._url_file, f"{text}\n")

    def _salt(self) -> bytes | None:
        with contextlib.suppress(ValueError):
            salt = base64.b64decode((read_text(self._salt_file) or "").strip(), validate=True)
            return salt if len(salt) == SALT_BYTES else None
        return None

    def _password(self, text: str | None) -> str | None:
        """The password in a file that we wrote; a damaged file counts as none."""
        if text is None:
            return None
        with contextlib.suppress(PygridError):
            password = parse_url(text).password
            return password if OWN_PASSWORD.fullmatch(password) else None
        return None


def _public(text: str | None) -> str:
    if text is None:
        return ""
    try:
        return parse_url(text).public
    except PygridError:
        return "(unreadable)"


@dataclass(frozen=True)
class Route:
    """Between this host and the database's: the addresses of this side, and those it sends to."""

    client: list[str]
    server: list[str]


def find_route(host: str, port: int) -> Route:
    """The addresses that the database sees this host come from, one for each address its name stands for.

    Nothing is sent: connecting a UDP socket only asks the kernel for the way.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise PygridError(
            f"{host}, under which this host is to reach the database, cannot be resolved here ({error.strerror});"
            " set pygrid_address of the database's host to a name or address that the others can use"
        ) from None
    client, server = [], []
    for family, kind, _protocol, _name, address in found:
        with socket.socket(family, kind) as probe, contextlib.suppress(OSError):
            probe.connect(address)
            client.append(probe.getsockname()[0])
            server.append(address[0])
    if not client:
        raise PygridError(f"this host has no route to {host}, where its database is")
    return Route(sorted(set(client)), sorted(set(server)))


def check_login(url: DatabaseUrl, tls: bool, timeout_seconds: float, certain: bool) -> None:
    """Log in as the node would.

    Until role certificates has written what the host trusts, an unknown issuer says nothing yet: unless ``certain``,
    it is let pass.
    """
    trust = TRUST if TRUST.exists() else None
    try:
        try_login(url, tls, trust, timeout_seconds)
    except UnknownIssuerError:
        if certain or trust:
            raise


def file_problem(path: Path, error: OSError) -> PygridError:
    return PygridError(f"{path} cannot be written: {error.strerror}; make room or mend its permissions")
