# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that was decided and not done yet: whatever starts the node does it first."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_json
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import NodePaths
from ansible_collections.openmined.pygrid.plugins.module_utils.snapshots import delete_snapshots, snapshot

# Begin the names of snapshots: what came from a backup, and what was here before it.
FETCHED, KEPT = "restored-", "before-restore-"


@dataclass(frozen=True)
class PendingRestore:
    """What is to be restored.

    ``backup``: its id. ``snapshot``: its name on this host, None for a Worker. ``kept``: the name under which what is
    here now is kept, None when there is nothing. ``taken_at``, ``decided_at``: seconds since the epoch.
    """

    backup: str
    snapshot: str | None
    kept: str | None
    taken_at: float
    decided_at: float


def read_pending(node: NodePaths) -> PendingRestore | None:
    document = read_json(node.restore)
    return PendingRestore(**document) if document else None


def finish_restore(node: NodePaths, python: Path) -> None:
    """Do what was decided; the node is stopped, and its release, settings and database are those it will run with."""
    pending = read_pending(node)
    if pending is None:
        return
    if pending.snapshot is not None:
        if pending.kept is not None:
            _keep(node, python, pending.kept)
        snapshot(node, python, "restore", pending.snapshot)
    node.restore.unlink()
    if pending.snapshot is not None:
        delete_snapshots(node, python, FETCHED)
        delete_snapshots(node, python, KEPT, keep=(pending.kept,))


def _keep(node: NodePaths, python: Path, name: str) -> None:
    """Keep what the node knows now. Data that cannot be read are a reason to restore, and set aside as they are."""
    if not node.data.is_dir() or name in [known["name"] for known in snapshot(node, python, "list")]:
        return  # a former run was killed after this
    try:
        snapshot(node, python, "take", name)
    except PygridError:
        if "database_tls" in json.loads(node.settings.read_text(encoding="utf-8")):
            raise  # a database of a server: that has to be reached for the restore, too
        aside = node.data.with_name(f"data-unreadable-{int(time.time())}")
        os.rename(node.data, aside)  # noqa: PTH104 - never follows a link
