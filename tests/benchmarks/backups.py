# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure backup and restore of a Domain with large blobs beside restic alone on the same files.

    make bench-backups                             500 MB
    make bench-backups EXTRA="--megabytes 2000"

Prints Markdown. Both sides write to a folder on the same disk and encrypt with the same restic. A backup is more than
writing: it is read back and the repository is checked; so restic alone is measured with a check of all its data, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "collections")]

from tests.benchmarks.run import durations, say  # noqa: E402 - the path is known only now
from tests.support.grid import LocalGrid  # noqa: E402
from tests.support.playbook import killing  # noqa: E402

BLOB_MB = 10
NODES = ("--limit", "net,alice,alice-w1")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500, help="size of the Domain's blobs")
    arguments = parser.parse_args()
    if shutil.which("restic") is None:
        sys.exit("restic is not installed here: apt install restic")
    os.environ.setdefault("UV_CACHE_DIR", str(CHECKOUT / ".cache" / "uv"))
    os.environ["PATH"] = f"{CHECKOUT / '.tools' / 'deploy' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["ANSIBLE_CONFIG"] = str(CHECKOUT / "ansible.cfg")
    (CHECKOUT / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKOUT / ".cache", prefix="bench-") as folder:
        measure(Path(folder), arguments.megabytes)


def measure(folder: Path, megabytes: int) -> None:
    place = folder / "place"
    variables = {"pygrid_backup_repository": str(place), "pygrid_backup_schedule": ""}
    grid = LocalGrid(folder / "g", first_port=17550, variables=variables)
    try:
        say("deploying")
        grid.deploy(*NODES)
        blobs = grid.node_file("alice", "data/blobs")
        for _number in range(megabytes // BLOB_MB):
            (blobs / uuid.uuid4().hex).write_bytes(os.urandom(BLOB_MB * 1_000_000))
        rows = [*raw(blobs, folder), *ours(grid, folder)]
    finally:
        grid.remove()
    print(f"\n| {megabytes} MB of blobs | s | MB/s |\n|---|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.1f} | {megabytes / seconds:.0f} |")


def raw(blobs: Path, folder: Path) -> list[tuple[str, float]]:
    """restic alone."""
    environment = {
        "PATH": os.environ["PATH"],
        "RESTIC_REPOSITORY": str(folder / "raw"),
        "RESTIC_PASSWORD": "x" * 32,
        "RESTIC_CACHE_DIR": str(folder / "raw-cache"),
    }

    def restic(*words: str) -> Callable[[], None]:
        def run() -> None:
            subprocess.run(["restic", "--quiet", *words], env=environment, cwd=blobs, check=True, timeout=3600)

        return run

    say("restic alone")
    return [
        ("restic alone: init and first backup", timed(restic("init"), restic("backup", "."))),
        ("restic alone: check of all data", timed(restic("check", "--read-data"))),
        ("restic alone: backup, nothing new", timed(restic("backup", "."))),
        ("restic alone: restore", timed(restic("restore", "latest", "--target", str(folder / "restored")))),
    ]


def ours(grid: LocalGrid, folder: Path) -> list[tuple[str, float]]:
    """The playbooks; of the restore, the tasks that bring the backup and put it in the place of what is there."""
    last = grid.node_file("alice", "backup/last.json")
    rows = []
    for name in ("first backup, verified", "backup, nothing new, verified"):
        say(name)
        run = grid.play("backup", "--limit", "alice")
        assert run.returncode == 0, run.output
        rows.append((f"alice: {name}", json.loads(last.read_text())["good"]["seconds"]))
    say("restore")
    record = folder / "record"
    run = grid.play("restore", "--limit", "alice,alice-w1", environment=killing(record, 0))
    assert run.returncode == 0, run.output
    steps = durations(record)
    rows += [
        ("alice: restore, from the repository to her host", sum(s for name, s in steps.items() if "Bring" in name)),
        ("alice: restore, the whole playbook", run.seconds),
    ]
    return rows


def timed(*actions: Callable[[], None]) -> float:
    started = time.monotonic()
    for action in actions:
        action()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
