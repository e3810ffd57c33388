# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure deploys: the first one against a bare shell script, side by side, and one that has nothing to do.

    make bench                       three pairs, five no-op deploys
    make bench EXTRA="--pairs 5"

Prints Markdown. Both sides use the same lock, the same warm package cache, the same runtime and the same five nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "collections")]

from support.grid import LocalGrid  # noqa: E402 - the path is known only now
from support.playbook import killing  # noqa: E402

UV = CHECKOUT / ".tools" / "deploy" / "bin" / "uv"
RUNTIME = CHECKOUT / "roles" / "node" / "files" / "pygrid_node"
NODES = ("net", "alice", "bob", "alice-w1", "bob-w1")


def main() -> None:
    """Measure, in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="first deploys, each beside a bare script")
    parser.add_argument("--noops", type=int, default=5, help="deploys that have nothing to do")
    arguments = parser.parse_args()
    os.environ["UV_CACHE_DIR"] = str(CHECKOUT / ".cache" / "uv")
    os.environ["PATH"] = f"{CHECKOUT / '.tools' / 'deploy' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["ANSIBLE_CONFIG"] = str(CHECKOUT / "ansible.cfg")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # On the disk of the package cache, so that both sides can link from it.
    (CHECKOUT / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKOUT / ".cache", prefix="bench-") as folder:
        measure(Path(folder), arguments.pairs, arguments.noops)


def measure(folder: Path, pairs: int, noops: int) -> None:
    grid = LocalGrid(folder / "g", first_port=17500)
    try:
        say("warming the package cache")
        grid.deploy()
        template = Bare(grid, folder / "bare")
        firsts, bares, details, steps = [], [], [], []
        for number in range(1, pairs + 1):
            grid.remove()
            say(f"pair {number} of {pairs}: bare script")
            seconds, parts = template.run()
            bares.append(seconds)
            details.append(parts)
            say(f"pair {number} of {pairs}: first deploy")
            record = folder / "record"
            record.unlink(missing_ok=True)
            run = grid.play("deploy", environment=killing(record, 0))
            assert run.returncode == 0, run.output
            firsts.append(run.seconds)
            steps.append(durations(record))
        say("no-op deploys")
        idle = []
        for _number in range(noops):
            record.unlink(missing_ok=True)
            run = grid.play("deploy", environment=killing(record, 0))
            assert run.returncode == 0, run.output
            assert run.changed == 0, run.output
            idle.append(run.seconds)
        tasks = sum("end of:" in line for line in record.read_text().splitlines())
        say("one Worker more, one less")
        out, back = [], []
        for _number in range(pairs):
            out.append(scaled(grid, 2))
            back.append(scaled(grid, 1))
        report(firsts, bares, details, steps, idle, tasks, {"one Worker more": out, "one idle Worker less": back})
    finally:
        grid.remove()


def scaled(grid: LocalGrid, number: int) -> float:
    """Seconds until alice has that many Workers."""
    run = grid.play("scale", "-e", json.dumps({"pygrid_domain_workers": {"alice": number}}))
    assert run.returncode == 0, run.output
    return run.seconds


class Bare:
    """The bare script with the settings and identities of a deployed grid, and fresh data for each run."""

    def __init__(self, grid: LocalGrid, folder: Path) -> None:
        self._folder, self._template = folder, folder.with_name("template")
        release = Path(grid.node_file("net", "current")).resolve()
        self._python = json.loads((release / "manifest.json").read_text())["python"]["path"]
        self._lock = folder.with_name("requirements.txt")
        shutil.copy(release / "requirements.txt", self._lock)
        for name in NODES:
            node = self._template / name
            node.mkdir(parents=True)
            for file in ("settings.json", "identity.json", "workers.json"):
                source = grid.node_file(name, file)
                if source.exists():
                    text = source.read_text().replace(str(grid.home), str(folder))
                    (node / file).write_text(text)
                    (node / file).chmod(0o600)

    def run(self) -> tuple[float, dict[str, float]]:
        """Seconds of one run, whole and by part."""
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._template, self._folder / "nodes")
        started = time.time()
        try:
            output = subprocess.run(
                [Path(__file__).with_name("bare.sh"), UV, self._python, self._lock, RUNTIME, self._folder],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=600,
            ).stdout
        finally:
            for file in self._folder.glob("nodes/*/pid"):
                os.killpg(int(file.read_text()), signal.SIGKILL)
        marks = [("", started)] + [(line.split()[0], float(line.split()[1])) for line in output.splitlines()]
        parts = {name: end - begin for (_name, begin), (name, end) in pairwise(marks)}
        shutil.rmtree(self._folder)
        return marks[-1][1] - started, parts


def durations(record: Path) -> dict[str, float]:
    """Seconds from the start of each task to the start of the next."""
    starts = []
    for line in record.read_text().splitlines():
        moment, _tab, what = line.partition("\t")
        if what.startswith("start of: "):
            starts.append((what.removeprefix("start of: "), float(moment)))
    found: dict[str, float] = {}
    for (name, begin), (_name, end) in pairwise(starts):
        found[name] = found.get(name, 0) + end - begin
    return found


def report(
    firsts: list[float],
    bares: list[float],
    details: list[dict[str, float]],
    steps: list[dict[str, float]],
    idle: list[float],
    tasks: int,
    scaling: dict[str, list[float]],
) -> None:
    ratios = [first / bare for first, bare in zip(firsts, bares, strict=True)]
    print("\n| | min (s) | median (s) | max (s) |\n|---|---|---|---|")
    for name, values in (("bare script", bares), ("first deploy", firsts), ("no-op deploy", idle), *scaling.items()):
        print(f"| {name} | {min(values):.1f} | {statistics.median(values):.1f} | {max(values):.1f} |")
    print(f"\nFirst deploy / bare script, pair by pair: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(
        f"No-op deploy: {tasks} task results, {tasks / len(NODES):.1f} and {median(idle) / len(NODES):.2f} s per node"
    )
    print("\n| part of the bare script | median (s) |\n|---|---|")
    for name in details[0]:
        print(f"| {name} | {median([part[name] for part in details]):.1f} |")
    print("\n| task of the first deploy, longer than 0.3 s | median (s) |\n|---|---|")
    for name in steps[0]:
        seconds = median([step.get(name, 0.0) for step in steps])
        if seconds > 0.3:
            print(f"| {name.rpartition(' : ')[2]} | {seconds:.1f} |")


median: Callable[[list[float]], float] = statistics.median


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
