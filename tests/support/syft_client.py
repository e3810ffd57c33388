# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real client of a domain, in the environment that has syft: one command per line of JSON in, one answer out.

Run by tests with PYGRID_TEST_PYTHON; see `runtime.Client`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

FUNCTION = """
def {name}():
    import os
    import time

    time.sleep({seconds})
    return {result}
"""


class Commands:
    """What the tests can ask for; every method is a command."""

    def __init__(self) -> None:
        self.client: Any = None
        self.jobs: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp())

    def login(self, port: int, email: str, password: str) -> str:
        import syft

        self.client = syft.login(url="http://127.0.0.1", port=port, email=email, password=password)
        return str(self.client.id)

    def submit(self, name: str, seconds: float, result: str = "42") -> str:
        import syft

        path = self.folder / f"{name}.py"
        path.write_text(FUNCTION.format(name=name, seconds=seconds, result=result))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.client.code.submit(syft.syft_function()(getattr(module, name)))
        return name

    def start(self, name: str) -> str:
        job = getattr(self.client.code, name)(blocking=False)
        self.jobs[job.id.no_dash] = job
        return job.id.no_dash

    def status(self, job: str) -> dict[str, Any]:
        self.jobs[job].fetch()
        return {"status": self.jobs[job].status.value, "result": str(self.jobs[job].result)}

    def wait(self, jobs: list[str], seconds: float, until: str = "") -> dict[str, dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while True:
            try:
                states = {job: self.status(job) for job in jobs}
                if all(state["status"] == until or self.jobs[job].resolved for job, state in states.items()):
                    return states
            except Exception:  # the domain is being restarted
                states = {}
            if time.monotonic() > deadline:
                return states
            time.sleep(0.2)

    def active(self) -> list[str]:
        return [job.id.no_dash for job in self.client.api.services.job.get_active()]

    def kill(self, job: str) -> str:
        return str(self.jobs[job].kill())

    def workers(self) -> list[str]:
        return sorted(worker.name for worker in self.client.worker.get_all())

    def delete_worker(self, name: str, force: bool) -> str:
        uid = next(worker.id for worker in self.client.worker.get_all() if worker.name == name)
        return str(self.client.worker.delete(uid, force=force))

    def busy_api(self, clients: int, name: str, jobs: int) -> dict[str, Any]:
        """Run jobs while several threads read and write through the API."""
        stop, calls, errors, slowest = threading.Event(), [0] * clients, [], [0.0] * clients

        def hammer(number: int) -> None:
            while not stop.is_set():
                begin = time.monotonic()
                try:
                    self.client.settings.update(description=f"{number} {calls[number]}")
                    self.client.api.services.job.get_all()
                    self.client.api.services.dataset.get_all()
                except Exception as error:
                    errors.append(str(error)[:300])
                calls[number] += 3
                slowest[number] = max(slowest[number], time.monotonic() - begin)

        threads = [threading.Thread(target=hammer, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        begin = time.monotonic()
        states = self.wait([self.start(name) for _unused in range(jobs)], 50)
        seconds = time.monotonic() - begin
        stop.set()
        for thread in threads:
            thread.join()
        statuses = [state["status"] for state in states.values()]
        return {
            "calls": sum(calls),
            "errors": errors,
            "slowest": max(slowest),
            "statuses": statuses,
            "seconds": seconds,
        }


def main() -> None:
    """Answer commands until the input ends. Whatever syft prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands = Commands()
    for line in sys.stdin:
        name, options = json.loads(line)
        try:
            answer = {"answer": getattr(commands, name)(**options)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
