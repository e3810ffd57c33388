# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node was before its last upgrade: enough to go back to it in one step."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_json, read_text, to_json, write_atomic
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import NodePaths
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import say
from ansible_collections.openmined.pygrid.plugins.module_utils.snapshots import delete_snapshots, snapshot

# Begins the names of the snapshots that are kept here; others belong to somebody else.
PREFIX = "former-"
# What people are told while it lasts.
SAID = {"take": "keeps what the node knows", "restore": "puts back what the node knew", "compare": "looks what is new"}


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
    """The former state of one node, as files of root's (in scope user: of the account's).

    There may be two: that before an upgrade that has begun, and that before the last one that was accepted, to which
    one can still go back when the later one was refused.
    """

    def __init__(self, node: NodePaths) -> None:
        self._node = node

    @property
    def is_on_trial(self) -> bool:
        """Whether an upgrade was begun and neither accepted nor taken back."""
        return self.read_trial() is not None

    @property
    def has_begun(self) -> bool:
        """Whether an upgrade was begun, and perhaps cut off before it came to the new release."""
        return self._node.former_on_trial.exists()

    def read_trial(self) -> Former | None:
        """What taking back an upgrade on trial leads to; None when none is."""
        return self._read(self._node.former_on_trial)

    def read(self) -> Former | None:
        """What going back leads to; None when that is nowhere, or when an upgrade was cut off before it came far."""
        return self.read_trial() if self.has_begun else self._read(self._node.former)

    def _read(self, path: Path) -> Former | None:
        document = read_json(path)
        if document is None:
            return None
        former = Former(**document)
        # An upgrade that did not get as far as the new release has left the node as it was.
        return former if former.going_back or self._node.active_release() == former.upgraded_to else None

    def begin(self, upgraded_to: str) -> None:
        """Note what the node is, before it is stopped: so a run after a kill knows why it does not run.

        Args:
            upgraded_to: the release that the node will point at next.
        """
        release, settings = self._node.active_release(), read_text(self._node.settings)
        if release is None or settings is None:
            raise PygridError(f"{self._node.name} runs with no release yet: there is nothing to upgrade")
        former = Former(release, settings, read_text(self._node.workers), None, upgraded_to, time.time())
        write_atomic(self._node.former_on_trial, to_json(asdict(former)))

    def keep(self, python: Path) -> None:
        """Keep what the node knows, while it is stopped.

        A former run may have been killed after it had done so: the node has run since, so it is done anew.

        Args:
            python: interpreter of a release that can take snapshots.
        """
        former = Former(**read_json(self._node.former_on_trial))
        if json.loads(former.settings)["kind"] != "worker":
            name = f"{PREFIX}{former.release}-{time.time_ns() // 1_000_000}"
            self._snapshot(python, "take", name)
            write_atomic(self._node.former_on_trial, to_json(asdict(replace(former, snapshot=name))))
            self._delete_other_snapshots(python)

    def settle(self) -> None:
        """The upgrade was accepted: from now on its former state is the one to go back to."""
        if self.is_on_trial:
            self._node.former_on_trial.replace(self._node.former)
            self._delete_other_snapshots(self._node.python)

    def decide_to_go_back(self, former: Former) -> None:
        """From now on every run goes back, until :meth:`forget`."""
        write_atomic(self._file_of(former), to_json(asdict(replace(former, going_back=True))))

    def newer(self, former: Former) -> dict[str, Any]:
        """What the node has learnt since: ``lost``, ``changed`` (kind of object to number) and ``blobs``."""
        if former.snapshot is None:
            return {"lost": {}, "changed": {}, "blobs": 0}
        return self._snapshot(self._node.python, "compare", former.snapshot)

    def restore(self, former: Former, python: Path) -> None:
        """Put back what the node knew; it is stopped."""
        if former.snapshot is not None:
            self._snapshot(python, "restore", former.snapshot)

    def forget_trial(self, python: Path) -> None:
        """The upgrade that had begun never was."""
        self._node.former_on_trial.unlink(missing_ok=True)
        self._delete_other_snapshots(python)

    def forget(self, python: Path) -> bool:
        """There is nothing to go back to any more; returns whether there was."""
        paths = (self._node.former, self._node.former_on_trial)
        present = [path for path in paths if path.exists()]
        for path in present:
            path.unlink()
        if present:
            self._delete_other_snapshots(python)
        return bool(present)

    def _file_of(self, former: Former) -> Path:
        document = read_json(self._node.former_on_trial) or {}
        return self._node.former_on_trial if document.get("since") == former.since else self._node.former

    def _delete_other_snapshots(self, python: Path) -> None:
        """Those that nothing leads back to."""
        known = [read_json(path) or {} for path in (self._node.former_on_trial, self._node.former)]
        wanted = {document.get("snapshot") for document in known} - {None}
        delete_snapshots(self._node, python, PREFIX, keep=wanted)

    def _snapshot(self, python: Path, action: str, *words: str) -> Any:
        say(SAID[action])
        return snapshot(self._node, python, action, *words)


# Tables of syft that people know by another word; without one for what comes along with others.
_WORDS = {
    "ActionObject": "object", "BlobStorageEntry": "", "CodeHistory": "", "Dataset": "dataset", "ExecutionOutput": "",
    "JobItem": "job", "Request": "request", "User": "user", "UserCode": "function", "UserPolicy": "",
    "UserCodeStatusCollection": "approval",
}  # fmt: skip


def describe_newer(newer: dict[str, Any]) -> str:
    """``2 jobs, 1 user (and changes of 1 dataset)``: what is lost by going back; empty when nothing is.

    Args:
        newer: as :meth:`FormerState.newer` gives it.
    """
    lost = _numbers(newer["lost"]) + ([f"{newer['blobs']} large objects"] if newer["blobs"] else [])
    changed = _numbers(newer["changed"])
    if not changed:
        return ", ".join(lost)
    return f"{', '.join(lost)} (and changes of {', '.join(changed)})" if lost else f"changes of {', '.join(changed)}"


def _numbers(tables: dict[str, int]) -> list[str]:
    words = ((_WORDS.get(table, table), number) for table, number in sorted(tables.items()))
    return [f"{number} {word}{'' if number == 1 else 's'}" for word, number in words if word]
