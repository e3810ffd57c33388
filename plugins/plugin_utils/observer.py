# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token with which the inventory asks nodes who belongs to them.

Each node is asked with a token of its own, derived from it, and knows no more than that one's digest: what one node is
shown is of no use at another.
"""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

LEAST_CHARACTERS = 32


def read_token(path: str) -> str:
    """The observer's token.

    Raises:
        PygridError: it is not there, too short to be one, or others may read it.
    """
    file = Path(path).expanduser()
    try:
        mode = file.stat().st_mode
        token = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise PygridError(f"{file} is not there; make it: (umask 077; openssl rand -hex 32 > {file})") from None
    except (OSError, UnicodeError) as error:
        raise PygridError(f"{file} cannot be read: {error}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise PygridError(f"{file} is a secret that others may read: chmod 600 {file}")
    if len(token) < LEAST_CHARACTERS or not token.isalnum():
        raise PygridError(
            f"{file} holds no token ({LEAST_CHARACTERS} letters and digits or more): openssl rand -hex 32"
        )
    return token


def node_token(token: str, kind: str, name: str) -> str:
    """What one node is asked with. A grid has one Network, whatever it is called."""
    whom = kind if kind == "network" else f"{kind} {name}"
    return hmac.digest(token.encode(), whom.encode(), "sha256").hex()


def token_digest(token: str, kind: str, name: str) -> str:
    """What the node knows of it: SHA-256, in hex. Nobody guesses 256 bits, so it needs no salt."""
    return hashlib.sha256(node_token(token, kind, name).encode()).hexdigest()
