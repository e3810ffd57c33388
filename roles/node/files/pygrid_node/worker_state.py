# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker shows of itself: state, current jobs, counters; for health, status and metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

STATES = ("connecting", "idle", "busy", "draining")


@dataclass
class SlotState:
    """One slot's, shared by the threads of a worker.

    Attributes:
        name: under which it is registered.
        uid: its uid (hex).
        attached: whether the domain's queue answers.
        draining: no further job is taken.
        job: id (hex) of the running job, "" when there is none.
        task: name of the function it runs.
    """

    name: str
    uid: str
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
    def state(self) -> str:
        """One of STATES."""
        if self.draining:
            return "draining"
        if self.job:
            return "busy"
        return "idle" if self.attached else "connecting"

    @property
    def busy_seconds(self) -> float:
        return round(time.monotonic() - self.started_at, 1) if self.job else 0.0

    def document(self) -> dict[str, Any]:
        """The slot's part of /status."""
        with self._lock:
            return {
                "name": self.name,
                "uid": self.uid,
                "state": self.state,
                "attached": self.attached,
                "job": self.job or None,
                "task": self.task or None,
                "busy_seconds": self.busy_seconds,
            }


@dataclass
class WorkerState:
    """A worker's, over all its slots.

    Attributes:
        slots: at least one.
        problem: why the worker cannot register, "" when it can.
        database_problem: why its database cannot be used now, "" when it can.
    """

    slots: Sequence[SlotState]
    problem: str = "starting"
    database_problem: str = "starting"

    @property
    def job(self) -> str:
        """The id of the job of the first slot that runs one, or ""."""
        return next((slot.job for slot in self.slots if slot.job), "")

    @property
    def name(self) -> str:
        """One of STATES, the busiest of the slots."""
        states = {slot.state for slot in self.slots}
        return next(name for name in ("draining", "busy", "connecting", "idle") if name in states)

    @property
    def attached(self) -> bool:
        """Whether the domain's queue answers, on every slot's connection."""
        return all(slot.attached for slot in self.slots)

    @property
    def reasons(self) -> list[str]:
        """Why no jobs can be taken now, for people."""
        if self.problem:
            return [self.problem]
        if self.database_problem:
            return [self.database_problem]
        return [] if self.attached else ["the domain's queue does not answer"]

    def summary(self) -> str:
        """One line for `systemctl status`."""
        busy = sum(bool(slot.job) for slot in self.slots)
        parts = [self.name, f"{busy} of {len(self.slots)} busy", *(f"waiting: {reason}" for reason in self.reasons)]
        return ", ".join(parts)

    def ready(self) -> dict[str, Any]:
        """The worker's part of /healthz/ready."""
        return {
            "reasons": self.reasons,
            "database": {"reachable": not self.database_problem},
            "attached": self.attached,
            "state": self.name,
        }

    def status(self) -> dict[str, Any]:
        """The worker's part of /status; job, task and busy_seconds are those of the first slot that runs a job."""
        documents = [slot.document() for slot in self.slots]
        first = next((document for document in documents if document["job"]), documents[0])
        return {
            "job": first["job"],
            "task": first["task"],
            "busy_seconds": first["busy_seconds"],
            "jobs": self.outcomes(),
            "slots": documents,
        }

    def outcomes(self) -> dict[str, int]:
        """How many jobs this process has ended, by status."""
        total: dict[str, int] = {}
        for slot in self.slots:
            for status, number in list(slot.outcomes.items()):
                total[status] = total.get(status, 0) + number
        return total


class _WorkerCollector:
    def __init__(self, state: WorkerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state
        shown = GaugeMetricFamily("pygrid_worker_state", "1 for the worker's present state.", labels=["state"])
        for name in STATES:
            shown.add_metric([name], float(state.name == name))
        yield shown
        slots = GaugeMetricFamily("pygrid_worker_slots", "How many jobs can run at once, by state.", labels=["state"])
        for name in STATES:
            slots.add_metric([name], sum(slot.state == name for slot in state.slots))
        yield slots
        yield GaugeMetricFamily("pygrid_worker_attached", "1 if the domain's queue answers.", float(state.attached))
        done = CounterMetricFamily("pygrid_worker_jobs", "Jobs this process has ended.", labels=["status"])
        for status, number in sorted(state.outcomes().items()):
            done.add_metric([status], number)
        yield done
        busy = sum(slot.busy_seconds_total for slot in state.slots)
        yield CounterMetricFamily("pygrid_worker_busy_seconds", "Seconds spent on jobs.", busy)
        labels = ["worker", "task", "job"]
        task = GaugeMetricFamily("pygrid_worker_task_seconds", "Age of the running job.", labels=labels)
        for slot in state.slots:
            if slot.job:
                task.add_metric([slot.name, slot.task, slot.job], slot.busy_seconds)
        yield task


def metrics_of(state: WorkerState) -> CollectorRegistry:
    """A registry with the worker's and its process's metrics."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="pygrid", registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_WorkerCollector(state))  # type: ignore[arg-type]
    return registry
