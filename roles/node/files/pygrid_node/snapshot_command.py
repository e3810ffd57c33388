# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `snapshot`: take, restore, compare, delete and list the snapshots of a node; every answer is JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from .database_copy import copy_of
from .environment import tls_environment
from .errors import NodeError
from .settings import Settings, load_settings
from .snapshot import Snapshots

_ACTIONS = ("take", "restore", "compare", "delete", "list")


def add_parser(commands: Any) -> None:
    """Add the command to those of the runtime's command line."""
    parser = commands.add_parser("snapshot", help="keep what the node knows, or go back to what it knew")
    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("settings", type=Path, help="settings.json of the node")
    parser.add_argument("name", nargs="?", help="name of the snapshot; not for list")
    parser.add_argument("--notes-from-stdin", action="store_true", help="take: what to add to the manifest, as JSON")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    if (options.name is None) != (options.action == "list"):
        raise NodeError(f"snapshot {options.action}: {'no name is' if options.name else 'a name is'} wanted")
    settings = load_settings(options.settings)
    if settings.kind == "worker":
        raise NodeError(f"{settings.name} is a worker: it keeps nothing that its domain does not have")
    notes = json.load(sys.stdin) if options.notes_from_stdin else {}
    become_owner_of(settings.node_directory)
    os.umask(0o077)
    snapshots = _snapshots(settings)
    if options.action == "take":
        answer: Any = snapshots.take(options.name, notes)
    elif options.action == "restore":
        answer = snapshots.restore(options.name)
    elif options.action == "compare":
        answer = snapshots.compare(options.name)
    elif options.action == "delete":
        snapshots.delete(options.name)
        answer = {}
    else:
        answer = [{"name": name, **snapshots.read(name)} for name in snapshots.names()]
    print(json.dumps(answer))
    return 0


def _snapshots(settings: Settings) -> Snapshots:
    settings.tmp_directory.mkdir(mode=0o700, exist_ok=True)
    return Snapshots(settings, copy_of(settings.database_url, tls_environment(settings), settings.tmp_directory))


def become_owner_of(folder: Path) -> None:
    """Give up root's rights for those of the account that a folder belongs to, for good.

    What lies there may be a trick of that account, and what is written there has to be its own.
    """
    if os.geteuid() != 0:
        return
    status = folder.stat()
    if status.st_uid != 0:
        os.setgroups([status.st_gid])
        os.setgid(status.st_gid)
        os.setuid(status.st_uid)
