# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what an upgrade costs those who use a node, beside what any restart of its process costs, and scaling.

    make bench-life                     needs the lab: docs/testing.md

A grid of a Network, a Domain and a Worker on one host goes from 0.9.2 to 0.9.5 while it is asked all the time. The
longest pause between two answers is printed as Markdown, beside that of a bare restart by systemd in the same run.
Then the Domain gets a second Worker on that host, where the release is staged, and the idle one goes again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests.benchmarks.servers import GRIDS, NAME, grid_of, surroundings  # noqa: E402 - the path is known only now
from tests.support.intranet import Intranet  # noqa: E402

OLD, NEW = "0.9.2", "0.9.5"
SCALINGS = 3
KINDS = {"net": "network", "alice": "domain"}
HOST = "h1"


def main() -> None:
    """Measure and print."""
    surroundings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = Intranet(NAME, folder / "grid.yml", folder / "pki")
        grid.lab.down()
        try:
            grid.lab.up([{"name": HOST}])
            inventory = grid_of(grid, GRIDS[1])
            inventory["pygrid"]["vars"]["pygrid_version"] = OLD
            grid.inventory.write_text(yaml.safe_dump(inventory))
            grid.must_play("deploy", timeout_seconds=3600)
            bare = pauses(grid, folder, lambda: restart(grid))
            upgrade = pauses(grid, folder, lambda: grid.must_play("upgrade", "-e", f"pygrid_version={NEW}"))
            inventory["pygrid"]["vars"]["pygrid_version"] = NEW
            grid.inventory.write_text(yaml.safe_dump(inventory))
            grid.more_inventory = [folder / "pygrid-scale.yml"]
            scalings = [(workers(grid, 2), workers(grid, 1)) for _number in range(SCALINGS)]
        finally:
            grid.lab.down()
    print("| node | longest pause by a bare restart (s) | by the upgrade (s) |\n|---|---|---|")
    for node in KINDS:
        print(f"| {node} | {bare[node]:.1f} | {upgrade[node]:.1f} |")
    print("\n| scaling | min (s) | median (s) | max (s) |\n|---|---|---|---|")
    for name, runs in zip(("one Worker more", "one idle Worker less"), zip(*scalings, strict=True), strict=True):
        print(f"| {name} | {min(runs):.1f} | {statistics.median(runs):.1f} | {max(runs):.1f} |")


def workers(grid: Intranet, number: int) -> float:
    """Seconds that scale.yml takes until the Domain has so many Workers and each of them takes jobs."""
    run = grid.must_play("scale", "-e", json.dumps({"pygrid_domain_workers": {"alice": number}}))
    assert run.changed, run.output[-3000:]
    return run.seconds


def restart(grid: Intranet) -> None:
    for node, kind in KINDS.items():
        grid.must(HOST, f"systemctl restart pygrid-{kind}@{node}")
        grid.wait_ready(HOST, node)


def pauses(grid: Intranet, folder: Path, deed: Callable[[], object]) -> dict[str, float]:
    """Seconds of the longest pause of each node during a deed; nothing that was asked may fail."""
    stop, hosts = folder / "stop", folder / "hosts"
    stop.unlink(missing_ok=True)
    urls = {node: f"https://{node}.bench.example" for node in KINDS}
    hosts.write_text("".join(f"{grid.address(HOST)} {node}.bench.example\n" for node in KINDS))
    program = [sys.executable, str(CHECKOUT / "tests" / "support" / "gaps.py"), str(grid.authority), str(stop)]
    # The names are known in a mount namespace of their own only.
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    command = grid.lab.inside("unshare", "--mount", "sh", "-c", script, "sh", *program, *urls.values())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        try:
            deed()
        finally:
            stop.touch()
        report = json.loads(process.stdout.read().splitlines()[-1])
    assert all(report[url]["failed"] == [] for url in urls.values()), report
    return {node: report[url]["longest_gap_seconds"] for node, url in urls.items()}


if __name__ == "__main__":
    main()
