# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A volume that outlives its machine: what nodes keep lies there, and belongs to their accounts on every machine.

Files belong to numbers, and accounts get theirs as they come. On a machine that the volume is new to, an account that
is missing is made with the number that its files have; where the number is somebody else's, the files change hands.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import Account, account_of, make_account
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import locked
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import SYSTEM_CONFIGURATION, SYSTEM_STATE, Home

#: What nodes keep: folder of the volume, and the place where everybody looks for it.
PLACES = {
    "nodes": SYSTEM_CONFIGURATION / "nodes",
    "state": SYSTEM_STATE,
    "postgresql": Path("/var/lib/postgresql"),
    "postgresql-settings": Path("/etc/postgresql"),
}
POSTGRES = Account("postgres", "/var/lib/postgresql", "/bin/bash", "PostgreSQL administrator")


@dataclass(frozen=True)
class Owned:
    """Folders whose files belong to an account. ``uid`` and ``gid``: what these files have by now.

    They change hands in this order, and the numbers were read from the last one: a run that is killed goes on there.
    """

    account: Account
    folders: tuple[Path, ...]
    uid: int
    gid: int


def occupied(volume: Path) -> list[Path]:
    """Places that have something in them which is not the volume's: it would be hidden by it."""
    return [
        place
        for folder, place in PLACES.items()
        if place.is_dir() and any(place.iterdir()) and not _is_same(place, volume / folder)
    ]


def have_folders(volume: Path, check_mode: bool) -> list[str]:
    """Have the folders of the volume, and the places that they appear at. Returns what was made."""
    made = []
    for folder, place in PLACES.items():
        for path in (place, volume / folder):
            if path.is_dir():
                continue
            made.append(str(path))
            if not check_mode:
                path.mkdir(parents=True, mode=0o755)
    return made


def have_owners(home: Home, volume: Path, check_mode: bool) -> list[str]:
    """Have everything on the volume belong to the account that it is of. Returns what was changed."""
    changes = []
    for owned in _owned(volume):
        changes += _settle(home, owned, check_mode)
    return changes


def _owned(volume: Path) -> Iterator[Owned]:
    """What of the volume belongs to accounts: nodes' data, of which their settings have the group, and databases."""
    for state in sorted((volume / "state").glob("*")):
        if state.is_dir():
            owner = state.stat()
            yield Owned(account_of(state.name), (volume / "nodes" / state.name, state), owner.st_uid, owner.st_gid)
    database = volume / "postgresql"
    for cluster in sorted(path for path in database.glob("*/*") if path.is_dir()):
        owner = cluster.stat()
        yield Owned(POSTGRES, (volume / "postgresql-settings", cluster), owner.st_uid, owner.st_gid)


def _settle(home: Home, owned: Owned, check_mode: bool) -> Iterator[str]:
    account = owned.account
    if owned.uid == 0:  # nobody's yet
        return
    found = account.find()
    if found is None:
        yield f"account {account.name}"
        if check_mode:
            return
        with locked(home.locks / "accounts.lock"):
            is_free = not _is_taken(owned)
            make_account(account, (owned.uid, owned.gid) if is_free else None)
        found = account.find()
        if found is None:
            raise PygridError(f"the account {account.name} was made and is not there")
    if (found.pw_uid, found.pw_gid) == (owned.uid, owned.gid):
        return
    yield f"files of {account.name}"
    if not check_mode:
        for folder in owned.folders:
            _hand_over(folder, {owned.uid: found.pw_uid}, {owned.gid: found.pw_gid})


def _is_taken(owned: Owned) -> bool:
    for find, number in ((pwd.getpwuid, owned.uid), (grp.getgrgid, owned.gid)):
        try:
            find(number)
        except KeyError:
            continue
        return True
    return False


def _hand_over(folder: Path, users: Mapping[int, int], groups: Mapping[int, int]) -> None:
    """Change owners of everything in a folder, the folder itself last."""
    for root, folders, files in os.walk(folder, topdown=False):
        for path in [*(Path(root, name) for name in [*folders, *files]), Path(root)]:
            status = path.lstat()
            uid, gid = users.get(status.st_uid, status.st_uid), groups.get(status.st_gid, status.st_gid)
            if (uid, gid) != (status.st_uid, status.st_gid):
                os.lchown(path, uid, gid)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
