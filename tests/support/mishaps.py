# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hurting a grid on the lab's four hosts, and seeing that it is whole again with all that it had."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.support.intranet import Intranet

PLACES = {"net": "net", "alice": "alice", "bob": "bob", "alice-w1": "workers", "bob-w1": "workers"}
KINDS = {"net": "network", "alice": "domain", "bob": "domain", "alice-w1": "worker", "bob-w1": "worker"}


class Watch:
    """What a Domain had before a mishap, and how long the grid takes to be whole again."""

    def __init__(self, grid: Intranet, owner: dict[str, Path], rows: list[str]) -> None:
        self.grid, self.owner, self.rows = grid, owner, rows
        self.before = {domain: self.fingerprint(domain) for domain in owner}
        self.started = time.monotonic()

    def fingerprint(self, domain: str) -> dict[str, Any]:
        seen = self.grid.client("fingerprint", self.grid.url(domain), self.owner[domain])
        ended = {job: status for job, status in seen.pop("jobs").items() if status == "completed"}
        return {**seen, "jobs": ended}

    def hurt(self) -> None:
        self.started = time.monotonic()

    def whole(self, mishap: str, seen: str = "", seconds: float = 180) -> None:
        """Wait until every node is ready, and compare."""
        for node, host in PLACES.items():
            self.grid.wait_ready(host, node, seconds)
        took = time.monotonic() - self.started
        for domain, before in self.before.items():
            after = self.fingerprint(domain)
            assert before["jobs"].items() <= after["jobs"].items(), f"{domain} lost jobs"
            assert {**before, "jobs": None} == {**after, "jobs": None}
        self.rows.append(f"| {mishap} | {took:.0f} | {seen or 'nothing lost'} |")

    def submit(self, domain: str, seconds: float) -> str:
        """Start a job and return once it runs."""
        job = self.grid.client("submit", self.grid.url(domain), self.owner[domain], str(seconds))["job"]
        end = time.monotonic() + 60
        while self.grid.status(domain, domain)["jobs"].get("processing", 0) < 1:
            assert time.monotonic() < end, f"job {job} does not start"
            time.sleep(0.3)
        return job

    def result(self, domain: str, job: str, seconds: float = 120) -> dict[str, Any]:
        return self.grid.client(
            "result", self.grid.url(domain), self.owner[domain], job, str(seconds), seconds=seconds + 60
        )


def pid_of(grid: Intranet, node: str) -> str:
    return grid.must(PLACES[node], f"systemctl show -p MainPID --value pygrid-{KINDS[node]}@{node}")
