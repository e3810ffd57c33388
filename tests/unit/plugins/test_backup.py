# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups with a real restic: what goes in comes out, and what does not fit is refused."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import backup_program
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_engine import Restic
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_folder import (
    BackupFolder,
    Plan,
    Secrets,
    read_backup,
    sftp_place,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_restore import Restore, in_words
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_schedule import schedule_problem
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_take import Backup, open_below
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.lease import current_lease, hold_lease
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.pending_restore import read_pending
from ansible_collections.openmined.pygrid.plugins.plugin_utils.backup_password import (
    derived_password,
    ensure_password_file,
    read_password,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.backup_report import restore_left_out
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import backup_repository
from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import backup_problem

KEEP = {"last": 2, "daily": 1, "weekly": 0, "monthly": 0}
RELEASE = "0.9.5-0123456789ab"
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
needs_restic = pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed here")


def make_worker(root: Path, uid: str = "0" * 32, release: str = RELEASE) -> Home:
    """What a deploy leaves of a Worker, as far as backups look at it."""
    home = Home(root / "grid")
    node = home.node("w1")
    node.root.mkdir(parents=True)
    (home.releases / release).mkdir(parents=True)
    node.current.symlink_to(Path("../../releases") / release)
    node.identity.write_text(json.dumps({"uid": uid, "queue_secret_key": "secret"}))
    node.settings.write_text("{}")
    return home


def set_up(home: Home, place: Path, **more: Any) -> BackupFolder:
    folder = BackupFolder(home.node("w1"))
    plan = Plan(node="w1", kind="worker", repository=f"{place}/w1", keep=KEEP, **more)
    folder.write(plan, Secrets(password=derived_password("a long password", "w1")))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = make_worker(tmp_path)
    set_up(home, tmp_path / "place")
    return home


@needs_restic
def test_a_backup_is_noted_and_older_ones_are_forgotten(home: Home) -> None:
    results = [Backup(home, "w1").take() for _number in range(3)]
    assert results[-1].kept == 2
    assert results[0].read_back_files == 3
    known = read_backup(home.node("w1"))
    assert known is not None
    assert known["good"]["id"] == results[-1].id
    assert known["failed"] is None
    assert not (home.node("w1").backup / "backup-upload").exists()


@needs_restic
def test_what_restic_gives_back_is_compared_with_what_was_saved(home: Home) -> None:
    result = Backup(home, "w1").take()
    folder = BackupFolder(home.node("w1"))
    plan = folder.plan()
    assert plan is not None
    for size in (0, 1 << 40):
        with pytest.raises(PygridError, match=r"does not give back what was saved: node/identity.json"):
            Restic(home, folder, plan).read_back(result.id, {"node/identity.json": "0" * 64}, size)


@needs_restic
def test_a_repository_that_vanished_is_not_made_anew(home: Home, tmp_path: Path) -> None:
    Backup(home, "w1").take()
    (tmp_path / "place").rename(tmp_path / "elsewhere")
    with pytest.raises(PygridError, match="is gone, with all backups in it"):
        Backup(home, "w1").take()
    assert not (tmp_path / "place").exists()
    failed = BackupFolder(home.node("w1")).last()["failed"]
    assert "is gone" in failed["error"]


@needs_restic
def test_another_password_is_told(home: Home, tmp_path: Path) -> None:
    Backup(home, "w1").take()
    (home.node("w1").backup / "password").write_text("another")
    with pytest.raises(PygridError, match="was made with another password"):
        Backup(home, "w1").take()


@needs_restic
def test_an_identity_comes_back_on_an_empty_host(home: Home, tmp_path: Path) -> None:
    made = Backup(home, "w1").take()
    identity = home.node("w1").identity.read_text()
    shutil.rmtree(home.root)
    set_up(home, tmp_path / "place")
    restore = Restore(home, "w1", "worker", RELEASE)
    found = restore.check("latest", overwrite=False)
    assert (found.id, found.notes["syft_version"], found.loss) == (made.id, "0.9.5", "")
    for _again in range(2):
        restore.decide(found)
    assert home.node("w1").identity.read_text() == identity
    assert home.node("w1").identity.stat().st_mode & 0o777 == 0o600
    pending = read_pending(home.node("w1"))
    assert pending is not None
    assert (pending.backup, pending.snapshot) == (made.id, None)


def save_domain(home: Home, place: Path, folder: Path, **notes: Any) -> str:
    """A backup of a Domain as far as it is looked at before anything is brought; returns its id."""
    files = BackupFolder(home.node("alice"))
    plan = Plan(node="alice", kind="domain", repository=f"{place}/alice", keep=KEEP)
    files.write(plan, Secrets(password=derived_password("a long password", "alice")))
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "node").mkdir(parents=True)
    document = {"schema": 1, "node": "alice", "kind": "domain", "uid": "0" * 32, "taken_at": 0.0, "host": "lost"}
    document.update(release=RELEASE, syft_version="0.9.5", snapshot={"database_bytes": 1, "blob_bytes": 1})
    document.update(notes)
    (folder / "node" / "backup.json").write_text(json.dumps(document))
    restic = Restic(home, files, plan)
    if restic.repository_id() is None:
        restic.create()
    descriptor = os.open(folder, os.O_RDONLY)
    summary, _changed = restic.backup(descriptor)
    os.close(descriptor)
    return summary["snapshot_id"][:8]


@needs_restic
def test_what_does_not_fit_is_refused(home: Home, tmp_path: Path) -> None:
    first, second = (save_domain(home, tmp_path / "place", tmp_path / "saved") for _number in range(2))
    for kind, release, wanted, said in (
        ("network", RELEASE, "latest", "the backup is of a domain, and alice is a network"),
        ("domain", "0.9.3-0123456789ab", "latest", "set pygrid_version to 0.9.5 or newer"),
        ("domain", RELEASE, "zz", f"no backups zz of alice; it has {first}"),
    ):
        with pytest.raises(PygridError, match=said):
            Restore(home, "alice", kind, release).check(wanted, overwrite=True)
    restore = Restore(home, "alice", "domain", RELEASE)
    assert restore.check(first, overwrite=False).id == first
    assert restore.check("latest", overwrite=False).id == second
    home.node("alice").identity.write_text(json.dumps({"uid": "1" * 32}))
    with pytest.raises(PygridError, match="it is another node now"):
        restore.check(second, overwrite=False)
    assert restore.check(second, overwrite=True).loss != ""
    save_domain(home, tmp_path / "place", tmp_path / "saved", snapshot={"database_bytes": 1 << 60, "blob_bytes": 0})
    with pytest.raises(PygridError, match="are free; make room"):
        restore.check("latest", overwrite=True)


@needs_restic
def test_a_worker_that_is_still_itself_is_left_alone(home: Home) -> None:
    restore = Restore(home, "w1", "worker", RELEASE)
    found = restore.check("the id of its Domain's backup", overwrite=False)
    assert not found.needed
    restore.decide(found)
    assert read_pending(home.node("w1")) is None


def test_a_restore_wants_those_who_share_a_database() -> None:
    def node(name: str, domain: str | None = None, on: str | None = None) -> dict[str, Any]:
        return {"name": name, "domain": domain, "database": on and {"on": on}}

    grid = {"nodes": {"alice": node("alice", on="alice"), "bob": node("bob", on="alice"), "w": node("w", "alice")}}
    there = {"alice": {"__node_state": {"node": {"release": RELEASE}}}}
    lost = {"alice": {"__node_state": {"node": {"release": None}}}}
    [said] = restore_left_out(grid, there, ["alice"])
    assert said == "w is a Worker of alice and has to stop meanwhile; run with --limit alice,w"
    assert len(restore_left_out(grid, lost, ["alice"])) == 2
    assert restore_left_out(grid, lost, ["alice", "bob", "w"]) == []


@pytest.fixture
def program(home: Home) -> Path:
    backup_program.install(home)
    assert backup_program.is_installed(home)
    return home.tools / "backup" / "pygrid-backup.pyz"


def run_program(program: Path, home: Home) -> subprocess.CompletedProcess[str]:
    """With a Python that knows nothing of this checkout."""
    command = [sys.executable, "-I", str(program), "take", "user", str(home.root), "w1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")


@needs_restic
def test_the_packed_program_makes_the_same_backup(program: Path, home: Home) -> None:
    done = run_program(program, home)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stderr
    assert BackupFolder(home.node("w1")).last()["good"]["kept"] == 1
    assert current_lease(home) is None


@needs_restic
def test_the_program_waits_for_a_change_of_the_host(program: Path, home: Home) -> None:
    hold_lease(home, "somebody", "somebody", "upgrade", 4)
    began = time.monotonic()
    done = run_program(program, home)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began >= 4


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Be the parent of whoever loses its own, as this machine's first process may take its time to bury them."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@needs_restic
def test_a_killed_program_leaves_nothing_in_the_way(program: Path, home: Home, tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(program), "take", "user", str(home.root), "w1"]
    with adopting_orphans():
        process = subprocess.Popen(command, start_new_session=True)
        while not list((tmp_path / "place" / "w1" / "snapshots").glob("*")):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:  # restic, too: to another restic a zombie is alive, and so are its locks
                os.waitpid(-process.pid, 0)
    assert current_lease(home) is None, "its holder is dead"
    assert run_program(program, home).returncode == 0
    assert not list((tmp_path / "place" / "w1" / "locks").iterdir())


def test_a_new_node_is_not_backed_up_at_once(home: Home, tmp_path: Path) -> None:
    folder = set_up(home, tmp_path / "place", schedule="hourly")
    plan = folder.plan()
    assert plan is not None
    assert not backup_program.is_due(folder, plan)
    for age, due in ((100, False), (3700, True)):
        folder.note(good={"at": time.time() - age})
        assert backup_program.is_due(folder, plan) is due


def test_schedules_of_scope_user_are_words(home: Home) -> None:
    plan = Plan(node="w1", kind="worker", repository="/x/w1", keep=KEEP, schedule="*-*-* 02:30")
    assert "hourly, daily, weekly, monthly" in schedule_problem(home, plan)


def test_a_folder_is_not_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "node" / "elsewhere").mkdir(parents=True)
    (tmp_path / "node" / "snapshots").symlink_to("elsewhere")
    with pytest.raises(OSError, match="snapshots"):
        open_below(tmp_path / "node", "snapshots")
    os.close(open_below(tmp_path / "node", "elsewhere"))


