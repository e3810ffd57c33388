# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node was before its last upgrade: enough to go back to it in one step."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_json, read_text, to_json, write_atomic
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import NodePaths

# The snapshot of a large database takes its time, while people wait.
SNAPSHOT_SECONDS = 3600


@dataclass(frozen=True)
class Former:
    """A node before its upgrade.

    ``release``, ``settings`` and ``workers`` (the texts of its files) are what it ran with, ``snapshot`` the name of
    what it knew (None for a Worker), ``upgraded_to`` the release that took over at ``since``. ``going_back`` is true
    from the moment at which it was decided to return to all this, until that is done.
    """

    release: str
    settings: str
    workers: str | None
    snapshot: str | None
    upgraded_to: str
    since: float
    going_back: bool = False


class FormerState:
    """The former state of one node, as a file of root's (in scope user: of the account's)."""

    def __init__(self, node: NodePaths) -> None:
        self._node = node

    def read(self) -> Former | None:
        """None when the node was never upgraded, or the upgrade did not get as far as the new release."""
        document = read_json(self._node.former)
        if document is None:
            return None
        former = Former(**document)
        current = self._node.active_release()
        return former if former.going_back or current == former.upgraded_to else None

    def keep(self, upgraded_to: str, python: Path) -> None:
        """Note what the node is and what it knows now, while it is stopped.

        A former run may have been killed after it had done so: the node has run since, so it is done anew.

        Args:
            upgraded_to: the release that the node will point at next.
            python: interpreter of a release that can take snapshots.
        """
        release, settings = self._node.active_release(), read_text(self._node.settings)
        if release is None or settings is None:
            raise PygridError(f"{self._node.name} runs with no release yet: there is nothing to upgrade")
        name = None
        if json.loads(settings)["kind"] != "worker":
            name = f"{release}-{time.time_ns() // 1_000_000}"
            self._snapshot(python, "take", name)
        former = Former(release, settings, read_text(self._node.workers), name, upgraded_to, time.time())
        write_atomic(self._node.former, to_json(asdict(former)))
        if name is not None:
            for other in self._snapshot(python, "list"):
                if other["name"] != name:
                    self._snapshot(python, "delete", other["name"])

    def decide_to_go_back(self, former: Former) -> None:
        """From now on every run goes back, until :meth:`forget`."""
        write_atomic(self._node.former, to_json(asdict(replace(former, going_back=True))))

    def newer(self, former: Former) -> dict[str, Any]:
        """What the node has learnt since: ``lost``, ``changed`` (kind of object to number) and ``blobs``."""
        if former.snapshot is None:
            return {"lost": {}, "changed": {}, "blobs": 0}
        return self._snapshot(self._node.python, "compare", former.snapshot)

    def restore(self, former: Former, python: Path) -> None:
        """Put back what the node knew; it is stopped."""
        if former.snapshot is not None:
            self._snapshot(python, "restore", former.snapshot)

    def forget(self, former: Former, python: Path) -> None:
        """There is no way back any more."""
        self._node.former.unlink(missing_ok=True)
        if former.snapshot is not None:
            self._snapshot(python, "delete", former.snapshot)

    def _snapshot(self, python: Path, action: str, *words: str) -> Any:
        result = subprocess.run(
            [str(python), "-m", "pygrid_node", "snapshot", action, str(self._node.settings), *words],
            env={"PATH": os.defpath, "HOME": str(self._node.state / "tmp")},
            cwd=self._node.root,
            capture_output=True,
            text=True,
            timeout=SNAPSHOT_SECONDS,
            check=False,
        )
        if result.returncode != 0:
            reason = result.stderr.strip()[-500:]
            raise PygridError(f"{self._node.name}: snapshot {action}: {reason}")
        return json.loads(result.stdout)
