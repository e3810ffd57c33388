# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker that runs several jobs at a time: who its slots are, what it shows of them, and their jobs' processes."""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path

import pytest

pytest.importorskip("syft", reason="runs in the environment of a node: see tests/e2e/test_runtime_units.py")

from prometheus_client import generate_latest

from pygrid_node.database import LOST_EXIT_CODE
from pygrid_node.job_process import JobLauncher
from pygrid_node.slots import slot_name, slot_uid
from pygrid_node.worker_state import SlotState, WorkerState, metrics_of


def test_slots_are_the_same_after_every_start_and_different_from_each_other() -> None:
    uid = uuid.uuid4().hex
    uids = [slot_uid(uid, number) for number in range(1, 65)]
    assert uids[0] == uid
    assert uids == [slot_uid(uid, number) for number in range(1, 65)]
    assert len(set(uids)) == 64
    assert {uuid.UUID(value).version for value in uids} == {4}
    assert {uuid.UUID(value).variant for value in uids} == {uuid.RFC_4122}
    assert slot_uid(uuid.uuid4().hex, 2) != uids[1]
    assert [slot_name("alice-w1", number) for number in (1, 2, 3)] == ["alice-w1", "alice-w1-2", "alice-w1-3"]


def test_what_a_worker_shows_of_its_slots() -> None:
    slots = [SlotState(slot_name("w", number), str(number), attached=True) for number in (1, 2, 3)]
    state = WorkerState(slots, problem="", database_problem="")
    assert (state.ready()["state"], state.reasons) == ("idle", [])
    slots[1].begin("b" * 32, "train")
    assert (state.name, state.job, state.summary()) == ("busy", "b" * 32, "busy, 1 of 3 busy")
    assert [slot["job"] for slot in state.status()["slots"]] == [None, "b" * 32, None]
    assert state.status()["task"] == "train"
    page = generate_latest(metrics_of(state)).decode()
    assert 'pygrid_worker_slots{state="idle"} 2.0' in page
    assert f'pygrid_worker_task_seconds{{job="{"b" * 32}",task="train",worker="w-2"}}' in page
    slots[1].end("completed")
    slots[2].attached = False
    assert state.status()["jobs"]["completed"] == 1
    assert state.reasons == ["the domain's queue does not answer"]
    state.database_problem = "database: connection refused"
    assert state.reasons == ["database: connection refused"]
    assert state.ready()["database"] == {"reachable": False}


def a_job(payload: bytes) -> None:
    seconds, code = payload.decode().split()
    time.sleep(float(seconds))
    if int(code):
        os._exit(int(code))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_launchers_run_side_by_side_and_end_one_by_one() -> None:
    launchers: list[JobLauncher] = []
    for _unused in range(3):
        launchers.append(JobLauncher(a_job, launchers))
    texts: list[str] = []

    def run(launcher: JobLauncher) -> None:
        texts.append(launcher.run(b"0.5 0", lambda: False).text)

    threads = [threading.Thread(target=run, args=(launcher,)) for launcher in launchers]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["", "", ""]
    assert time.monotonic() - begin < 1.2
    first, *others = launchers
    first.close()  # a descriptor of it in another launcher would let this wait for ever
    assert not Path(f"/proc/{first.pid}").exists()
    failed = others[0].run(b"0 3", lambda: False)
    assert (failed.text, failed.lost) == ("the job's process ended with exit code 3", False)
    assert others[1].run(f"0 {LOST_EXIT_CODE}".encode(), lambda: False).lost
    for launcher in others:
        launcher.close()
