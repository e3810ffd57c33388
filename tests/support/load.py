# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that call a Domain all the time, to see what an upgrade costs them; prints JSON on its last line.

python load.py URL IDENTITY_FILE CLIENTS STOP_FILE

Each client logs in once, as a notebook does, and calls one thing after the other until STOP_FILE is there: it lists
datasets and jobs, reads the metadata as a load balancer does, and now and then submits a job. Nothing is tried again
here. On standard output stands "ready" once all are logged in.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import requests
import syft as sy
from grid_client import login
from syft.service.policy.policy import MixedInputPolicy, OutputPolicyExecuteCount

# One call in so many submits a job.
SUBMIT_EVERY = 10
# Twelve clients are to leave something of two processors to the grid.
PAUSE_SECONDS = 2.0


class Caller(threading.Thread):
    """One client and what became of its calls: ``failed`` are texts, ``waits`` (seconds, kind, began), ``jobs`` ids."""

    def __init__(self, url: str, identity_file: str, stop: Path) -> None:
        super().__init__()
        self._url, self._until = url, stop
        self._client = login(url, identity_file)
        self.failed: list[str] = []
        self.waits: list[tuple[float, str, float]] = []
        self.jobs: list[str] = []

    def run(self) -> None:
        kinds = ("datasets", "metadata", "jobs")
        number = 0
        while not self._until.exists():
            number += 1
            kind = "submit" if number % SUBMIT_EVERY == 0 else kinds[number % len(kinds)]
            began = time.time()
            try:
                getattr(self, f"_{kind}")()
            except BaseException as error:  # syft raises what it likes
                self.failed.append(f"{kind} after {time.time() - began:.1f} s: {type(error).__name__}: {error}"[:400])
            self.waits.append((time.time() - began, kind, began))
            time.sleep(PAUSE_SECONDS)

    def _datasets(self) -> None:
        checked(self._client.api.services.dataset.get_all())

    def _jobs(self) -> None:
        checked(self._client.api.services.job.get_all())

    def _metadata(self) -> None:
        requests.get(f"{self._url}/api/v2/metadata", timeout=300).raise_for_status()

    def _submit(self) -> None:
        self.jobs.append(str(checked(self._client.code.tally(number=1, blocking=False)).id))


def checked(answer: Any) -> Any:
    """Some releases return errors instead of raising them."""
    if isinstance(answer, sy.SyftError):
        raise RuntimeError(answer.message)
    return answer


def allow_tally(url: str, identity_file: str) -> None:
    """Have the function that the clients submit."""
    client = login(url, identity_file)
    if "tally" in [code.service_func_name for code in client.code]:
        return

    @sy.syft_function(
        input_policy=MixedInputPolicy(number=int, client=client), output_policy=OutputPolicyExecuteCount(limit=100_000)
    )
    def tally(number):  # noqa: ANN001, ANN202 - syft sends the source as it stands
        return number + 1

    client.code.request_code_execution(tally).approve(disable_warnings=True)


def main() -> None:
    """Call until told to stop, and report."""
    url, identity_file, number, stop = sys.argv[1:]
    allow_tally(url, identity_file)
    callers = [Caller(url, identity_file, Path(stop)) for _number in range(int(number))]
    print("ready", flush=True)
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    waits = sorted((wait for caller in callers for wait in caller.waits), reverse=True)
    answered = sorted(began + seconds for seconds, _kind, began in waits)
    gaps = [later - earlier for earlier, later in itertools.pairwise(answered)]
    report = {
        "calls": len(waits),
        "failed": [text for caller in callers for text in caller.failed],
        "jobs": [job for caller in callers for job in caller.jobs],
        "longest_seconds": round(waits[0][0], 2) if waits else None,
        "longest_calls": [(round(seconds, 2), kind) for seconds, kind, _began in waits[:5]],
        "longest_gap_seconds": round(max(gaps, default=0.0), 2),
    }
    print(json.dumps(report))


main()
