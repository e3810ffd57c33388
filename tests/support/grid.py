# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid of its own for a test: other folder, other ports, same playbooks as a user runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.playbook import Run, run_playbook

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class LocalGrid:
    """The grid of ``inventories/local`` below ``root``, its ports counted from ``first_port``.

    Playbooks are those of the checkout, or with ``collection`` (its name) those of the collection that
    ``surroundings``, the whole environment of ansible-playbook, lead to; then they are started in ``root``.
    """

    root: Path
    first_port: int
    collection: str | None = None
    surroundings: Mapping[str, str] | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.root / "grid"

    @property
    def ports(self) -> dict[str, int]:
        names = ("net", "alice", "bob", "alice-w1", "bob-w1", "alice queue", "bob queue", "alice-w2", "alice-w3")
        return {name: self.first_port + number for number, name in enumerate(names)}

    @property
    def serving(self) -> dict[str, int]:
        """Port of each node that a data scientist talks to."""
        return {name: self.ports[name] for name in ("net", "alice", "bob")}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def inventory(self) -> dict[str, Any]:
        """The inventory as data; ``overrides`` go to single hosts, ``variables`` to all."""
        port = self.ports
        hosts = {
            "net": {"pygrid_network_port": port["net"]},
            "alice": {"pygrid_domain_port": port["alice"], "pygrid_domain_queue_port": port["alice queue"]},
            "bob": {"pygrid_domain_port": port["bob"], "pygrid_domain_queue_port": port["bob queue"]},
            "alice-w1": {"pygrid_worker_domain": "alice", "pygrid_worker_port": port["alice-w1"]},
            "bob-w1": {"pygrid_worker_domain": "bob", "pygrid_worker_port": port["bob-w1"]},
        }
        for name, values in self.overrides.items():
            hosts.setdefault(name, {}).update(values)
        groups = {
            "pygrid_network": ["net"],
            "pygrid_domain": ["alice", "bob"],
            "pygrid_worker": ["alice-w1", "bob-w1"],
        }
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "pygrid_home": str(self.home),
            "pygrid_worker_packages": ["scikit-learn==1.5.2"],
            **({"pygrid_package_cache": os.environ["UV_CACHE_DIR"]} if "UV_CACHE_DIR" in os.environ else {}),
            **self.variables,
        }
        children = {group: {"hosts": {name: hosts[name] for name in names}} for group, names in groups.items()}
        return {"pygrid": {"vars": common, "children": children}}

    @property
    def scale_file(self) -> Path:
        """Where scale.yml keeps what it decided."""
        return self.root / "inventory" / "pygrid-scale.yml"

    def write_inventory(self) -> Path:
        path = self.root / "inventory" / "hosts.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.inventory(), indent=2))
        return path

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """The command line for a verb, or for a playbook of one's own (a path)."""
        target = f"{self.collection}.{playbook}" if self.collection else str(CHECKOUT / "playbooks" / f"{playbook}.yml")
        target = playbook if playbook.endswith(".yml") else target
        return ["ansible-playbook", "-i", str(self.write_inventory().parent), target, *arguments]

    def play(
        self, playbook: str, *arguments: str, environment: Mapping[str, str] | None = None, timeout_seconds: int = 600
    ) -> Run:
        """Run a playbook to its end, whatever that is."""
        surroundings = {**(os.environ if self.surroundings is None else self.surroundings), **(environment or {})}
        folder = self.root if self.collection else CHECKOUT
        return run_playbook(self.command(playbook, *arguments), folder, surroundings, timeout_seconds)

    def must_play(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook and insist on success."""
        run = self.play(playbook, *arguments)
        assert run.returncode == 0, run.output
        return run

    def deploy(self, *arguments: str) -> Run:
        return self.must_play("deploy", *arguments)

    def remove(self) -> None:
        """Take everything away, also when the grid is half there; used to clean up."""
        self.play("remove", "-e", "pygrid_remove_data=true", "-e", "pygrid_confirm=true")
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)

    def processes(self) -> dict[int, str]:
        """Every process that runs from this grid's folder, with its command line."""
        return dict(processes_below(str(self.home)))

    def pid_of(self, name: str) -> int:
        """The process that the service manager keeps running for a node."""
        return int(self.ready(name)["pid"])

    def node_file(self, name: str, relative: str) -> Path:
        return self.home / "nodes" / name / relative

    def identity(self, name: str) -> dict[str, str]:
        return json.loads(self.node_file(name, "identity.json").read_text())

    def get(self, name: str, path: str) -> dict[str, Any]:
        """GET a JSON document from a node's TCP port."""
        with urllib.request.urlopen(f"{self.url(name)}{path}", timeout=10) as answer:  # noqa: S310 - our own URL
            return json.load(answer)

    def ready(self, name: str) -> dict[str, Any]:
        return self.get(name, "/healthz/ready")

    def wait_ready(self, name: str, timeout_seconds: float = 90, not_pid: int | None = None) -> dict[str, Any]:
        """Wait until a node is ready, in another process than ``not_pid`` when one is given."""
        end = time.monotonic() + timeout_seconds
        while True:
            try:
                answer = self.ready(name)
                if answer["status"] == "ready" and answer["pid"] != not_pid:
                    return answer
            except OSError:
                pass
            assert time.monotonic() < end, f"{name} was not ready within {timeout_seconds} s"
            time.sleep(0.3)

    def client(self, verb: str, name: str, *arguments: object, timeout_seconds: int = 180) -> Any:
        """Run a verb of grid_client.py against a node, with its root account where the verb needs one."""
        work = self.root / "client"
        work.mkdir(exist_ok=True)
        account = [] if verb == "peers" else [str(self.node_file(name, "identity.json"))]
        process = subprocess.run(
            [
                str(self.node_file(name, "current/env/bin/python")),
                str(Path(__file__).with_name("grid_client.py")),
                verb,
                self.url(name),
                *account,
                *map(str, arguments),
            ],
            env={"HOME": str(work), "TMPDIR": str(work), "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
        return json.loads(process.stdout.strip().splitlines()[-1])


def processes_below(folder: str) -> Iterator[tuple[int, str]]:
    """Process ids and command lines of all processes that have ``folder`` in their command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if folder in command and state != "Z" and int(entry.name) != os.getpid():
            yield int(entry.name), command
