# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the grid before anything is changed: is every node there, and has it somebody to work for it?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from .story import DemoError

ANSWER_SECONDS = 10
SERVICE_UNAVAILABLE = 503
# The nodes of this demo are on this machine, whatever proxy leads to the world.
_OPENER = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Login:
    """The account of a Domain's owner, as the Domain's identity.json holds it."""

    email: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.email})"


@dataclass(frozen=True)
class DomainAddress:
    """A Domain as its owner knows it: its own URL, and the file with the owner's account."""

    name: str
    url: str
    identity_file: Path

    def login(self) -> Login:
        """Reads the owner's account. Raises DemoError when the file cannot be read or lacks it."""
        try:
            identity = json.loads(self.identity_file.read_text())
            return Login(identity["root_email"], identity["root_password"])
        except OSError as error:
            reason = f"{error.strerror}: {self.identity_file}"
            raise DemoError(f"cannot read the identity of {self.name}: {reason}") from None
        except (ValueError, KeyError, TypeError):
            raise DemoError(f"no root account in the identity file of {self.name}: {self.identity_file}") from None


def describe_node(name: str, url: str, kind: str) -> dict[str, Any]:
    """Returns a node's public metadata. Raises DemoError when nobody, or somebody else, answers at the URL."""
    try:
        metadata = _read(url, "/api/v2/metadata")
    except (OSError, ValueError) as error:
        raise DemoError(f"{name} does not answer at {url} ({error}); is the grid running? See `make status`") from None
    if metadata.get("server_type") != kind or metadata.get("name") != name:
        found = f"{metadata.get('server_type')} {metadata.get('name')}"
        raise DemoError(f"expected the {kind} {name} at {url}, found the {found}")
    return metadata


def attached_workers(url: str) -> list[str] | None:
    """Returns the names of the Workers a Domain says are attached, None where its health is not open to us."""
    try:
        return list(_read(url, "/healthz/ready")["workers"]["names"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(url: str, path: str) -> dict[str, Any]:
    try:
        with _OPENER.open(url.rstrip("/") + path, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        if error.code != SERVICE_UNAVAILABLE:
            raise
        return json.load(error)  # a node that is not ready says in the body why