@pytest.mark.parametrize(
    ("repository", "place"),
    [
        ("sftp:vault@store:/srv/alice", ("vault@store", 22)),
        ("sftp:store:alice", ("store", 22)),
        ("sftp://vault@store:2222//srv/alice", ("vault@store", 2222)),
        ("sftp://vault@store/srv/alice", ("vault@store", 22)),
    ],
)
def test_the_place_of_an_sftp_repository(repository: str, place: tuple[str, int]) -> None:
    assert sftp_place(repository) == place


@pytest.mark.parametrize(
    ("place", "repository"),
    [
        ("", None),
        ("/srv/backups/", "/srv/backups/alice"),
        ("sftp:vault@store:", "sftp:vault@store:alice"),
        ("s3:https://s3.example/bucket", "s3:https://s3.example/bucket/alice"),
    ],
)
def test_each_node_has_a_repository_of_its_own(place: str, repository: str | None) -> None:
    assert backup_repository(place, "alice") == repository


@pytest.fixture
def password_file(tmp_path: Path) -> Iterator[Path]:
    former = os.umask(0)
    yield tmp_path / "password"
    os.umask(former)


def test_the_password_is_made_once_and_for_nobody_else(password_file: Path) -> None:
    assert ensure_password_file(password_file)
    first = read_password(password_file)
    assert len(first) > 40
    assert not ensure_password_file(password_file)
    assert read_password(password_file) == first
    password_file.chmod(0o644)
    with pytest.raises(PygridError, match="chmod 600"):
        read_password(password_file)


