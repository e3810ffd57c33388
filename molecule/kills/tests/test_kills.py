# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A first deploy to a server, then one that changes it: killed at each task, one further each time (docs/kills.md)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.hospital import HOST, assert_whole, name_urls
from tests.support.sweep import sweep

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

pytestmark = pytest.mark.timeout(0)

NO_BUNDLE = ("-e", "pygrid_bundle=")
HEADER = """\
# Killed deploys to servers

Written by `make scenario S=kills`: deploys of a whole grid (Network, two Domains with PostgreSQL, two Workers) to one
server are killed (SIGKILL to `ansible-playbook` and all its children) at the start of a task, and run again until they
come to a task that no run before has come to; there they are killed again. No identity ever changes, and after the last
run everything is as after an undisturbed one: all nodes ready, both Domains joined, nothing left behind, 0 changes by
one more run.

"""


def killed_at(grid: Intranet, record: Path, *arguments: str) -> list[str]:
    """Deploy, killed at every new task; returns at which. Identities must never change."""
    known: dict[str, str] = {}

    def same_identities(task: str) -> None:
        now = identities(grid)
        assert known.items() <= now.items(), f"an identity changed after {task}"
        known.update(now)

    return sweep(grid, record, "deploy", *NO_BUNDLE, *arguments, after_each=same_identities)


def identities(grid: Intranet) -> dict[str, str]:
    """Node -> checksum of its identity, of those that have one."""
    sums = grid.must(HOST, "sha256sum /etc/pygrid/nodes/*/identity.json 2>/dev/null || true").splitlines()
    return {line.split("/")[-2]: line.split()[0] for line in sums}


def test_every_task_of_a_first_deploy_and_of_a_change(grid: Intranet, checkout: Path, tmp_path: Path) -> None:
    name_urls(grid)
    started = time.monotonic()
    first = killed_at(grid, tmp_path / "first")
    assert_whole(grid, 30)
    assert grid.must_play("deploy", *NO_BUNDLE).changed == 0
    change = ("-e", "pygrid_log_level=DEBUG", "-e", "pygrid_network_client_certificates=true")
    second = killed_at(grid, tmp_path / "second", *change)
    assert_whole(grid, 30)
    assert grid.must_play("deploy", *NO_BUNDLE, *change).changed == 0
    minutes = (time.monotonic() - started) / 60
    assert len(first) > 60
    report = f"{len(first)} kills of a first deploy and {len(second)} of one that changed settings and certificates,"
    rows = [
        f"\n## {title}\n\n" + "".join(f"- {task}\n" for task in tasks)
        for title, tasks in (
            ("The first deploy was killed at the start of", first),
            ("The change was killed at the start of", second),
        )
    ]
    text = f"{HEADER}{report}\nin {minutes:.0f} minutes on two processors; no difference was found.\n{''.join(rows)}"
    (checkout / "docs" / "kills.md").write_text(text)
