# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Domain goes back to what it knew: users, datasets with their bytes, jobs with their results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.postgresql import PASSWORD, Postgresql, binaries
from support.runtime import Node, make_domain, make_worker, run_node, syft_python

pytestmark = pytest.mark.thorough

CLIENT = Path(__file__).parents[1] / "support" / "grid_client.py"


class Grid:
    """A Domain and its Worker."""

    def __init__(self, root: Path, postgresql: Postgresql | None) -> None:
        self.domain, self._postgresql = make_domain(root), postgresql
        self.worker = make_worker(root, self.domain, "alice-w1")
        if postgresql is not None:
            postgresql.make_database("alice")
            postgresql.make_member("alice-w1", "alice")
            for node, user in ((self.domain, "alice"), (self.worker, "alice-w1")):
                file = node.folder / "database.url"
                file.touch(0o600)
                file.write_text(postgresql.url(user, "alice"))
                node.settings.update(
                    database_url=None, database_url_file=str(file), database_tls=True,
                    trust_file=str(postgresql.authority),
                )  # fmt: skip
                node.write("settings.json", node.settings)

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.domain, self.worker

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()

    def stop(self) -> None:
        for node in reversed(self.nodes):
            if node.process is not None:
                node.stop(signal.SIGTERM)

    def client(self, command: str, *words: str) -> dict[str, Any]:
        url, identity = f"http://127.0.0.1:{self.domain.port}", self.domain.folder / "identity.json"
        done = subprocess.run(
            [syft_python(), CLIENT, command, url, identity, *words],
            capture_output=True, text=True, check=True, env={"PATH": os.defpath, "HOME": str(self.domain.folder)},
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    def snapshot(self, action: str, *words: str) -> Any:
        return json.loads(run_node("snapshot", action, self.domain.folder / "settings.json", *words).stdout)


@pytest.fixture(params=["sqlite", "postgresql"])
def grid(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Grid]:
    if request.param == "postgresql" and binaries() is None:
        pytest.skip("no PostgreSQL server is installed here")
    postgresql = Postgresql() if request.param == "postgresql" else None
    grid = Grid(tmp_path, postgresql)
    try:
        grid.start()
        yield grid
    finally:
        for node in grid.nodes:
            if node.process is not None:
                node.stop(signal.SIGKILL)
        if postgresql is not None:
            postgresql.close()


def test_back_to_what_it_knew(grid: Grid) -> None:
    grid.client("seed")
    first = grid.client("submit", "0")["job"]
    assert grid.client("result", first, "60")["status"] == "completed"
    known = grid.client("fingerprint")
    manifest = grid.snapshot("take", "before")  # while it runs
    assert (manifest["rows"]["Dataset"], manifest["rows"]["JobItem"]) == (1, 1)
    second = grid.client("submit", "0")["job"]
    assert grid.client("result", second, "60")["status"] == "completed"
    assert grid.client("big_job", "60")["same"]
    assert grid.client("fingerprint") != known
    grid.stop()
    difference = grid.snapshot("compare", "before")
    assert difference["lost"]["JobItem"] == 2
    assert difference["blobs"] >= 1
    for _again in range(2):
        grid.snapshot("restore", "before")
    assert grid.snapshot("compare", "before") == {"lost": {}, "changed": {}, "blobs": 0}
    grid.start()
    assert grid.client("fingerprint") == known
    assert grid.client("result", first, "60") == {"status": "completed", "value": 45.0}
    assert grid.client("big_job", "60")["same"]
    left = [path.name for path in grid.domain.folder.rglob("*") if ".pgpass" in path.name or ".restored" in path.name]
    assert left == []


@pytest.mark.parametrize("grid", ["postgresql"], indirect=True)
def test_the_password_is_not_shown(grid: Grid) -> None:
    address = grid.domain.folder / "database.url"
    address.write_text(address.read_text().replace("/alice", "/nowhere"))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        grid.snapshot("take", "before")
    assert "the database nowhere" in failed.value.stderr
    assert PASSWORD not in failed.value.stderr
