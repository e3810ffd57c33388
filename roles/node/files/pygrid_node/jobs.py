# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Job and worker calls of upstream's API that do not work with workers in processes of their own (fault 11).

`queue_producer.install` calls `install()`, before a domain's server is built.
"""

from __future__ import annotations

import time
from typing import Any

_KILL_SECONDS = 20.0  # a worker looks twice a second, and gives a job 5 s between SIGTERM and SIGKILL
_REMOVE_HINT = (
    "Workers of this node are started and removed by its operator, not by this call: take the worker out of the "
    "inventory and run the scale playbook, which lets it finish its job first."
)


def install() -> None:
    """Patch upstream's services; may be called twice."""
    from syft.service.job.job_service import JobService
    from syft.service.job.job_stash import JobStash
    from syft.service.worker import worker_pool_service
    from syft.service.worker.worker_service import WorkerService
    from syft.store.document_store_errors import StashException
    from syft.types.result import as_result

    JobService._kill = _kill  # type: ignore[method-assign]
    JobStash.get_active = as_result(StashException)(_get_active)  # type: ignore[method-assign]
    WorkerService.delete = _refuse_delete  # type: ignore[method-assign]
    worker_pool_service.run_workers_in_threads = _refuse_threads


def _get_active(self: Any, credentials: Any) -> list[Any]:
    """Jobs that wait or run; upstream unwraps a plain list here, which raises, and means the waiting ones only."""
    from syft.service.job.job_stash import JobStatus

    active = []
    for status in (JobStatus.CREATED, JobStatus.PROCESSING, JobStatus.TERMINATING):
        active += self.get_all(credentials=credentials, filters={"status": status}).unwrap()
    return active


def _kill(self: Any, context: Any, job: Any) -> Any:
    """Ask the worker to end the job and its subjobs, and wait until it has.

    Upstream asks the job object for its status through a client that does not exist inside the server, which raises.
    """
    from syft.service.job.job_stash import JobStatus
    from syft.service.response import SyftSuccess
    from syft.types.errors import SyftException

    root = self.stash.root_verify_key
    family = [job, *(self.stash.get_by_parent_id(root, uid=job.id).unwrap() or [])]
    for member in family:
        if member.status in (JobStatus.CREATED, JobStatus.PROCESSING):
            member.status = JobStatus.TERMINATING
            self.stash.update(context.credentials, obj=member).unwrap()
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        states = [self.stash.get_by_uid(root, uid=member.id).unwrap().status for member in family]
        if not any(state in (JobStatus.TERMINATING, JobStatus.PROCESSING) for state in states):
            return SyftSuccess(message="Job killed successfully!")
        time.sleep(0.2)
    raise SyftException(
        public_message=f"Job {job.id} is marked to end, but its worker has not confirmed it within "
        f"{_KILL_SECONDS:.0f} seconds; if the worker is gone the job ends within two minutes."
    )


def _refuse_delete(*_arguments: Any, **_options: Any) -> Any:
    """Upstream deletes the row, while the process goes on and comes back as a ghost without a pool."""
    from syft.types.errors import SyftException

    raise SyftException(public_message=_REMOVE_HINT)


def _refuse_threads(*, number: int = 0, start_idx: int = 0, **_options: Any) -> list[Any]:
    """Upstream would start threads inside the domain that run users' code with its keys."""
    from syft.types.errors import SyftException

    if number > start_idx:
        raise SyftException(public_message=_REMOVE_HINT)
    return []
