# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password of backups: one on the controller, and derived from it one for each node.

A host so knows the password of its own nodes' repositories only: whoever breaks into it cannot read what others saved,
though all repositories lie in one place.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

SHORTEST = 16


def derived_password(password: str, node: str) -> str:
    """The password of one node's repository: HMAC-SHA256 of its name, in hexadecimal digits."""
    return hmac.new(password.encode(), node.encode(), hashlib.sha256).hexdigest()


def ensure_password_file(path: Path) -> bool:
    """Make the file with a random password unless it is there; returns whether it was made. Forks may do so at once."""
    if path.exists():
        return False
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    except OSError as error:
        raise PygridError(f"the password of backups cannot be kept in {path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return True


def read_password(path: Path, tolerant: bool = False) -> str:
    """The password in a file that nobody else can read.

    Args:
        tolerant: a missing file is no error: check mode makes none.
    """
    try:
        status = path.stat()
        password = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if tolerant:
            return ""
        raise PygridError(
            f"the password of backups is not in {path} on the controller; set pygrid_backup_password (in Vault) or"
            " pygrid_backup_password_file to what it was when the backups were made"
        ) from None
    except OSError as error:
        raise PygridError(f"the password of backups cannot be read from {path}: {error.strerror}") from None
    if status.st_mode & 0o077:
        raise PygridError(f"{path} holds the password of backups, and others may read it; chmod 600 {path}")
    if len(password) < SHORTEST:
        raise PygridError(f"the password of backups in {path} is shorter than {SHORTEST} characters")
    return password
