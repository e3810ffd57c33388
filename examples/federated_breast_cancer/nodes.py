# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the grid before anything is changed: is every node there, and has it somebody to work for it?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from .story import DemoError

ANSWER_SECONDS = 10


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
        answer = requests.get(f"{url.rstrip('/')}/api/v2/metadata", timeout=ANSWER_SECONDS)
        answer.raise_for_status()
        metadata = answer.json()
    except (requests.RequestException, ValueError) as error:
        reason = type(error).__name__
        raise DemoError(f"{name} does not answer at {url} ({reason}); is the grid running? See `make status`") from None
    if metadata.get("server_type") != kind or metadata.get("name") != name:
        found = f"{metadata.get('server_type')} {metadata.get('name')}"
        raise DemoError(f"expected the {kind} {name} at {url}, found the {found}")
    return metadata


def attached_workers(url: str) -> list[str] | None:
    """Returns the names of the Workers a Domain says are attached, None where its health is not open to us."""
    try:
        health = requests.get(f"{url.rstrip('/')}/healthz/ready", timeout=ANSWER_SECONDS).json()
        return list(health["workers"]["names"])
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None
