# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves that Workers work: each runs a job like those that people submit, and nothing stays of it."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import NodeError
from .queue_producer import producer_of

_POLL_SECONDS = 0.1
_ENDED = ("completed", "errored", "interrupted")
_ANSWER = 45
_NAME = "pygrid_probe"


def pygrid_probe():  # type: ignore[no-untyped-def] # noqa: ANN201 - its source goes to the Workers as it stands
    import numpy

    return int(numpy.arange(10).sum())


@dataclass
class _Probe:
    """The job of one worker's slot."""

    worker: str
    item: Any
    action: Any
    job: Any = None
    began: float = 0.0


class Probes:
    """Runs probe jobs on the workers of a domain.

    Args:
        server: the running domain.
    """

    def __init__(self, server: Any) -> None:
        self._server, self._producer = server, producer_of(server)
        self._one_at_a_time = threading.Lock()

    def run(self, workers: Sequence[str], seconds: float) -> list[dict[str, Any]]:
        """Let each of these workers (by the name of its slot) run a job.

        Args:
            workers: names, such as alice-w1 and alice-w1-2.
            seconds: how long to wait for workers that are not connected yet, and for all jobs.

        Returns:
            For each worker ``worker``, ``problem`` ("" when its job gave the right answer) and ``seconds``.

        Raises:
            NodeError: other probes are running.
        """
        if not self._one_at_a_time.acquire(blocking=False):
            raise NodeError("probe jobs are running already")
        try:
            return self._run(workers, time.monotonic() + seconds)
        finally:
            self._one_at_a_time.release()

    def _run(self, workers: Sequence[str], deadline: float) -> list[dict[str, Any]]:
        code = self._code()
        probes: dict[str, _Probe] = {}
        results: dict[str, dict[str, Any]] = {}
        try:
            while len(results) < len(workers):
                uids = {worker.name: worker.uid for worker in self._producer.router.workers()}
                for name in workers:
                    if name not in probes and name in uids:
                        probes[name] = self._submit(code, name, uids[name])
                for name, probe in probes.items():
                    problem = self._problem(probe)
                    if name not in results and problem is not None:
                        results[name] = _result(probe.worker, problem, probe.began)
                if time.monotonic() >= deadline:
                    break
                time.sleep(_POLL_SECONDS)
        finally:
            self._forget(code, list(probes.values()))
        for name in workers:
            if name not in results:
                problem = "its probe job did not end in time" if name in probes else "it is not connected"
                results[name] = _result(name, problem, probes[name].began if name in probes else None)
        return [results[name] for name in workers]

    def _code(self) -> Any:
        from syft.service.code.user_code import syft_function_single_use

        with contextlib.redirect_stdout(io.StringIO()):  # it congratulates
            submitted = syft_function_single_use()(pygrid_probe)
        return self._server.services.user_code._submit(self._context(), submitted, exists_ok=True).unwrap()

    def _submit(self, code: Any, worker: str, uid: str) -> _Probe:
        from syft.service.action.action_object import Action, ActionType
        from syft.service.queue.queue_stash import ActionQueueItem
        from syft.types.uid import UID, LineageID

        server, key = self._server, self._server.verify_key
        action = Action(
            args=[], kwargs={}, result_id=LineageID(), action_type=ActionType.SYFTFUNCTION, user_code_id=code.id
        )
        item = ActionQueueItem(
            id=UID(),
            server_uid=server.id,
            syft_client_verify_key=key,
            syft_server_location=server.id,
            job_id=UID(),
            worker_settings=_worker_settings(server),
            args=[],
            kwargs={"action": action},
            has_execute_permissions=True,
            worker_pool=server.get_worker_pool_ref_by_name(key),
        )
        probe = _Probe(worker, item, action, began=time.monotonic())
        self._producer.pin(item.id.no_dash, uid)
        probe.job = server.add_queueitem_to_queue(queue_item=item, credentials=key, action=action).unwrap()
        return probe

    def _problem(self, probe: _Probe) -> str | None:
        """None while it runs, "" when it went well."""
        job = self._producer.ledger.job(probe.item.job_id)
        if job is None or job.status.value not in _ENDED:
            return None
        if job.status.value != "completed":
            message = getattr(job.result, "message", "") or "no reason was given"
            return f"its probe job is {job.status.value}: {message}"
        found = self._server.services.action._get(
            self._context(), uid=probe.action.result_id, resolve_nested=True
        ).unwrap()
        answer = found.syft_action_data
        return "" if answer == _ANSWER else f"its probe job gave {answer!r} instead of {_ANSWER}"

    def _forget(self, code: Any, probes: list[_Probe]) -> None:
        """Delete every row and blob that came from the probes, also of those that have not ended."""
        from syft.types.errors import SyftException

        services, key = self._server.services, self._server.verify_key
        histories = services.code_history.stash.get_by_verify_key(credentials=key, user_verify_key=key).unwrap()
        doomed = [
            (services.code_history.stash, [row.id for row in histories if row.service_func_name == _NAME]),
            (services.user_code_status.stash, [code.status_link.object_uid]),
            (services.user_code.stash, [code.id]),
        ]
        for probe in probes:
            self._producer.unpin(probe.item.id.no_dash)
            # Upstream's own way takes the blob along; nothing is there of a probe that has not ended.
            with contextlib.suppress(SyftException):
                services.action.delete(self._context(), probe.action.result_id)
            messages = services.notification.stash.get_all(key).unwrap()
            doomed += [
                (services.notification.stash, [row.id for row in messages if _is_about(row, probe.item.id)]),
                (services.log.stash, [probe.job.log_id]),
                (self._server.queue_stash, [probe.item.id]),
                (self._server.job_stash, [probe.item.job_id]),
            ]
        for stash, ids in doomed:
            for uid in ids:
                stash.delete_by_uid(key, uid).unwrap()

    def _context(self) -> Any:
        from syft.service.context import AuthedServiceContext
        from syft.service.user.user_roles import ServiceRole

        return AuthedServiceContext(server=self._server, credentials=self._server.verify_key, role=ServiceRole.ADMIN)


def _is_about(notification: Any, uid: Any) -> bool:
    return notification.linked_obj is not None and notification.linked_obj.object_uid == uid


def _worker_settings(server: Any) -> Any:
    from syft.server.worker_settings import WorkerSettings

    return WorkerSettings.from_server(server=server)


def _result(worker: str, problem: str, began: float | None) -> dict[str, Any]:
    return {
        "worker": worker,
        "problem": problem,
        "seconds": None if began is None else round(time.monotonic() - began, 2),
    }
