# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault in the middle of every verb; run again, it ends as if nothing had happened (docs/faults_by_verb.md)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils.files import write_atomic
from tests.support.inside import People
from tests.support.playbook import Run, killing
from tests.support.sweep import sweep

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

pytestmark = pytest.mark.timeout(0)

OLD, NEW = "0.9.2", "0.9.5"
HOSTS = {"net": "net", "alice": "alice", "alice-w1": "work"}
# How long the network of the host that a verb works on is away.
CUT_SECONDS = 45
HEADER = """\
# Faults by verb

Written by `make scenario S=faults`. A grid on four servers (Network, a Domain with PostgreSQL, its Worker, a machine to
spare) is hurt in the middle of each verb; then the same command is run again, and once more. It has to end well, the
last run has to change nothing, all nodes have to be ready, and what the Domain knows (its id, users, datasets with
their bytes, jobs and their results) has to be what it was before.

A cell says how long the run after the fault took, and what the run with the fault said.

"""


@dataclass(frozen=True)
class Verb:
    """A verb as it is run here.

    ``words``: of its command. ``moment``: the task in whose middle its host is hurt. ``undo``: what has to be run so
    that it has something to do again. ``version`` and ``workers``: of the grid afterwards.
    """

    name: str
    words: tuple[str, ...]
    moment: str
    undo: tuple[str, ...] = ()
    version: str = OLD
    workers: int = 1

    @property
    def is_repeated(self) -> bool:
        """Whether it does its work each time, as a backup does."""
        return self.name in ("backup", "restore")


def workers(number: int) -> tuple[str, ...]:
    return ("scale", "-e", json.dumps({"pygrid_domain_workers": {"alice": number}}))


VERBS = (
    Verb("backup", ("backup",), "Set up the backup of the node"),
    Verb(
        "restore",
        ("restore", "--limit", "alice,alice-w1", "-e", "pygrid_restore_overwrite=true"),
        "Bring the backup to the host",
        ("backup",),
    ),
    Verb("scale out", workers(2), "Run the node", workers(1), workers=2),
    Verb("scale in", workers(1), "Drain and remove the Worker", workers(2)),
    Verb(
        "upgrade",
        ("upgrade", "-e", f"pygrid_version={NEW}"),
        "Run the node",
        ("rollback", "-e", "pygrid_confirm=true"),
        version=NEW,
    ),
    Verb(
        "rollback",
        ("rollback", "-e", "pygrid_confirm=true"),
        "Return the Network and the Domains to their former release and data",
        ("upgrade", "-e", f"pygrid_version={NEW}"),
    ),
)


