# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was backed up comes back, newer data are not lost by accident, and a kill at any moment leaves no half of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.grid import LocalGrid, processes_below
from support.playbook import killing
from support.runtime import free_port, wait_for

# tests/e2e/test_grid.py has a sample of it.
pytestmark = pytest.mark.thorough

# Her Worker stops while she is restored.
ALICE = ("--limit", "alice,alice-w1")
OVERWRITE = ("-e", "pygrid_restore_overwrite=true")


class BackedUp(LocalGrid):
    """A grid of which alice, who has a Worker, and the Network are used."""

    @property
    def place(self) -> Path:
        return self.root / "backups"

    def must(self, playbook: str, *arguments: str) -> str:
        run = self.play(playbook, *arguments)
        assert run.returncode == 0, run.output
        return run.output

    def refused(self, playbook: str, *arguments: str) -> str:
        """Run a playbook that has to fail; returns its output on one line."""
        run = self.play(playbook, *arguments)
        assert run.returncode != 0, run.output
        return " ".join(run.output.split())

    def last(self, name: str) -> dict:
        return json.loads(self.node_file(name, "backup/last.json").read_text())

    def job(self, seconds: float = 0) -> str:
        return self.client("submit", "alice", seconds)["job"]

    def snapshots(self, name: str) -> list[str]:
        return sorted(entry.name for entry in self.node_file(name, "snapshots").iterdir())


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackedUp]:
    root = tmp_path_factory.mktemp("b")
    variables = {"pygrid_backup_repository": str(root / "backups"), "pygrid_backup_schedule": ""}
    grid = BackedUp(root, first_port=17600, variables=variables)
    try:
        grid.deploy("--limit", "net,alice,alice-w1")
        grid.client("seed", "alice")
        yield grid
    finally:
        grid.remove()


def test_back_to_what_was_backed_up(grid: BackedUp) -> None:
    summary = grid.must("backup", "--limit", "net,alice,alice-w1")
    password = (grid.root / "inventory" / ".pygrid" / "backup-password").read_text().strip()
    assert "keep a copy" in summary
    assert password not in summary
    assert grid.last("alice")["good"]["read_back_files"] >= 5
    assert grid.snapshots("alice") == []
    known = grid.client("fingerprint", "alice")
    assert grid.client("result", "alice", grid.job(), 60)["status"] == "completed"
    newer = grid.client("fingerprint", "alice")
    assert newer != known
    assert "alice-w1 is a Worker of alice and has to stop meanwhile" in grid.refused("restore", "--limit", "alice")
    reason = grid.refused("restore", *ALICE)
    assert "1 jobs" in reason
    assert "pygrid_restore_overwrite=true" in reason
    assert grid.client("fingerprint", "alice") == newer
    grid.must("restore", *ALICE, *OVERWRITE)
    assert grid.client("fingerprint", "alice") == known
    [kept] = grid.snapshots("alice")
    assert kept.startswith("before-restore-")
    assert grid.client("result", "alice", grid.job(), 60)["status"] == "completed"


def test_a_restore_is_undone_by_what_it_kept(grid: BackedUp) -> None:
    assert grid.client("result", "alice", grid.job(), 60)["status"] == "completed"
    newer = grid.client("fingerprint", "alice")
    grid.must("restore", *ALICE, *OVERWRITE)
    assert grid.client("fingerprint", "alice") != newer
    [kept] = grid.snapshots("alice")
    grid.must("restore", *ALICE, "-e", f"pygrid_backup_snapshot={kept}", *OVERWRITE)
    assert grid.client("fingerprint", "alice") == newer


def test_everything_is_lost_and_comes_back_with_the_job_that_ran(grid: BackedUp) -> None:
    done = grid.job()
    assert grid.client("result", "alice", done, 60)["status"] == "completed"
    running = grid.job(15)
    wait_for("the job runs", lambda: grid.get("alice", "/status")["jobs"].get("processing"), 30)
    grid.must("backup", "--limit", "net,alice,alice-w1")
    known = grid.client("fingerprint", "alice")
    identities = {name: grid.identity(name) for name in ("net", "alice", "alice-w1")}
    for pid in grid.processes():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(grid.home)
    grid.must("restore", "--limit", "net,alice,alice-w1")
    assert {name: grid.identity(name) for name in identities} == identities
    now = grid.client("fingerprint", "alice")
    assert {key: now[key] for key in ("id", "users", "datasets")} == {
        key: known[key] for key in ("id", "users", "datasets")
    }
    assert set(now["jobs"]) == set(known["jobs"])
    assert grid.client("result", "alice", running, 120)["status"] == "completed"
    assert grid.client("peers", "net") == {"alice": "ACTIVE"}
    again = grid.deploy("--limit", "net,alice,alice-w1")
    assert again.changed == 0, again.output


