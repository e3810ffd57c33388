# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data scientist: knows only the Network's URL, and reaches every Domain through it."""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import syft as sy
from syft.service.job.job_stash import JobStatus
from syft.service.policy.policy import MixedInputPolicy, OutputPolicyExecuteCount
from syft.types.errors import SyftException

from .owner import FEATURES, LABELS, Account
from .story import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POLL_SECONDS = 0.5
PROGRESS_SECONDS = 10


@dataclass
class Site:
    """A Domain as the data scientist sees it: through the Network, with the rights of an ordinary account."""

    name: str
    client: Any
    assets: dict[str, Any] = field(default_factory=dict)
    functions: dict[str, Any] = field(default_factory=dict)
    workers: dict[Any, str] = field(default_factory=dict)


@dataclass
class Answer:
    """What a job brought back, who ran it, and how long that took from submission."""

    value: Any
    worker: str
    seconds: float


class Grid:
    """The Network as a guest sees it."""

    def __init__(self, network_url: str) -> None:
        """Needs no account: guests may ask a Network which Domains it knows."""
        self.client = sy.login_as_guest(url=network_url)
        self._peers = {peer.name: peer for peer in self.client.datasites.retrieve_servers()}

    def domains(self) -> dict[str, str]:
        """Returns the state of every Domain the Network knows, in small letters: active, inactive, timeout."""
        return {
            name: "unknown" if peer.ping_status is None else peer.ping_status.name.lower()
            for name, peer in sorted(self._peers.items())
        }

    def datasets(self, domain: str) -> dict[str, str]:
        """Returns name and description of what a Domain offers; a guest may read that."""
        offered = self.client.proxy_to(self._peers[domain]).datasets
        return {dataset.name: str(dataset.description.text) for dataset in offered}

    def enter(self, domain: str, account: Account, dataset: str) -> Site:
        """Logs in to a Domain through the Network and finds a dataset."""
        client = self.client.proxy_to(self._peers[domain]).login(
            email=account.email, password=account.password, cache=False
        )
        found = client.api.services.dataset.search(name=dataset)
        if not found:
            raise DemoError(f"the dataset {dataset!r} is not visible at {domain}")
        workers = {worker.id: worker.name for worker in client.worker.get_all()}
        return Site(domain, client, {asset.name: asset for asset in found[0].assets}, workers=workers)


def private_is_closed(site: Site) -> bool:
    """Tries to read private data with the account's own rights. Returns True when the Domain refuses."""
    return all(asset.data is None for asset in site.assets.values())


def mock(site: Site) -> dict[str, Any]:
    """Returns the invented stand-in of every asset."""
    return {name: asset.mock for name, asset in site.assets.items()}


def source_of(function: Callable[..., Any]) -> str:
    """Returns the text of a function as the owners will read it."""
    return inspect.getsource(function)


def request(site: Site, function: Callable[..., Any], runs: int, reason: str) -> Any:
    """Asks the owner for leave to run a function on the private data. Returns the id of the request."""
    parameters = inspect.signature(function).parameters
    given = {name: site.assets[name] for name in (FEATURES, LABELS) if name in parameters}
    chosen = {name: list for name in parameters if name not in given}
    code = sy.syft_function(
        input_policy=MixedInputPolicy(**given, **chosen, client=site.client),
        output_policy=OutputPolicyExecuteCount(limit=runs),
    )(function)
    try:
        asked = site.client.code.request_code_execution(code, reason=reason)
    except SyftException as error:
        raise DemoError(f"{site.name} did not take the request: {error.public_message}") from None
    site.functions[function.__name__] = getattr(site.client.code, function.__name__)
    return asked.id


def run_everywhere(
    sites: Sequence[Site], function: str, timeout_seconds: float, waiting: Callable[[str], None], **chosen: list[float]
) -> dict[str, Answer]:
    """Runs an approved function at all sites at the same time, each by a job of its own Domain's Worker.

    Raises DemoError when a job fails, or when one has not ended after timeout_seconds.
    """
    started = told = time.monotonic()
    jobs: dict[str, Any] = {}
    for site in sites:
        call = site.functions[function]
        given = {name: asset for name, asset in site.assets.items() if name in call.signature.parameters}
        jobs[site.name] = call(**given, **chosen, blocking=False).id
    answers: dict[str, Answer] = {}
    while True:
        pending = {}
        for site in (one for one in sites if one.name not in answers):
            job = site.client.jobs.get(jobs[site.name])
            if job.status == JobStatus.COMPLETED:
                worker = site.workers.get(job.job_worker_id, "a Worker")
                answers[site.name] = Answer(job.result.get(), worker, time.monotonic() - started)
            elif job.status in (JobStatus.ERRORED, JobStatus.INTERRUPTED, JobStatus.TERMINATING):
                raise DemoError(f"the job {function} at {site.name} is {job.status.value}: {_first_line(job.result)}")
            else:
                pending[site.name] = job.status.value
        if not pending:
            return {site.name: answers[site.name] for site in sites}
        now = time.monotonic()
        if now - started > timeout_seconds:
            late = ", ".join(f"{name} ({status})" for name, status in pending.items())
            raise DemoError(f"the job {function} did not end within {timeout_seconds:g} s at {late}")
        if now - told > PROGRESS_SECONDS:
            told = now
            waiting(", ".join(f"{name}: {status}" for name, status in pending.items()))
        time.sleep(POLL_SECONDS)


def _first_line(result: Any) -> str:
    text = str(getattr(result, "message", result)).strip()
    return text.splitlines()[0] if text else "no reason given"