class Sweep:
    """The grid, what it knew, and the table."""

    def __init__(self, grid: Intranet, people: People, folder: Path, document: Path) -> None:
        self.grid, self._people, self.folder, self._document = grid, people, folder, document
        self._known = self.known(OLD)
        self._cells = self.read()

    def known(self, version: str) -> dict[str, Any]:
        self._people.use(version)
        return self._people("fingerprint", "alice")

    def undo(self, verb: Verb) -> None:
        """Have a grid on which the verb has something to do."""
        if verb.undo:
            self.grid.must_play(*verb.undo)

    def in_the_middle(self, verb: Verb, fault: Callable[[], None]) -> Run:
        """Run the verb; when its moment has come, let the fault happen. Returns how that run ended."""
        record, log = self.folder / "moments", self.folder / "run.log"
        record.unlink(missing_ok=True)
        environment = {**killing(record, 0), "ANSIBLE_TIMEOUT": "20"}
        with log.open("w") as output:
            process = subprocess.Popen(
                self.grid.command(*verb.words), env=self.grid.surroundings(environment),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
            began = time.monotonic()
            while f" : {verb.moment}\n" not in (record.read_text() if record.exists() else ""):
                assert process.poll() is None, f"{verb.name} never came to {verb.moment}: {log.read_text()[-3000:]}"
                time.sleep(0.2)
            time.sleep(1.5)  # in its middle
            fault()
            code = process.wait(1800)
        return Run(code, log.read_text(), time.monotonic() - began)

    def whole(self, verb: Verb, fault: str, said: str = "") -> None:
        """Run the verb again, insist that nothing is lost, and note it."""
        again = self.grid.must_play(*verb.words, timeout_seconds=1800)
        if not verb.is_repeated:
            idle = self.grid.must_play(*verb.words)
            assert idle.changed == 0, idle.output[-3000:]
        for node, host in HOSTS.items():
            self.grid.wait_ready(host, node)
            assert self.grid.status(host, node)["syft_version"] == verb.version
        assert len(self.grid.status("alice", "alice")["workers"]) == verb.workers
        assert self.known(verb.version) == self._known, f"{verb.name}, {fault}: something was lost"
        self._cells[verb.name, fault] = f"{again.seconds:.0f} s{f'; {said}' if said else ''}"
        self.write()

    def read(self) -> dict[tuple[str, str], str]:
        """The cells of the table as it is: it takes hours, so that one may do one verb at a time."""
        lines = self._document.read_text().splitlines() if self._document.exists() else []
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
        names = rows[0][1:] if rows else []
        return {(name, row[0]): cell for row in rows[1:] for name, cell in zip(names, row[1:], strict=True) if cell}

    def write(self) -> None:
        """The table as far as it goes, after each cell, so that a long run can be watched."""
        names = [verb.name for verb in VERBS]
        faults = list(dict.fromkeys(fault for _name, fault in self._cells))
        rows = [f"| fault | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for fault in faults:
            rows.append(f"| {fault} | {' | '.join(self._cells.get((name, fault), '') for name in names)} |")
        write_atomic(self._document, HEADER + "\n".join(rows) + "\n", 0o644)


def reason(run: Run) -> str:
    """What a run that failed said first, as the cell of a table."""
    if run.returncode == 0:
        return "the run ended well"
    lines = [line.strip() for line in run.output.splitlines()]
    errors = [line.partition("]: ")[2] for line in lines if line.startswith("[ERROR]: ")]
    assert errors, run.output[-3000:]
    return f"`{errors[0][:160].replace('`', chr(39)).replace('|', '/')}`"


@pytest.fixture(scope="module")
def grid_sweep(grid: Intranet, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    kept = checkout / ".cache" / "lab" / f"scale-{grid.lab.name}" / "pygrid-scale.yml"
    kept.parent.mkdir(exist_ok=True)
    grid.more_inventory = [kept]
    for node, host in HOSTS.items():
        grid.wait_ready(host, node)
    # Verbs may be tried one at a time, in any order.
    if grid.status("alice", "alice")["syft_version"] == NEW:
        grid.must_play("rollback", "-e", "pygrid_confirm=true")
    grid.must_play(*workers(1))
    people = People(grid, "work", OLD, ("alice",))
    if not people("fingerprint", "alice")["datasets"]:
        people("seed", "alice")
    job = people("submit", "alice", "0")["job"]
    assert people("result", "alice", job, "60")["status"] == "completed"
    yield Sweep(grid, people, tmp_path_factory.mktemp("faults"), checkout / "docs" / "faults_by_verb.md")
    people.leave()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
class TestFaults:
    """In the order of the table."""

    def test_the_controller_is_killed_at_every_task(self, grid_sweep: Sweep, verb: Verb, tmp_path: Path) -> None:
        grid_sweep.undo(verb)
        kills = sweep(grid_sweep.grid, tmp_path / "record", *verb.words)
        assert len(kills) > 5, kills
        grid_sweep.whole(verb, "controller killed (SIGKILL) at every task in turn", f"{len(kills)} kills")

    def test_the_host_loses_power(self, grid_sweep: Sweep, verb: Verb) -> None:
        grid_sweep.undo(verb)
        run = grid_sweep.in_the_middle(verb, lambda: grid_sweep.grid.lab.kill(["alice"]))
        grid_sweep.grid.lab.boot(["alice"])
        grid_sweep.grid.wait_ready("alice", "alice", 180)
        grid_sweep.whole(verb, "power of the Domain's host cut", reason(run))

    def test_the_network_is_cut(self, grid_sweep: Sweep, verb: Verb) -> None:
        lab = grid_sweep.grid.lab

        def cut() -> None:
            lab.plug(["alice"], False)
            time.sleep(CUT_SECONDS)
            lab.plug(["alice"], True)

        grid_sweep.undo(verb)
        run = grid_sweep.in_the_middle(verb, cut)
        grid_sweep.whole(verb, f"network of the Domain's host cut for {CUT_SECONDS} s", reason(run))

    def test_the_disk_is_full(self, grid_sweep: Sweep, verb: Verb) -> None:
        grid_sweep.undo(verb)
        disk = grid_sweep.grid.lab.machine("alice")
        try:
            run = grid_sweep.in_the_middle(verb, lambda: disk.free_space(0))
        finally:
            disk.free_space(None)
        grid_sweep.whole(verb, "disk of the Domain's host full", reason(run))

    def test_two_runs_start_at_once(self, grid_sweep: Sweep, verb: Verb) -> None:
        seconds: list[Run] = []
        grid_sweep.undo(verb)
        first = grid_sweep.in_the_middle(verb, lambda: seconds.append(grid_sweep.grid.play(*verb.words)))
        assert first.returncode == 0, first.output[-3000:]
        assert seconds[0].returncode != 0
        assert "Another run is at work" in seconds[0].output
        grid_sweep.whole(verb, "a second run while the first is at work", reason(seconds[0]))

    def test_the_clock_jumps(self, grid_sweep: Sweep, verb: Verb) -> None:
        clock = grid_sweep.grid.lab.machine("alice")
        grid_sweep.undo(verb)
        try:
            run = grid_sweep.in_the_middle(verb, lambda: clock.set_clock(86_400))
        finally:
            clock.set_clock(0)
        grid_sweep.whole(verb, "clock of the Domain's host jumps a day ahead", reason(run))
