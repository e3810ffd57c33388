# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch over peers goes on after an error nobody thought of, and ends at once (fault 6)."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("syft", reason="runs in the environment of a node: see tests/e2e/test_runtime_units.py")

from syft.service.network.utils import PeerHealthCheckTask

from pygrid_node.peers import PeerMonitor


class Moody:
    """A table of peers that cannot be read the first time: the database was away for a moment."""

    def __init__(self) -> None:
        self.reads = 0

    def get_all(self, _credentials: object) -> SimpleNamespace:
        self.reads += 1
        if self.reads == 1:
            raise OSError("the database is gone")
        return SimpleNamespace(unwrap=list)


def server_with(table: Moody) -> SimpleNamespace:
    return SimpleNamespace(services=SimpleNamespace(network=SimpleNamespace(stash=table)), verify_key=None)


def wait_for_reads(table: Moody, number: int) -> bool:
    end = time.monotonic() + 2
    while table.reads < number and time.monotonic() < end:
        time.sleep(0.02)
    return table.reads >= number


def test_the_watch_goes_on_after_an_error() -> None:
    table = Moody()
    monitor = PeerMonitor(server_with(table))
    monitor.start()
    try:
        assert wait_for_reads(table, 1)
        monitor.wake()
        assert wait_for_reads(table, 2)
    finally:
        begin = time.monotonic()
        monitor.stop()
        assert time.monotonic() - begin < 0.1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_stock_watch_does_not() -> None:
    """When this fails, upstream was mended and the cure may go."""
    table = Moody()
    task = PeerHealthCheckTask()
    task.repeat_time = 0.05
    task.run(SimpleNamespace(server=server_with(table)))
    assert not wait_for_reads(table, 2)
    assert task.thread is not None
    assert not task.thread.is_alive()
