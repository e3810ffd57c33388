# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""People who use the grid of a lab with the syft of a release on one of its hosts; it has to be that of the nodes."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

PROGRAMS = ("grid_client.py", "load.py")
FOLDER = "/root/people"
# What nodes trust, so what people on a host of the grid may trust too.
TRUST = "/etc/pygrid/trust.pem"


class People:
    """Clients on a host, with a version of syft at a time.

    Args:
        grid: the grid that they use.
        host: where they are; its releases are theirs too.
        version: of syft.
        domains: whose owners they are.
    """

    def __init__(self, grid: Intranet, host: str, version: str, domains: tuple[str, ...] = ("alice", "bob")) -> None:
        self._grid, self._host = grid, host
        grid.must(host, f"mkdir -p -m 700 {FOLDER}")
        for name in PROGRAMS:
            grid.put(host, Path(__file__).with_name(name).read_bytes(), f"{FOLDER}/{name}")
        for domain in domains:
            identity = grid.must(domain, f"cat /etc/pygrid/nodes/{domain}/identity.json")
            grid.put(host, identity.encode(), f"{FOLDER}/{domain}.json")
        self.use(version)

    def use(self, version: str) -> None:
        """Go on with another syft."""
        self._python = self._grid.must(self._host, f"ls -d /opt/pygrid/releases/{version}-*/env/bin/python")

    def command(self, program: str, *words: str) -> str:
        environment = f"HOME={FOLDER} REQUESTS_CA_BUNDLE={TRUST} SSL_CERT_FILE={TRUST}"
        return f"cd {FOLDER} && {environment} {shlex.join([self._python, program, *words])}"

    def __call__(self, verb: str, domain: str, *words: str, seconds: float = 180) -> dict[str, Any]:
        """A verb of grid_client.py, as the owner of a Domain."""
        command = self.command("grid_client.py", verb, self._grid.url(domain), f"{domain}.json", *words)
        # Its progress bars must not get into the answer.
        answer = self._grid.run(
            self._host, f"{command} 2>{verb}.log || {{ tail -5 {verb}.log; exit 1; }}", seconds=seconds
        )
        assert answer.succeeded, f"{domain}: {verb}: {answer.text}"
        return json.loads(answer.text.strip().splitlines()[-1])

    def call(self, domain: str, clients: int) -> Calls:
        """Have clients call a Domain all the time (load.py); returns when they have begun."""
        stop = f"{FOLDER}/stop-{domain}"
        self._grid.must(self._host, f"rm -f {stop}")
        command = self.command("load.py", self._grid.url(domain), f"{domain}.json", str(clients), stop)
        process = subprocess.Popen(
            self._grid.lab.ssh_command(self._host, f"{command} 2>{FOLDER}/load-{domain}.log"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        calls = Calls(self._grid, self._host, stop, process)
        calls.wait_ready()
        return calls

    def insist_on_jobs(self, domain: str, jobs: list[str], seconds: float = 120) -> None:
        """Every one of these jobs comes to its end."""
        end = time.monotonic() + seconds
        while True:
            status = self("fingerprint", domain)["jobs"]
            missing = [job for job in jobs if status.get(job) != "completed"]
            if not missing:
                return
            assert time.monotonic() < end, f"{domain}: {[(job, status.get(job)) for job in missing][:5]}"
            time.sleep(2)

    def leave(self) -> None:
        self._grid.must(self._host, f"rm -rf {FOLDER}")


@dataclass
class Calls:
    """Clients at work."""

    grid: Intranet
    host: str
    stop: str
    process: subprocess.Popen[str]

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        said = self.grid.run(self.host, f"tail -n 5 {FOLDER}/load-*.log").text
        raise AssertionError(f"the clients did not begin: {said}")

    def end(self, seconds: float = 120) -> dict[str, Any]:
        """Let them finish; their report."""
        self.grid.must(self.host, f"touch {self.stop}")
        said, _nothing = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, self.grid.run(self.host, f"tail -n 20 {FOLDER}/load-*.log").text
        return json.loads(said.splitlines()[-1])
