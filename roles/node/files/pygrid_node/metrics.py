# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus metrics of a node. Names start with pygrid_; the process's own are those of prometheus_client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from .environment import syft_version
from .settings import Settings

if TYPE_CHECKING:
    from .inspection import Inspection

logger = logging.getLogger(__name__)
PEER_STATES = ("ACTIVE", "INACTIVE", "TIMEOUT", "UNKNOWN")
WORKER_STATES = ("idle", "busy", "draining", "detached")


class _Collector:
    """Calls a function at each scrape; if it fails, the rest of the page still comes and pygrid_up says 0."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> list[Metric]:
        """Nothing in advance, so that registering does not scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        up = 1
        try:
            yield from list(self._collect())
        except Exception as error:
            logger.warning("metrics: %s: %s", type(error).__name__, error)
            up = 0
        yield gauge("pygrid_up", "1 when the node's own numbers could be read.", up)


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def make_registry(settings: Settings, collect: Callable[[], Iterable[Metric]]) -> CollectorRegistry:
    """A registry with the process's metrics, pygrid_node_info, and what `collect` yields at each scrape."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)

    def everything() -> Iterator[Metric]:
        labels = {"name": settings.name, "kind": settings.kind, "syft_version": syft_version()}
        yield InfoMetricFamily("pygrid_node", "What this node is.", value=labels)
        yield from collect()

    registry.register(_Collector(everything))
    return registry


def server_metrics(inspection: Inspection, settings: Settings) -> Iterator[Metric]:
    """The metrics of a network or a domain."""
    problem = inspection.database_problem()
    if problem:
        raise RuntimeError(problem)  # rather than wait for the database with each number
    jobs = inspection.jobs_by_status()
    family = GaugeMetricFamily("pygrid_jobs", "Jobs by status.", labels=["status"])
    for status, number in jobs.items():
        family.add_metric([status], number)
    yield family
    yield gauge("pygrid_queue_backlog", "Jobs that wait for a worker.", jobs["created"])
    yield gauge("pygrid_datasets", "Datasets.", inspection.count("Dataset"))
    yield gauge("pygrid_users", "User accounts, the root account included.", inspection.count("User"))
    yield gauge("pygrid_requests", "Requests, whatever their status.", inspection.count("Request"))
    yield _peers(inspection)
    if settings.kind == "domain":
        yield gauge("pygrid_workers_attached", "Workers connected to the queue.", len(inspection.attached_workers()))
        yield from _workers(inspection)


def _peers(inspection: Inspection) -> Metric:
    family = GaugeMetricFamily("pygrid_peer", "1 for the status a peer has.", labels=["peer", "kind", "status"])
    for peer in inspection.peers():
        for status in PEER_STATES:
            family.add_metric([peer.name, peer.kind, status], peer.status == status)
    return family


def _workers(inspection: Inspection) -> Iterator[Metric]:
    states = GaugeMetricFamily("pygrid_worker", "1 for the state a worker has.", labels=["worker", "pool", "state"])
    tasks = GaugeMetricFamily(
        "pygrid_worker_task_seconds", "Seconds a worker has been at its current task.", labels=["worker", "task", "job"]
    )
    for worker in inspection.workers():
        for state in WORKER_STATES:
            states.add_metric([worker.name, worker.pool, state], worker.state == state)
        if worker.job is not None:
            tasks.add_metric([worker.name, worker.task or "", worker.job], worker.busy_seconds or 0)
    yield states
    yield tasks
