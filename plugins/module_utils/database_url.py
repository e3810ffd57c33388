# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address of a database, as a node reads it: ``postgresql://user:password@host:port/database``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

FORM = "postgresql://user:password@host:port/database"


@dataclass(frozen=True)
class DatabaseUrl:
    """Where a database is and who logs in; ``password`` never shows in a print of it."""

    user: str
    password: str = field(repr=False)
    host: str
    port: int
    database: str

    @property
    def text(self) -> str:
        """The secret form."""
        return self._form(f"{quote(self.user, safe='')}:{quote(self.password, safe='')}")

    @property
    def public(self) -> str:
        """The same without the password, for a diff or a message."""
        return self._form(quote(self.user, safe=""))

    def _form(self, login: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{login}@{host}:{self.port}/{self.database}"


def parse_url(text: str) -> DatabaseUrl:
    """Take a URL apart; a PygridError says which part is missing and never repeats the URL."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise PygridError(f"it is no URL of the form {FORM}") from None
    if parts.scheme != "postgresql":
        raise PygridError(f"it has to begin with postgresql:// ({FORM})")
    if parts.query or parts.fragment:
        # syft drops them (DBConfig.from_connection_string), so they would promise what does not happen
        raise PygridError(f"it ends with options (?...), which the node does not read; leave them out ({FORM})")
    database = parts.path.lstrip("/")
    found = {
        "user": parts.username,
        "password": parts.password,
        "host": parts.hostname,
        "port": port,
        "database": database,
    }
    missing = [name for name, value in found.items() if not value]
    if missing or port is None:
        raise PygridError(f"it lacks {' and '.join(missing)}; it has to have the form {FORM}")
    return DatabaseUrl(
        unquote(parts.username or ""), unquote(parts.password or ""), parts.hostname or "", port, database
    )


def is_loopback(host: str) -> bool:
    """Whether only the machine itself is reached under ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
