# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure how long it takes in a cloud until there are more Workers, and fewer.

    make bench-clouds                   needs the lab: docs/testing.md

The cloud is moto with hands: machines are hosts of the lab that boot in some seconds, and all of them share this
machine's processors. From the command to the end of a first job that the new Workers have done; prints Markdown.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests.benchmarks.run import say  # noqa: E402 - the path is known only now
from tests.benchmarks.servers import surroundings  # noqa: E402
from tests.support.aws_grid import Grid  # noqa: E402
from tests.support.cloud_grid import give_back  # noqa: E402

NAME = "bench-clouds"
MACHINES = [
    {"role": "network", "size": "t3.medium"},
    {"role": "domain", "name": "alice", "size": "t3.large"},
    {"role": "worker", "domain": "alice", "size": "t3.medium"},
]
MANY = 10


def main() -> None:
    """Measure and print."""
    surroundings()
    give_back(NAME)
    grid = Grid(NAME, MACHINES)
    rows: list[tuple[str, float]] = []
    try:
        rows.append(("provision: a Network, a Domain, a Worker", play(grid, "provision")))
        rows.append(("deploy on these machines", play(grid, "deploy")))
        rows.append(("one Worker more, from a bare machine", workers(grid, 2)))
        rows.append(("one idle Worker less", workers(grid, 1)))
        rows.append(("an image", play(grid, "image")))
        rows.append(("one Worker more, from the image", workers(grid, 2)))
        rows.append(("one idle Worker less", workers(grid, 1)))
        rows.append((f"{MANY} Workers more, from the image", workers(grid, 1 + MANY)))
        rows.append((f"{MANY} idle Workers less", workers(grid, 1)))
        rows.append(("scale, when nothing is to do", workers(grid, 1)))
    finally:
        give_back(NAME)
    print("| in a cloud | s |\n|---|---|")
    print("\n".join(f"| {name} | {seconds:.0f} |" for name, seconds in rows))


def play(grid: Grid, playbook: str, *arguments: str) -> float:
    say(f"{playbook} {' '.join(arguments)}")
    return grid.must_play(playbook, *arguments, timeout_seconds=3600).seconds


def workers(grid: Grid, number: int) -> float:
    """Seconds until alice has so many Workers, and each of those that came has done a job."""
    before = set(grid.machines())
    began = time.monotonic()
    play(grid, "scale", "-e", json.dumps({"pygrid_domain_workers": {"alice": number}}))
    grid.probe("alice", *sorted(set(grid.machines()) - before))
    return time.monotonic() - began


if __name__ == "__main__":
    main()
