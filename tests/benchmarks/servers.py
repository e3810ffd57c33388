# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure deploys to servers: from bare hosts to healthy nodes, and with nothing to do, for 1, 4 and 8 hosts of a lab.

    make bench-servers                     needs the lab: docs/testing.md
    make bench-servers EXTRA="--hosts 4"

Prints Markdown. All hosts share the processors of this machine, which servers would not.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests.lab.prepare import why_not  # noqa: E402 - the path is known only now
from tests.support.intranet import Intranet  # noqa: E402

NAME = "bench"
NOOPS = 3
#: Number of hosts -> host -> its nodes. alice's host has PostgreSQL for everybody.
GRIDS = {
    1: {"h1": ["net", "alice", "alice-w1"]},
    4: {"h1": ["net"], "h2": ["alice"], "h3": ["bob"], "h4": ["alice-w1", "bob-w1"]},
    8: {
        "h1": ["net"],
        "h2": ["alice"],
        "h3": ["bob"],
        "h4": ["carol"],
        "h5": ["alice-w1"],
        "h6": ["bob-w1"],
        "h7": ["carol-w1"],
        "h8": ["alice-w2", "bob-w2"],
    },
}
TALLY = re.compile(r"^\S+ +: ok=(\d+) +changed=(\d+) .* skipped=(\d+)", re.MULTILINE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", choices=sorted(GRIDS), default=sorted(GRIDS))
    hosts = parser.parse_args().hosts
    surroundings()
    print("| hosts | nodes | bare to healthy (s) | no-op (s) | no-op: most tasks on a node | no-op (s per node) |")
    print("|---|---|---|---|---|---|", flush=True)
    for number in hosts:
        print(measure(GRIDS[number]), flush=True)


def surroundings() -> None:
    """Have what playbooks of the checkout need; ends where no lab can be."""
    if reason := why_not():
        sys.exit(f"no lab here: {reason}")
    tools = CHECKOUT / ".tools" / "test" / "bin"
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    os.environ["ANSIBLE_CONFIG"] = str(CHECKOUT / "ansible.cfg")


def measure(places: dict[str, list[str]]) -> str:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        inventory = Path(folder) / "grid.yml"
        grid = Intranet(NAME, inventory, Path(folder) / "pki")
        grid.lab.down()
        try:
            grid.lab.up({"name": host} for host in places)
            inventory.write_text(yaml.safe_dump(grid_of(grid, places)))
            first = grid.must_play("deploy", timeout_seconds=3600)
            idle = [grid.must_play("deploy") for _number in range(NOOPS)]
        finally:
            grid.lab.down()
    assert all(run.changed == 0 for run in idle), idle[-1].output[-3000:]
    nodes = sum(map(len, places.values()))
    seconds = sorted(run.seconds for run in idle)[NOOPS // 2]
    tasks = max(int(ok) for ok, _changed, _skipped in TALLY.findall(idle[-1].output))
    return f"| {len(places)} | {nodes} | {first.seconds:.0f} | {seconds:.1f} | {tasks} | {seconds / nodes:.1f} |"


def grid_of(grid: Intranet, places: dict[str, list[str]]) -> dict[str, Any]:
    """The inventory: names of Workers tell their Domain; nodes that share a host get ports of their own."""
    groups: dict[str, dict[str, Any]] = {"pygrid_network": {}, "pygrid_domain": {}, "pygrid_worker": {}}
    for host, nodes in places.items():
        common = {**grid.lab.variables()[host], "ansible_user": "operator", "ansible_become": True}
        for offset, node in enumerate(nodes):
            variables = {**common, "pygrid_database_host": "alice"}
            if "-" in node:
                variables |= {"pygrid_worker_domain": node.partition("-")[0], "pygrid_worker_port": 5600 + offset}
                groups["pygrid_worker"][node] = variables
                continue
            kind = "network" if node == "net" else "domain"
            if len(nodes) > 1:  # they share the port of the ingress, and are told apart by name
                variables[f"pygrid_{kind}_url"] = f"https://{node}.bench.example"
                line = f"{grid.address(host)} {node}.bench.example"
                grid.must(host, "cat >> /etc/hosts", text=f"{line}\n")
            groups[f"pygrid_{kind}"][node] = variables
    common = {"pygrid_scope": "system", "pygrid_pki_directory": str(grid.pki)}
    return {"pygrid": {"vars": common, "children": {group: {"hosts": hosts} for group, hosts in groups.items()}}}


if __name__ == "__main__":
    main()
