# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node gets back what a backup knew: it is found and compared first, and played in while the node is stopped.

    present --check--> (refused, or) --decide--> decided --the node is started--> restored

What was decided is a file of the node's. From then on whatever starts the node restores it first, so that a run that
was killed is ended by the next one, and nobody ever sees half of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import shutil
import subprocess
import tarfile
import time
from dataclasses import asdict, dataclass, field
from typing import IO, Any, cast

from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import account_name
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_engine import Restic
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_folder import BackupFolder, Plan
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_take import NODE, NOTES, SCHEMA, open_below
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import (
    read_json,
    to_json,
    write_atomic,
    write_if_different,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.former import FormerState
from ansible_collections.openmined.pygrid.plugins.module_utils.host_checks import nearest_existing, version_tuple
from ansible_collections.openmined.pygrid.plugins.module_utils.lifecycle import make_node_folders
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import SYSTEM_STATE, Home, NodePaths
from ansible_collections.openmined.pygrid.plugins.module_utils.pending_restore import (
    FETCHED,
    KEPT,
    PendingRestore,
    read_pending,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.snapshots import snapshot

COMPARED = "compare-"
SHOWN = 10
# What people call the tables of syft.
WORDS = {
    "User": "users", "Dataset": "datasets", "JobItem": "jobs", "Request": "requests", "UserCode": "submitted functions",
    "ActionObject": "objects", "Project": "projects", "BlobStorageEntry": "large objects", "ExecutionOutput": "results",
    "CodeHistory": "histories of functions", "UserCodeStatusCollection": "states of functions",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A backup that fits a node. ``notes`` are those in the backup; ``loss`` is what going back to it would lose.

    ``needed`` is false for a Worker that has an identity: it keeps nothing else.
    """

    id: str
    notes: dict[str, Any]
    loss: str = ""
    needed: bool = True
    known: list[dict[str, Any]] = field(default_factory=list)


class Restore:
    """Restoring one node of this host.

    Args:
        home: of the grid.
        name: of the node.
        kind: of the node.
        release: that the node is to have.
    """

    def __init__(self, home: Home, name: str, kind: str, release: str) -> None:
        self._home, self._node, self._kind, self._release = home, home.node(name), kind, release
        self._folder = BackupFolder(self._node)
        plan = self._folder.plan()
        if plan is None:
            raise PygridError(f"{name} is not set up for backups on this host")
        self._plan: Plan = plan
        self._restic = Restic(home, self._folder, plan)

    # -- before anything is changed ----------------------------------------------------------------------

    def check(self, wanted: str, overwrite: bool) -> Found:
        """Find the backup and see whether it may take the place of what is here.

        Args:
            wanted: ``latest``, or the beginning of an id.
            overwrite: newer data may be lost.

        Raises:
            PygridError: it may not; with the reason and what to do.
        """
        pending = read_pending(self._node)
        if self._kind == "worker":
            if pending is None and self._node.identity.exists():
                return self._check_worker()
            wanted = "latest"  # its Domain's backup is meant
        if (pending.backup if pending else wanted).startswith(KEPT):
            return self._check_kept(pending.backup if pending else wanted, pending is not None or overwrite)
        known = self._restic.snapshots()
        entry = self._choose(known, pending.backup if pending else wanted)
        listed = [{"id": other["id"][:8], "time": other["time"][:19]} for other in known[-SHOWN:]]
        notes = json.loads(self._restic.file(entry["id"], NOTES))
        self._check_fit(notes)
        found = Found(entry["id"][:8], notes, known=listed)
        if pending is not None:  # it was decided, and is not done yet
            return found
        self._check_state()
        loss = self._loss(found)
        self._refuse(found.id, notes, "" if overwrite else loss)
        self._check_space(notes)
        return Found(found.id, notes, loss, known=listed)

    def _check_worker(self) -> Found:
        """A Worker that has an identity is left as it is: it keeps nothing else."""
        notes = {
            "uid": (read_json(self._node.identity) or {}).get("uid"),
            "taken_at": time.time(),
            "syft_version": (self._node.active_release() or "").partition("-")[0],
            "host": os.uname().nodename,
            "snapshot": None,
        }
        return Found("", notes, needed=False)

    def _check_kept(self, name: str, overwrite: bool) -> Found:
        """What an earlier restore has kept on this host may come back as well."""
        there = {kept["name"]: kept for kept in snapshot(self._node, self._node.python, "list")}
        if name not in there:
            raise PygridError(f"{self._node.name} has no snapshot {name}; it has {', '.join(there) or 'none'}")
        notes = {
            "uid": (read_json(self._node.identity) or {}).get("uid"),
            "taken_at": there[name]["taken_at"],
            "syft_version": (self._node.active_release() or "").partition("-")[0],
            "host": os.uname().nodename,
            "snapshot": there[name],
        }
        self._check_state()
        loss = in_words(snapshot(self._node, self._node.python, "compare", name))
        self._refuse(name, notes, "" if overwrite else loss)
        return Found(name, notes, loss)

    def _refuse(self, what: str, notes: dict[str, Any], loss: str) -> None:
        if loss:
            raise PygridError(
                f"{self._node.name} has newer data than its backup {what} of {moment(notes['taken_at'])}: {loss}."
                " Nothing was changed. To lose that, run with -e pygrid_restore_overwrite=true; what is here now is"
                " kept as a snapshot then"
            )

    def _choose(self, known: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
        place = self._plan.repository
        if not known:
            raise PygridError(f"there is no backup of {self._node.name} in {place}")
        if wanted == "latest":
            return known[-1]
        fitting = [entry for entry in known if entry["id"].startswith(wanted)]
        if len(fitting) != 1:
            there = ", ".join(f"{entry['id'][:8]} ({entry['time'][:19]})" for entry in known[-SHOWN:])
            raise PygridError(
                f"{place} has {len(fitting) or 'no'} backups {wanted} of {self._node.name}; it has {there}"
            )
        return fitting[0]

    def _check_fit(self, notes: dict[str, Any]) -> None:
        """Whether the backup is one of this kind of node, and for a release that can read it."""
        if notes["schema"] != SCHEMA:
            raise PygridError(f"the backup was made by another version of the collection (schema {notes['schema']})")
        if notes["kind"] != self._kind:
            raise PygridError(f"the backup is of a {notes['kind']}, and {self._node.name} is a {self._kind}")
        ours, theirs = self._release.partition("-")[0], notes["syft_version"]
        if version_tuple(ours) < version_tuple(theirs):
            raise PygridError(
                f"the backup is of syft {theirs}, which {ours} cannot read; set pygrid_version to {theirs} or newer"
            )

    def _check_state(self) -> None:
        state = FormerState(self._node)
        former = state.read()
        if state.is_on_trial or (former is not None and former.going_back):
            raise PygridError(
                f"an upgrade of {self._node.name} was cut off; end it (upgrade.yml), or take it back (rollback.yml)"
            )

    def _loss(self, found: Found) -> str:
        """What is here and not in the backup, in words; empty when nothing is."""
        present = read_json(self._node.identity)
        if present and present.get("uid") != found.notes["uid"]:
            return f"it is another node now, with the id {present.get('uid')} instead of {found.notes['uid']}"
        if self._kind == "worker" or not has_data(self._node):
            return ""
        if not (self._node.settings.exists() and self._node.active_release()):
            return "its data of a former deploy, which cannot be compared before the node is deployed again"
        try:
            return in_words(self._compare(found))
        except PygridError as error:
            return f"its data, which cannot be compared ({error})"

    def _compare(self, found: Found) -> dict[str, Any]:
        """Let the runtime compare. Of the blobs it looks at the names only, so empty files will do."""
        name = f"{COMPARED}{found.id}"
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as files:
            for path in ("manifest.json", "rows.json.gz"):
                _add(files, path, self._restic.file(found.id, path))
            for blob in self._restic.names(found.id, "blobs"):
                _add(files, f"blobs/{blob}", b"")
        archive.seek(0)
        if (self._node.state / "snapshots" / name).exists():
            snapshot(self._node, self._node.python, "delete", name)
        self._unpack(archive, name)
        try:
            return snapshot(self._node, self._node.python, "compare", name)
        finally:
            snapshot(self._node, self._node.python, "delete", name)

    def _check_space(self, notes: dict[str, Any]) -> None:
        taken = notes["snapshot"] or {}
        # The database is there twice for a while: as it comes from the backup, and as it is put back.
        needed = 2 * taken.get("database_bytes", 0) + taken.get("blob_bytes", 0)
        free = shutil.disk_usage(nearest_existing(self._node.state)).free
        if needed > free:
            raise PygridError(
                f"the backup needs {needed >> 20} MB in {self._node.state}, and {free >> 20} MB are free; make room"
            )

    # -- the decision ------------------------------------------------------------------------------------

    def decide(self, found: Found) -> None:
        """Bring the backup to this host, and from now on let the node start with nothing else."""
        if not found.needed:
            return
        make_node_folders(self._node)
        if found.id.startswith(KEPT):
            self._note(found, found.id)
            return
        name = None
        if self._kind != "worker":
            name = f"{FETCHED}{found.id}"
            self._make_state_folder()
            self._fetch(found.id, name)
        self._note(found, name)
        self._put_identity_back(found)
        # Whoever else had the repository locked is the host that is lost.
        self._restic.own()

    def _note(self, found: Found, name: str | None) -> None:
        """The decision itself, unless a run that was killed has taken it."""
        if read_pending(self._node) is None:
            kept = f"{KEPT}{int(time.time())}" if name and has_data(self._node) else None
            pending = PendingRestore(found.id, name, kept, found.notes["taken_at"], time.time())
            write_atomic(self._node.restore, to_json(asdict(pending)))

    def _make_state_folder(self) -> None:
        """Where the node's data lie; in scope system systemd finds it as it would have made it."""
        if self._home.scope == "user":
            return
        SYSTEM_STATE.mkdir(mode=0o755, exist_ok=True)
        if not self._node.state.is_dir():
            draft = SYSTEM_STATE / f".{self._node.name}.new"
            draft.mkdir(mode=0o700, exist_ok=True)
            account = pwd.getpwnam(account_name(self._node.name))
            os.chown(draft, account.pw_uid, account.pw_gid)
            draft.rename(self._node.state)

    def _fetch(self, backup: str, name: str) -> None:
        if (self._node.state / "snapshots" / name).is_dir():
            return
        with self._restic.stream("dump", "--no-lock", backup, "/") as archive:
            self._unpack(archive, name)

    def _unpack(self, archive: IO[bytes], name: str) -> None:
        """Make an archive a snapshot of the node's, written by the account that owns its data; all of it or nothing."""
        script = (
            "umask 077; mkdir -p snapshots; cd snapshots; rm -rf .$1.part; mkdir .$1.part; mkdir .$1.part/blobs;"
            f" tar -x -f - -C .$1.part --no-same-permissions --anchored --exclude={NODE} --exclude=./{NODE};"
            " sync -f .$1.part; mv -T .$1.part $1"
        )
        owner = self._node.state.stat()
        folder = open_below(self._node.state)

        def become_owner() -> None:
            os.fchdir(folder)
            if os.geteuid() == 0 and owner.st_uid != 0:
                os.setgroups([owner.st_gid])
                os.setgid(owner.st_gid)
                os.setuid(owner.st_uid)

        try:
            with subprocess.Popen(
                ["/bin/sh", "-euc", script, "sh", name],
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=become_owner,
                pass_fds=(folder,),
            ) as process:
                to_it, from_it = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stderr)
                # When it has ended early it says why.
                with contextlib.suppress(BrokenPipeError):
                    shutil.copyfileobj(archive, to_it, 1 << 20)
                with contextlib.suppress(BrokenPipeError):
                    to_it.close()
                said = from_it.read().decode(errors="replace")
        finally:
            os.close(folder)
        if process.returncode != 0:
            raise PygridError(f"{self._node.name}: the backup cannot be unpacked: {' '.join(said.split())[-300:]}")

    def _put_identity_back(self, found: Found) -> None:
        """The identity last: with it, and the decision, a deploy makes the rest."""
        text = self._restic.file(found.id, f"{NODE}/{self._node.identity.name}").decode()
        if self._node.identity.exists():
            present = self._node.identity.read_text(encoding="utf-8")
            if json.loads(present)["uid"] != found.notes["uid"]:
                write_atomic(self._folder.root / f"identity-{int(time.time())}.json", present)
        write_if_different(self._node.identity, text)
        if self._kind == "domain" and not self._node.workers.exists():
            allowed = self._restic.file(found.id, f"{NODE}/{self._node.workers.name}").decode()
            write_atomic(self._node.workers, allowed)


def has_data(node: NodePaths) -> bool:
    return node.data.is_dir() and any(node.data.iterdir())


def _add(files: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), 0o600
    files.addfile(entry, io.BytesIO(content))


def in_words(difference: dict[str, Any]) -> str:
    """``2 jobs, 1 users would be lost; 1 datasets would be as they were``; empty without a difference."""
    parts = []
    for what, ending in (("lost", "would be lost"), ("changed", "would be as they were")):
        counted = [f"{number} {WORDS.get(table, table)}" for table, number in sorted(difference[what].items())]
        if counted:
            parts.append(f"{', '.join(counted)} {ending}")
    if difference["blobs"]:
        parts.append(f"{difference['blobs']} files of large objects would be lost")
    return "; ".join(parts)


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
