# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who did what: no line is lost or mixed up, whoever writes at the same time, is killed, or fills the file."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import record as module
from ansible_collections.openmined.pygrid.plugins.module_utils.lease import give_lease_back, hold_lease, host_record
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.record import Record, last_change, runs


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "state" / "changes.jsonl")


def test_a_run_is_noted_once_at_its_beginning_and_once_at_its_end(record: Record) -> None:
    assert record.begin("one", "deploy", who="ann")
    assert not record.begin("one", "deploy", who="ann"), "another host of the same run"
    assert record.end("one", "deploy", "done", changes={"net": ["settings"]})
    assert not record.end("one", "deploy", "failed")
    assert record.begin("one", "deploy", who="ann"), "the same verb once more in the same run"
    (first, second) = runs(record.entries())
    assert (first["result"], first["changes"], first["who"]) == ("done", {"net": ["settings"]}, "ann")
    assert (second["result"], second["ended_at"]) == (None, None)


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    for mode, folder in ((0o600, 0o700), (0o640, 0o750)):
        record = Record(tmp_path / f"{mode:o}" / "changes.jsonl", mode)
        record.begin("one", "deploy")
        assert (tmp_path / f"{mode:o}" / "changes.jsonl").stat().st_mode & 0o777 == mode
        assert (tmp_path / f"{mode:o}").stat().st_mode & 0o777 == folder


def test_the_end_of_what_never_began_makes_no_file(tmp_path: Path) -> None:
    assert not Record(tmp_path / "gone" / "changes.jsonl").end("one", "remove", "done")
    assert not (tmp_path / "gone").exists()


def test_a_line_that_was_cut_off_spoils_no_other(record: Record, tmp_path: Path) -> None:
    record.begin("one", "deploy")
    file = tmp_path / "state" / "changes.jsonl"
    with file.open("a") as stream:
        stream.write('{"at": "2025-01-01T00:00:00Z", "event": "beg')
    record.end("one", "deploy", "done")
    assert [entry["event"] for entry in record.entries()] == ["began", "ended"]


def write(path: Path, writer: int) -> None:
    record = Record(path)
    for number in range(40):
        record.begin(f"{writer}-{number}", "deploy", filler="x" * 5000)
        record.end(f"{writer}-{number}", "deploy", "done")


def write_once(path: Path) -> None:
    for number in range(60):
        Record(path).begin(str(number), "deploy")


def test_hosts_of_one_run_note_it_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_once, args=(tmp_path / "changes.jsonl",)) for _number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    runs_noted = [entry["run"] for entry in Record(tmp_path / "changes.jsonl").entries()]
    assert sorted(runs_noted, key=int) == [str(number) for number in range(60)]


def test_writers_at_the_same_time_and_a_file_that_is_cut_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENTRIES_KEPT", 50)
    monkeypatch.setattr(module, "ENTRIES_OVER", 5)
    path = tmp_path / "changes.jsonl"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write, args=(path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    lines = path.read_text().splitlines()
    assert 50 <= len(lines) <= 55
    assert {json.loads(line)["event"] for line in lines} == {"began", "ended"}
    ends = {entry["run"] for entry in Record(path).entries() if entry["event"] == "ended"}
    assert {f"{writer}-39" for writer in range(4)} & ends, "the latest lines are those that stay"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_change_is_not_a_run_that_changed_nothing(record: Record) -> None:
    assert last_change(record.entries()) is None
    record.begin("one", "upgrade", who="ann", wanted="0.9.5")
    record.end("one", "upgrade", "done", changes={"net": ["release"]})
    for run, result, changes in (("two", "done", {}), ("three", "refused", None)):
        record.begin(run, "deploy", who="bob")
        record.end(run, "deploy", result, changes=changes)
    last = last_change(record.entries())
    assert last is not None
    assert (last["verb"], last["who"], last["ago_seconds"] < 5) == ("upgrade", "ann", True)
    record.begin("four", "deploy", who="eve")
    last = last_change(record.entries())
    assert last is not None
    assert (last["who"], last["result"]) == ("eve", None)


class TestOnAHost:
    def test_the_next_run_tells_the_end_of_one_that_did_not(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "grid")
        hold_lease(home, "one", "ann@here", "upgrade", 0)
        known = {"run": "two", "verb": "restore", "result": "failed", "message": "Restore alice on alice", "seconds": 7}
        hold_lease(home, "two", "bob@here", "restore", 0)
        hold_lease(home, "three", "eve@here", "deploy", 60, ends=[known])
        found = runs(host_record(home).entries())
        assert [(run["verb"], run["result"]) for run in found] == [
            ("upgrade", "cut off or failed"),
            ("restore", "failed"),
            ("deploy", None),
        ]
        assert found[0]["message"] == "seen when restore by bob@here began"
        assert (found[1]["message"], found[1]["seconds"]) == ("Restore alice on alice", 7)

    def test_to_take_it_again_is_no_new_beginning(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "grid")
        hold_lease(home, "one", "ann@here", "upgrade", 60)
        hold_lease(home, "one", "ann@here", "upgrade", 60)
        give_lease_back(home, "one", "upgrade", message="", changes={})
        assert [entry["event"] for entry in host_record(home).entries()] == ["began", "ended"]

    def test_the_end_of_a_removal_makes_no_grid_again(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "grid")
        assert not give_lease_back(home, "one", "remove")
        assert not home.root.exists()
