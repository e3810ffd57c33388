# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Domain on trial lets nobody in, runs nobody's job, and proves that its Workers work without a trace."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.runtime import Node, make_domain, make_worker, syft_python, wait_for

CLIENT = Path(__file__).parents[1] / "support" / "grid_client.py"
#: What nodes write by themselves all the time.
PASSING = ("WorkerPool", "SyftWorker", "ServerPeer", "pygrid_attempts")


class Grid:
    """A Domain and a Worker with two slots."""

    def __init__(self, root: Path) -> None:
        self.domain = make_domain(root)
        self.trial = self.domain.folder / "trial.json"
        self.domain.settings["trial_file"] = str(self.trial)
        self.domain.write("settings.json", self.domain.settings)
        self.worker = make_worker(root, self.domain, "alice-w1", processes=2)
        self.slots = ["alice-w1", "alice-w1-2"]

    def put_on_trial(self, seconds: float = 300) -> None:
        self.trial.write_text(json.dumps({"seconds": seconds}))

    def ready(self) -> dict[str, Any]:
        return self.domain.control("/healthz/ready", method="GET")

    def wait_ready(self) -> dict[str, Any]:
        def ready() -> dict[str, Any]:
            answer = self.ready()
            return answer if answer.get("status") == "ready" else {}

        return wait_for("the Domain is ready", ready, 120)

    def probe(self, *workers: str, seconds: float = 60) -> list[dict[str, Any]]:
        return self.domain.control("/control/probe", {"workers": workers, "seconds": seconds})["results"]

    def client(self, command: str, *words: str) -> dict[str, Any]:
        url, identity = f"http://127.0.0.1:{self.domain.port}", self.domain.folder / "identity.json"
        done = subprocess.run(
            [syft_python(), CLIENT, command, url, identity, *words],
            capture_output=True, text=True, check=True, env={"PATH": os.defpath, "HOME": str(self.domain.folder)},
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    def known(self) -> dict[str, set[Any]]:
        """Every row, and every blob."""
        with closing(sqlite3.connect(self.domain.folder / "data" / "node.db")) as database:
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            rows = {
                name: set(database.execute(f'select * from "{name}"'))  # noqa: S608 - a name from the database itself
                for name in tables
                if name not in PASSING
            }
        return {**rows, "blobs": {path.name for path in (self.domain.folder / "data" / "blobs").iterdir()}}

    def new_since(self, before: dict[str, set[Any]]) -> dict[str, set[Any]]:
        """What has changed: table, or "blobs", to the rows that came or went."""
        changed = {name: rows ^ before.get(name, set()) for name, rows in self.known().items()}
        return {name: rows for name, rows in changed.items() if rows}


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    grid = Grid(tmp_path)
    yield grid
    for node in (grid.worker, grid.domain):
        node.stop()


def running(node: Node) -> Node:
    node.start()
    return node


def test_a_trial(grid: Grid) -> None:
    running(grid.domain)
    running(grid.worker)
    grid.wait_ready()
    grid.client("seed")
    waiting = grid.client("submit", "0")["job"] if grid.worker.stop() == 0 else ""
    grid.domain.stop()
    grid.put_on_trial()
    running(grid.domain)
    assert grid.wait_ready()["trial"]
    before = grid.known()
    failed = grid.probe(*grid.slots, seconds=1)
    assert [result["problem"] for result in failed] == ["it is not connected"] * 2
    assert grid.new_since(before) == {}

    running(grid.worker)
    results = grid.probe(*grid.slots)
    assert [result["worker"] for result in results] == grid.slots
    assert [result["problem"] for result in results] == ["", ""], results
    assert grid.new_since(before) == {}, "a probe leaves nothing behind, and nobody's job ran"

    answers: list[dict[str, Any]] = []
    client = threading.Thread(target=lambda: answers.append(grid.client("result", waiting, "60")))
    client.start()
    client.join(3)
    assert client.is_alive(), "whom the node does not let in yet waits"
    grid.trial.unlink()
    grid.domain.control("/control/trial/end")
    client.join(60)
    assert answers[0]["status"] == "completed"
    assert not grid.ready()["trial"]
    assert [result["problem"] for result in grid.probe(*grid.slots)] == ["", ""], "not only on trial"


def test_a_probe_that_was_cut_off_leaves_nothing_either(grid: Grid) -> None:
    running(grid.domain)
    grid.wait_ready()
    running(grid.worker)
    wait_for("the Worker is there", lambda: len(grid.ready()["workers"]["names"]) == 2, 60)
    before = grid.known()
    grid.worker.process.send_signal(signal.SIGSTOP)

    def probe() -> None:
        with contextlib.suppress(http.client.HTTPException, OSError):
            grid.probe(*grid.slots, seconds=30)

    prober = threading.Thread(target=probe)
    prober.start()
    wait_for("a probe job is stored", lambda: "JobItem" in grid.new_since(before), 20)
    grid.domain.stop(signal.SIGKILL)
    prober.join(10)
    grid.worker.process.send_signal(signal.SIGCONT)
    running(grid.domain)
    grid.wait_ready()
    assert grid.new_since(before) == {}


def test_a_trial_that_nobody_ends_ends_by_itself(grid: Grid) -> None:
    grid.put_on_trial(8)
    running(grid.domain)
    grid.wait_ready()
    wait_for("the trial is over", lambda: grid.domain.get().get("trial") is False, 30)
    assert "nobody ended the trial" in grid.domain.log()
