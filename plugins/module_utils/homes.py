# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making the folders of a grid, and taking them away again without a trace."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_store import bundles_folder
from ansible_collections.openmined.pygrid.plugins.module_utils.files import locked, read_json
from ansible_collections.openmined.pygrid.plugins.module_utils.images import forget_images
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import SYSTEM_RUN, SYSTEM_STATE, Home
from ansible_collections.openmined.pygrid.plugins.module_utils.services.managers import manager_for

# Remembers which folders above the home did not exist before, so that removal leaves the account as it was.
CREATED = ".created-folders.json"


def ensure_home(home: Home) -> None:
    """Create the home folder and note which folders above it were created for it.

    Nodes that share a host may do so at the same time.
    """
    if home.root.is_dir():
        return
    missing = [folder for folder in home.root.parents if not folder.exists()]
    home.root.mkdir(mode=home.mode, parents=True, exist_ok=True)
    home.root.chmod(home.mode)
    if missing:
        (home.root / CREATED).write_text(json.dumps([str(folder) for folder in missing]) + "\n", encoding="utf-8")


def has_nodes(home: Home) -> bool:
    """Whether any node is deployed here (data that a removal kept does not count)."""
    return any(home.node(name).settings.exists() for name in home.node_names())


def leftovers(home: Home) -> list[Path]:
    """What the collection made for all nodes together; in the way once the last node is gone."""
    folders = [home.supervisor, home.releases, home.tools, home.cache, bundles_folder(home), home.locks]
    # A disk that somebody mounted there, say a cache that several hosts share, is not ours to empty.
    return [folder for folder in folders if folder.exists() and not folder.is_mount()]


def clean_up(home: Home) -> bool:
    """Remove what nodes share once no node is left; returns whether anything was removed.

    The service manager ends first, the locks go last: a run that was killed half way finds the rest again.
    """
    if not home.root.is_dir() or has_nodes(home):
        return False
    removed = False
    with locked(home.locks / "home.lock"):
        if has_nodes(home):
            return False
        manager_for(home).shutdown()
        forget_images(home)
        for folder in leftovers(home):
            removed = removed or folder != home.locks
            shutil.rmtree(folder)
    if not home.node_names():  # what happened to data is told as long as there are any
        shutil.rmtree(home.log, ignore_errors=True)
    above = [home.nodes.parent, SYSTEM_STATE, SYSTEM_RUN, home.cache.parent] if home.scope == "system" else []
    for folder in (home.nodes, *above):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return _remove_home(home) or removed


def _remove_home(home: Home) -> bool:
    """Remove the home folder itself, and the folders made for it, as far as they are empty."""
    marker = home.root / CREATED
    if any(entry != marker for entry in home.root.iterdir()):
        return False
    created = read_json(marker) or []
    marker.unlink(missing_ok=True)
    home.root.rmdir()
    for folder in created:
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return True
