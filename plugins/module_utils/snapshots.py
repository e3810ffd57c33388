# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking the runtime of a node for snapshots of what the node knows."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Container
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import NodePaths

# The snapshot of a large database takes its time.
SNAPSHOT_SECONDS = 3600


def snapshot(node: NodePaths, python: Path, action: str, *words: str) -> Any:
    """Run the runtime's command ``snapshot`` as the account that the node's data belong to; returns its answer.

    Args:
        python: interpreter of a release that can read the node's settings.
        action: take, restore, compare, delete or list.
    """
    result = subprocess.run(
        [str(python), "-m", "pygrid_node", "snapshot", action, str(node.settings), *words],
        env={"PATH": os.defpath, "HOME": str(node.state / "tmp")},
        cwd=node.root,
        capture_output=True,
        text=True,
        timeout=SNAPSHOT_SECONDS,
        check=False,
    )
    if result.returncode != 0:
        raise PygridError(f"{node.name}: snapshot {action}: {result.stderr.strip()[-500:]}")
    return json.loads(result.stdout)


def delete_snapshots(node: NodePaths, python: Path, prefix: str, keep: Container[str | None] = ()) -> None:
    """Delete the snapshots whose names begin with ``prefix``, but for those that are to be kept."""
    if not (node.state / "snapshots").is_dir():
        return
    for known in snapshot(node, python, "list"):
        if known["name"].startswith(prefix) and known["name"] not in keep:
            snapshot(node, python, "delete", known["name"])
