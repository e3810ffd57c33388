# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bare host without internet becomes a grid, by runs that are killed, and nothing ever tries to leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.hospital import assert_whole

if TYPE_CHECKING:
    from .conftest import Hospital


def test_the_killed_runs_left_a_whole_grid(hospital: Hospital) -> None:
    assert_whole(hospital.grid)


def test_the_second_run_changed_nothing(hospital: Hospital) -> None:
    first, second = hospital.runs
    assert first.changed > 0
    assert second.changed == 0


def test_a_job_runs(hospital: Hospital) -> None:
    expected = hospital.client("seed", "alice")["sum"]
    job = hospital.client("submit", "alice", "1")["job"]
    assert hospital.client("result", "alice", job, "60") == {"status": "completed", "value": expected}


def test_not_one_packet_tried_to_leave(hospital: Hospital) -> None:
    assert hospital.grid.lab.leaked() == {"hospital": 0}
    # The counter counts: one that does try is seen.
    hospital.grid.run("hospital", "timeout 3 bash -c 'exec 3<>/dev/tcp/192.0.2.1/80'")
    assert hospital.grid.lab.leaked()["hospital"] > 0
