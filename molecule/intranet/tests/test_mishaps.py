# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of the mishaps that molecule/mishaps tries in full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.mishaps import PLACES, Watch, pid_of

if TYPE_CHECKING:
    from tests.support.intranet import Intranet


@pytest.fixture(scope="module")
def owner(grid: Intranet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("owners")
    return {"alice": grid.identity("alice", folder)}


def test_processes_are_killed_and_a_host_is_rebooted_during_a_job(grid: Intranet, owner: dict[str, Path]) -> None:
    watch = Watch(grid, owner, [])
    job = watch.submit("alice", 10)
    for node in ("net", "alice-w1"):
        grid.must(PLACES[node], f"kill -9 {pid_of(grid, node)}")
    grid.lab.reboot(["alice"])
    assert watch.result("alice", job, 180)["status"] == "completed"
    watch.whole("a Network and a Worker killed, a Domain's host rebooted")
