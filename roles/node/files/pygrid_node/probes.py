# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves that Workers work: each runs a job like those that people submit, and nothing stays of it."""

from __future__ import annotations

import contextlib
import io
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import NodeError
from .queue_producer import producer_of
from .queue_router import Attached

_POLL_SECONDS = 0.1
_ENDED = ("completed", "errored", "interrupted")
_ANSWER = 45
_MOST = 128  # probe jobs at a time: a Domain has no more Workers than that
_NAME = "pygrid_probe"


def pygrid_probe():  # type: ignore[no-untyped-def] # noqa: ANN201 - its source goes to the Workers as it stands
    import numpy

    return int(numpy.arange(10).sum())


@dataclass(frozen=True)
class _Probe:
    """The job of one worker's slot; ids are UIDs."""

    job: Any
    result: Any
    began: float


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
        if len(workers) > _MOST:
            raise NodeError(f"at most {_MOST} workers can be probed at a time")
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
                for worker in self._producer.router.workers():
                    if worker.name in workers and worker.name not in probes:
                        probes[worker.name] = self._submit(code, worker, len(probes))
                for name, probe in probes.items():
                    problem = self._problem(probe)
                    if name not in results and problem is not None:
                        results[name] = _result(name, problem, probe.began)
                if time.monotonic() >= deadline:
                    break
                time.sleep(_POLL_SECONDS)
        finally:
            self.forget()
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

    def _submit(self, code: Any, worker: Attached, number: int) -> _Probe:
        from syft.service.action.action_object import Action, ActionType
        from syft.service.queue.queue_stash import ActionQueueItem
        from syft.types.uid import UID, LineageID

        server, key = self._server, self._server.verify_key
        action = Action(
            args=[],
            kwargs={},
            result_id=LineageID(_result_id(code, number)),
            action_type=ActionType.SYFTFUNCTION,
            user_code_id=code.id,
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
            worker_pool=server.get_worker_pool_ref_by_name(key, worker.pool),
        )
        self._producer.pin(item.id.no_dash, worker.uid)
        server.add_queueitem_to_queue(queue_item=item, credentials=key, action=action).unwrap()
        return _Probe(item.job_id, action.result_id, time.monotonic())

    def _problem(self, probe: _Probe) -> str | None:
        """None while it runs, "" when it went well."""
        job = self._producer.ledger.job(probe.job)
        if job is None or job.status.value not in _ENDED:
            return None
        if job.status.value != "completed":
            message = getattr(job.result, "message", "") or "no reason was given"
            return f"its probe job is {job.status.value}: {message}"
        found = self._server.services.action._get(self._context(), uid=probe.result, resolve_nested=True).unwrap()
        answer = found.syft_action_data
        return "" if answer == _ANSWER else f"its probe job gave {answer!r} instead of {_ANSWER}"

    def forget(self) -> None:
        """Delete every row and blob of probe jobs, also of those that run on, or that a killed process left."""
        from syft.types.errors import SyftException

        services, key = self._server.services, self._server.verify_key
        codes = services.user_code.stash.get_by_service_func_name(key, _NAME).unwrap()
        own = [code for code in codes if code.user_verify_key == key]
        for code in own:
            # By number, for upstream stores a result before the job that it is of. Its own way takes the blob along.
            for number in range(_MOST):
                with contextlib.suppress(SyftException):
                    services.action.delete(self._context(), _result_id(code, number))
            for job in self._server.job_stash.get_by_user_code_id(key, code.id).unwrap():
                self._forget_job(job)
            self._delete(services.user_code_status.stash, code.status_link.object_uid)
            self._delete(services.user_code.stash, code.id)
        if own:
            for history in services.code_history.stash.get_by_verify_key(key, key).unwrap():
                if history.service_func_name == _NAME:
                    self._delete(services.code_history.stash, history.id)

    def _forget_job(self, job: Any) -> None:
        services, key, items = self._server.services, self._server.verify_key, self._server.queue_stash
        for item in items.get_all(key, filters={"job_id": job.id}).unwrap():
            self._producer.unpin(item.id.no_dash)
            for message in services.notification.stash.get_all(key).unwrap():
                if message.linked_obj is not None and message.linked_obj.object_uid == item.id:
                    self._delete(services.notification.stash, message.id)
            self._delete(items, item.id)
        self._delete(services.log.stash, job.log_id)
        self._delete(self._server.job_stash, job.id)

    def _delete(self, stash: Any, uid: Any) -> None:
        """A process that was killed may have written one row of those that belong together, and not the next."""
        from syft.store.document_store_errors import NotFoundException

        with contextlib.suppress(NotFoundException):
            stash.delete_by_uid(self._server.verify_key, uid).unwrap()

    def _context(self) -> Any:
        from syft.service.context import AuthedServiceContext
        from syft.service.user.user_roles import ServiceRole

        return AuthedServiceContext(server=self._server, credentials=self._server.verify_key, role=ServiceRole.ADMIN)


def _result_id(code: Any, number: int) -> Any:
    """UID of the result of a probe job, the same for all time."""
    from syft.types.uid import UID

    return UID(uuid.uuid5(uuid.UUID(code.id.no_dash), str(number)).hex)


def _worker_settings(server: Any) -> Any:
    from syft.server.worker_settings import WorkerSettings

    return WorkerSettings.from_server(server=server)


def _result(worker: str, problem: str, began: float | None) -> dict[str, Any]:
    return {
        "worker": worker,
        "problem": problem,
        "seconds": None if began is None else round(time.monotonic() - began, 2),
    }