@pytest.mark.parametrize(
    "moment",
    [
        "end of: openmined.pygrid.backup : Find the backup",
        "end of: openmined.pygrid.backup : Bring the backup",
        "start of: openmined.pygrid.node : Run the node",
        "end of: openmined.pygrid.node : Run the node",
    ],
)
def test_a_restore_may_be_killed_and_run_again(grid: BackedUp, tmp_path: Path, moment: str) -> None:
    grid.must("backup", "--limit", "alice")
    known = grid.client("fingerprint", "alice")
    assert grid.client("result", "alice", grid.job(), 60)["status"] == "completed"
    killed = grid.play("restore", *ALICE, *OVERWRITE, environment=killing(tmp_path / "record", moment))
    assert killed.returncode == -signal.SIGKILL, killed.output
    grid.must("restore", *ALICE, *OVERWRITE)
    assert grid.client("fingerprint", "alice") == known
    assert all(name.startswith("before-restore-") for name in grid.snapshots("alice"))
    assert not grid.node_file("alice", "restore.json").exists()


def test_a_backup_may_be_killed_and_run_again(grid: BackedUp) -> None:
    for after in (0.4, 1.0, 2.0):
        program = [str(next(grid.home.glob("tools/supervisor-*/bin/python"))), str(packed(grid)), "take", "user"]
        process = subprocess.Popen([*program, str(grid.home), "alice"], start_new_session=True)
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    grid.must("backup", "--limit", "alice")
    assert grid.last("alice")["failed"] is None
    assert grid.snapshots("alice") == [name for name in grid.snapshots("alice") if name.startswith("before-restore-")]
    assert not list((grid.place / "alice" / "locks").iterdir())


def packed(grid: BackedUp) -> Path:
    """The program that scheduled backups run."""
    return grid.home / "tools" / "backup" / "pygrid-backup.pyz"


def test_the_schedule_makes_backups_by_itself_and_they_wait_for_a_change_of_the_host(grid: BackedUp) -> None:
    run = grid.play("backup", "--limit", "alice", "-e", "pygrid_backup_schedule=now and then")
    assert "hourly, daily, weekly, monthly" in " ".join(run.output.split())
    grid.must("backup", "--limit", "alice", "-e", "pygrid_backup_schedule=daily")
    good = grid.last("alice")["good"]
    file = grid.node_file("alice", "backup/last.json")
    file.write_text(json.dumps({**grid.last("alice"), "good": {**good, "at": time.time() - 90_000}}))
    wait_for("a backup by itself", lambda: grid.last("alice")["good"]["at"] > good["at"], 150)
    grid.must("backup", "--limit", "alice")
    assert not [command for command in grid.processes().values() if "pygrid-backup.pyz serve" in command]


def test_another_password_and_a_place_that_vanished_are_told_apart(grid: BackedUp, tmp_path: Path) -> None:
    other = tmp_path / "password"
    other.touch(0o600)
    other.write_text("another password of 32 characters")
    said = grid.refused("backup", "--limit", "alice", "-e", f"pygrid_backup_password_file={other}")
    assert "was made with another password" in said
    grid.place.rename(grid.root / "unmounted")
    try:
        said = grid.refused("backup", "--limit", "alice")
        assert "is gone, with all backups in it: is its disk mounted?" in said
        assert "is gone" in grid.last("alice")["failed"]["error"]
        assert not (grid.place / "alice" / "config").exists()
    finally:
        shutil.rmtree(grid.place, ignore_errors=True)
        (grid.root / "unmounted").rename(grid.place)
    missing = tmp_path / "no-password"
    said = grid.refused("restore", *ALICE, "-e", f"pygrid_backup_password_file={missing}")
    assert "the password of backups is not in" in said
    assert not missing.exists()


def test_a_damaged_repository_is_noticed(grid: BackedUp) -> None:
    grid.must("backup", "--limit", "alice")
    packs = [path for path in (grid.place / "alice" / "data").rglob("*") if path.is_file()]
    largest = max(packs, key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.chmod(0o600)
    largest.unlink()
    try:
        said = grid.refused("backup", "--limit", "alice")
        assert any(f"restic {verb}" in said for verb in ("check", "dump", "backup")), said[-1500:]
    finally:
        largest.write_bytes(content)
    grid.must("backup", "--limit", "alice")


def test_s3(grid: BackedUp, tmp_path: Path) -> None:
    port = free_port()
    program = Path(sys.executable).parent / "moto_server"
    with (tmp_path / "moto.log").open("w") as log:
        server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    store = {
        "pygrid_backup_repository": f"s3:http://127.0.0.1:{port}/vault/grid",
        "pygrid_backup_s3_access_key": "alice",
        "pygrid_backup_s3_secret_key": "a-secret-key-of-nobody",
    }
    words = (*ALICE, "-e", json.dumps(store))
    try:
        wait_for("moto", lambda: "Running on" in (tmp_path / "moto.log").read_text(), 30)
        output = grid.must("backup", *words, "-vvv")
        assert "a-secret-key-of-nobody" not in output.replace(json.dumps(store), "")
        known = grid.client("fingerprint", "alice")
        assert grid.client("result", "alice", grid.job(), 60)["status"] == "completed"
        grid.must("restore", *words, *OVERWRITE)
        assert grid.client("fingerprint", "alice") == known
    finally:
        server.kill()
        server.wait()
    assert not list(processes_below(str(grid.home / "cache" / "restic")))
