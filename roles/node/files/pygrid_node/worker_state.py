# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker shows of itself: state, current job, counters; for health, status and metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

STATES = ("connecting", "idle", "busy", "draining")


@dataclass
class WorkerState:
    """Shared by the threads of a worker.

    Attributes:
        problem: why the worker cannot take jobs now, "" when it can.
        attached: whether the domain's queue answers.
        draining: no further job is taken.
        job: id (hex) of the running job, "" when there is none.
        task: name of the function it runs.
    """

    problem: str = "starting"
    database_reachable: bool = False
    attached: bool = False
    draining: bool = False
    job: str = ""
    task: str = ""
    started_at: float = 0.0
    outcomes: dict[str, int] = field(default_factory=lambda: {"completed": 0, "errored": 0, "interrupted": 0})
    busy_seconds_total: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, job: str, task: str) -> None:
        with self._lock:
            self.job, self.task, self.started_at = job, task, time.monotonic()

    def end(self, status: str) -> None:
        with self._lock:
            self.busy_seconds_total += time.monotonic() - self.started_at
            self.job, self.task = "", ""
            self.outcomes[status] = self.outcomes.get(status, 0) + 1

    @property
    def name(self) -> str:
        """One of STATES."""
        if self.draining:
            return "draining"
        if self.job:
            return "busy"
        return "idle" if self.attached else "connecting"

    @property
    def busy_seconds(self) -> float:
        return round(time.monotonic() - self.started_at, 1) if self.job else 0.0

    def ready(self) -> dict[str, Any]:
        """The worker's part of /healthz/ready."""
        reasons = [self.problem] if self.problem else []
        if not self.problem and not self.attached:
            reasons = ["the domain's queue does not answer"]
        return {
            "reasons": reasons,
            "database": {"reachable": self.database_reachable},
            "attached": self.attached,
            "state": self.name,
        }

    def status(self) -> dict[str, Any]:
        """The worker's part of /status."""
        with self._lock:
            return {
                "job": self.job or None,
                "task": self.task or None,
                "busy_seconds": self.busy_seconds,
                "jobs": dict(self.outcomes),
            }


class _WorkerCollector:
    def __init__(self, state: WorkerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state
        shown = GaugeMetricFamily("pygrid_worker_state", "1 for the worker's present state.", labels=["state"])
        for name in STATES:
            shown.add_metric([name], float(state.name == name))
        yield shown
        yield GaugeMetricFamily("pygrid_worker_attached", "1 if the domain's queue answers.", float(state.attached))
        done = CounterMetricFamily("pygrid_worker_jobs", "Jobs this process has ended.", labels=["status"])
        for status, number in sorted(state.outcomes.items()):
            done.add_metric([status], number)
        yield done
        yield CounterMetricFamily("pygrid_worker_busy_seconds", "Seconds spent on jobs.", state.busy_seconds_total)
        task = GaugeMetricFamily("pygrid_worker_task_seconds", "Age of the running job.", labels=["task", "job"])
        if state.job:
            task.add_metric([state.task, state.job], state.busy_seconds)
        yield task


def metrics_of(state: WorkerState) -> CollectorRegistry:
    """A registry with the worker's and its process's metrics."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="pygrid", registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_WorkerCollector(state))  # type: ignore[arg-type]
    return registry