def test_nodes_have_different_passwords() -> None:
    passwords = {derived_password("a long password", node) for node in ("alice", "bob")}
    assert len(passwords) == 2
    # What docs/backup.md tells people to type.
    assert derived_password("a", "alice") == "dc8aae91fea984776bfe20aab056c5e1e2f9b3a633e1ddbdb7c4ce1792dc5ed7"


def test_a_loss_in_words() -> None:
    assert in_words({"lost": {}, "changed": {}, "blobs": 0}) == ""
    said = in_words({"lost": {"JobItem": 2}, "changed": {"User": 1}, "blobs": 3})
    assert said == "2 jobs would be lost; 1 users would be as they were; 3 files of large objects would be lost"


def test_status_warns_of_failed_and_of_late_backups() -> None:
    good = {"at": 1000.0}
    known = {"repository": "/x", "schedule": "daily", "good": good, "failed": None}
    assert backup_problem(None, 48, 2000) == ""
    assert backup_problem(known, 48, 2000) == ""
    assert "its last backup is 2d 1h old" in backup_problem(known, 48, 1000 + 49 * 3600)
    assert backup_problem({**known, "schedule": ""}, 48, 1000 + 49 * 3600) == ""
    assert "failed, the last good one is 16m 40s old: disk" in backup_problem(
        {**known, "failed": {"at": 1, "error": "disk"}}, 48, 2000
    )
