# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account under which a node runs in scope ``system``: one for each node, so that tenants are kept apart."""

from __future__ import annotations

import hashlib
import pwd
import re
import subprocess
from dataclasses import dataclass

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import locked
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import SYSTEM_STATE, Home

# useradd takes 32 characters, and some file systems and tools count a closing zero.
LONGEST = 31
PREFIX = "pygrid-"
NO_SHELL = "/usr/sbin/nologin"


@dataclass(frozen=True)
class Account:
    """An account of this machine, with a group of the same name."""

    name: str
    folder: str
    shell: str
    comment: str

    def find(self) -> pwd.struct_passwd | None:
        return _find(self.name)


def account_of(node: str) -> Account:
    """The account of a node."""
    return Account(account_name(node), str(SYSTEM_STATE / node), NO_SHELL, f"PyGrid node {node}")


def make_account(account: Account, numbers: tuple[int, int] | None = None) -> None:
    """Create an account and its group; the lock of accounts is held. ``numbers``: of the account and of the group."""
    group = ["--user-group"]
    if numbers:
        _call("groupadd", "--system", "--gid", str(numbers[1]), account.name)
        group = ["--uid", str(numbers[0]), "--gid", account.name]
    _call(
        "useradd", "--system", *group, "--no-create-home", "--home-dir", account.folder, "--shell", account.shell,
        "--comment", account.comment, account.name,
    )  # fmt: skip


def account_name(node: str) -> str:
    """Name of the account of a node: ``pygrid-alice``; a long name is cut and made unique by a checksum."""
    plain = PREFIX + re.sub(r"[^a-z0-9-]", "-", node.lower())
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[: LONGEST - 7]}-{hashlib.sha256(node.encode()).hexdigest()[:6]}"


def has_account(node: str) -> bool:
    return _find(account_name(node)) is not None


def group_id(node: str) -> int:
    """Number of the group that may read the node's settings."""
    found = _find(account_name(node))
    if found is None:
        raise PygridError(f"{node}: the account {account_name(node)} is missing; run playbooks/deploy.yml")
    return found.pw_gid


def readable_by_node(home: Home, node: str) -> tuple[int, int | None]:
    """Mode and group of a file that the node's account may read and not write; no group where the account has it."""
    return (0o640, group_id(node)) if home.scope == "system" else (0o600, None)


def ensure_account(home: Home, node: str) -> bool:
    """Create the node's account and its group unless they are there; returns whether they were created."""
    name = account_name(node)
    if _find(name) is not None:
        return False
    with locked(home.locks / "accounts.lock"):
        if _find(name) is not None:
            return False
        make_account(account_of(node))
    return True


def remove_account(home: Home, node: str) -> bool:
    """Remove the node's account; returns whether there was one. Its data must be gone: its number is given away."""
    name = account_name(node)
    if _find(name) is None:
        return False
    with locked(home.locks / "accounts.lock"):
        _call("userdel", name)
    return True


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _call(program: str, *words: str) -> None:
    result = subprocess.run([f"/usr/sbin/{program}", *words], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise PygridError(f"{program} {words[-1]} failed: {result.stderr.strip()[-300:]}")
