# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployed grid on hosts of a lab, for tests that look at it, use it and attack it from outside."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.lab import Lab
from tests.support.playbook import Run, run_playbook

CHECKOUT = Path(__file__).resolve().parents[2]
LAB_HOSTS = CHECKOUT / "molecule" / "shared" / "lab" / "inventory.py"
CLIENT = Path(__file__).with_name("grid_client.py")
DEMO = CHECKOUT / "examples" / "federated_breast_cancer"
# Of somebody who tries the example, on his host.
WORK = "/root/work"
ATTACKS = Path(__file__).with_name("attacks.py")


@dataclass(frozen=True)
class Answer:
    """What a command said, and how it ended."""

    code: int
    text: str

    @property
    def succeeded(self) -> bool:
        return self.code == 0


class Intranet:
    """A grid on the hosts of a lab.

    Args:
        lab: its name, that of the molecule scenario.
        inventory: which nodes are on its hosts.
        pki: the folder of the grid CA on the controller.
    """

    def __init__(self, lab: str, inventory: Path, pki: Path) -> None:
        self.lab = Lab(lab)
        self.inventory = inventory
        self.pki = pki
        #: Further sources of inventory, which need not be there yet.
        self.more_inventory: list[Path] = []

    @property
    def authority(self) -> Path:
        """The certificate of the grid CA, which everybody may have."""
        return self.pki / "current" / "grid-ca.pem"

    def play(
        self,
        playbook: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: int = 900,
        inside: bool = False,
    ) -> Run:
        """Run a playbook of the collection on the whole grid to its end, whatever that is.

        inside: on the lab's own side of the network, for a controller that talks to more of its hosts than SSH.
        """
        command = self.command(playbook, *arguments)
        command = self.lab.inside(*command) if inside else command
        return run_playbook(command, CHECKOUT, self.surroundings(environment), timeout_seconds)

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """The command line for a verb."""
        sources = [LAB_HOSTS, self.inventory, *self.more_inventory]
        inventory = [word for source in sources for word in ("-i", str(source))]
        return ["ansible-playbook", *inventory, str(CHECKOUT / "playbooks" / f"{playbook}.yml"), *arguments]

    def surroundings(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a playbook."""
        own = {"PYGRID_LAB": self.lab.name, "MOLECULE_PROJECT_DIRECTORY": str(CHECKOUT)}
        return {**os.environ, **own, **(more or {})}

    def must_play(self, playbook: str, *arguments: str, **options: Any) -> Run:
        """Like play(), and insist on success."""
        run = self.play(playbook, *arguments, **options)
        assert run.returncode == 0, run.output[-6000:]
        return run

    def place(self, host: str) -> str:
        """The lab's name of a host."""
        return host

    def address(self, host: str) -> str:
        return self.lab.network.address(self.lab.hosts[self.place(host)].number)

    def url(self, node: str) -> str:
        return f"https://{self.address(node)}"

    def run(self, host: str, command: str, account: str = "root", seconds: float = 120, text: str = "") -> Answer:
        """Run a shell command on a host, as root or as another account; ``text`` is its standard input."""
        if account != "root":
            command = f"runuser -u {account} -- sh -c {shlex.quote(command)}"
        done = subprocess.run(
            self.lab.ssh_command(self.place(host), command),
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        return Answer(done.returncode, done.stdout + done.stderr)

    def reaches(self, source: str, host: str, port: int, account: str = "root", seconds: int = 5) -> bool:
        """Whether a TCP port of a host is open for an account on another one."""
        probe = f"timeout {seconds} bash -c 'exec 3<>/dev/tcp/{self.address(host)}/{port}'"
        return self.run(source, probe, account).succeeded

    def must(self, host: str, command: str, **options: Any) -> str:
        """Like run(), for what is no part of the question."""
        answer = self.run(host, command, **options)
        assert answer.succeeded, f"{host}: {command}: {answer.text}"
        return answer.text.strip()

    def put(self, host: str, content: bytes, path: str) -> None:
        """Write a private file on a host."""
        command = self.lab.ssh_command(self.place(host), f"umask 077; cat > {shlex.quote(path)}")
        subprocess.run(command, input=content, check=True, timeout=120)

    def status(self, host: str, node: str) -> dict[str, Any]:
        """What a node says of itself on its control socket."""
        command = f"curl -s --max-time 20 --unix-socket /run/pygrid/{node}/control.sock http://node/status"
        return json.loads(self.must(host, command))

    def wait_ready(self, host: str, node: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while True:
            answer = self.run(
                host, f"curl -s --max-time 20 --unix-socket /run/pygrid/{node}/control.sock http://node/healthz/ready"
            )
            if '"status":"ready"' in answer.text.replace(" ", ""):
                return
            assert time.monotonic() < end, f"{node} is not ready after {seconds:.0f} s: {answer.text[:500]}"
            time.sleep(1)

    def exposure(self, host: str, unit: str) -> float:
        """How systemd rates the sandbox of a unit: from 0 (closed) to 10 (open)."""
        said = self.must(host, f"systemd-analyze security --no-pager {unit}")
        rating = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
        assert rating, said[-300:]
        return float(rating[1])

    def eventually(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not so within {seconds:.0f} s"
            time.sleep(0.5)

    def identity(self, node: str, folder: Path) -> Path:
        """A copy of the file with a node's root account, for its owner."""
        file = folder / f"{node}.json"
        file.touch(mode=0o600)
        file.write_text(self.must(node, f"cat /etc/pygrid/nodes/{node}/identity.json"))
        return file

    def client(self, *words: str | Path, seconds: float = 180) -> dict[str, Any]:
        """A command of grid_client.py, run on the controller's side of the network with nothing but the CA file."""
        return self._program(CLIENT, words, seconds)

    def bring_demo(self, host: str) -> str:
        """Have a folder on a host with the example, the CA and what the owners bring: their accounts."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(DEMO, arcname=DEMO.name, filter=lambda entry: None if "__pycache__" in entry.name else entry)
        self.must(host, f"rm -rf {WORK} && mkdir -m 700 {WORK}")
        self.put(host, packed.getvalue(), f"{WORK}/demo.tar")
        self.must(host, f"tar -C {WORK} -xf {WORK}/demo.tar")
        self.put(host, self.authority.read_bytes(), f"{WORK}/ca.pem")
        for domain in ("alice", "bob"):
            account = self.must(domain, f"cat /etc/pygrid/nodes/{domain}/identity.json")
            self.put(host, account.encode(), f"{WORK}/{domain}.json")
        return WORK

    def train(self, host: str, python: str, rounds: int) -> dict[str, Any]:
        """Train a model over the data of alice and bob, from a host; returns what the example found."""
        self.bring_demo(host)
        domains = " ".join(f"--domain {name} {self.url(name)} {WORK}/{name}.json" for name in ("alice", "bob"))
        trust = f"REQUESTS_CA_BUNDLE={WORK}/ca.pem SSL_CERT_FILE={WORK}/ca.pem"
        command = f"cd {WORK} && {trust} {python} -B -m federated_breast_cancer --network net {self.url('net')}"
        self.must(host, f"{command} {domains} --results {WORK}/results --rounds {rounds}", seconds=300)
        return json.loads(self.must(host, f"cat {WORK}/results/results.json"))

    def attack(self, *words: str | Path, seconds: float = 120) -> dict[str, Any]:
        """A command of attacks.py, run like that."""
        return self._program(ATTACKS, words, seconds)

    def _program(self, program: Path, words: tuple[str | Path, ...], seconds: float) -> dict[str, Any]:
        environment = {
            "PATH": os.defpath,
            "HOME": os.environ.get("HOME", "/"),
            "REQUESTS_CA_BUNDLE": str(self.authority),
            "SSL_CERT_FILE": str(self.authority),
        }
        python = os.environ["PYGRID_TEST_PYTHON"]
        done = subprocess.run(
            self.lab.inside(python, str(program), *map(str, words)),
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def grid() -> Intranet:
    """The grid of the molecule scenario that runs."""
    lab = os.environ["MOLECULE_SCENARIO_NAME"]
    scenario = CHECKOUT / "molecule" / lab
    links = yaml.safe_load((scenario / "molecule.yml").read_text())["provisioner"]["inventory"]["links"]
    return Intranet(lab, scenario / links["grid"], CHECKOUT / ".cache" / "lab" / f"pki-{lab}")
