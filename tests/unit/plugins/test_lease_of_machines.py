# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a playbook does at its beginning and its end: all machines or none, and a record that tells how it went."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils.lease import current_lease, hold_lease, host_record
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.record import Record, runs

pytestmark = pytest.mark.timeout(180)

CHECKOUT = Path(__file__).parents[3]
PLAYBOOK = """
- hosts: pygrid
  gather_facts: false
  tasks:
    - name: "{{ __node_grid.grid | openmined.pygrid.grid_title }}" # which loads the filters once for all tasks
      ansible.builtin.meta: noop
    - ansible.builtin.import_role: {name: openmined.pygrid.node, tasks_from: begin}
      vars: {node_verb: upgrade}
    - ansible.builtin.command: {argv: [sh, -c, "touch {{ flag }}; sleep {{ seconds }}"]}
      run_once: true
    - ansible.builtin.fail: {msg: it broke}
      when: inventory_hostname == broken | default('')
    - ansible.builtin.import_role: {name: openmined.pygrid.node, tasks_from: end}
      vars: {node_verb: upgrade}
"""


class Machines:
    """Some machines, as far as leases are concerned: folders of this one."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.homes = {name: Home(folder / name) for name in names}
        nodes = {
            name: {
                "name": name, "location": name, "home": str(home.root), "scope": "user", "stop_seconds": 30,
                "release_source": {"version": "0.9.5"},
            }
            for name, home in self.homes.items()
        }  # fmt: skip
        variables = {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable,
            "__node_grid": {"grid": {"nodes": nodes, "hosts": {}, "scope": "user"}},
            "pygrid_record_file": str(folder / "record"),
        }  # fmt: skip
        hosts = {name: {"pygrid_home": str(home.root)} for name, home in self.homes.items()}
        (folder / "hosts.json").write_text(json.dumps({"pygrid": {"hosts": hosts, "vars": variables}}))
        (folder / "play.yml").write_text(PLAYBOOK)

    def start(self, seconds: float, *options: str) -> tuple[subprocess.Popen[str], Path]:
        """A run that stays for a while, and the file that it makes once it has begun."""
        flag = self.folder / f"flag-{time.monotonic_ns()}"
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", self.folder / "hosts.json"]
        command += ["-e", f"flag={flag} seconds={seconds}", *options, self.folder / "play.yml"]
        run = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(self.folder)},
        )  # fmt: skip
        return run, flag

    def play(self, *options: str) -> tuple[int, str]:
        run, _flag = self.start(0, *options)
        output = run.communicate()[0]
        return run.returncode, output

    def ends(self, name: str) -> list[str | None]:
        """How the runs ended of which the record of a machine tells."""
        return [run["result"] for run in runs(host_record(self.homes[name]).entries())]

    def controller(self) -> list[dict[str, Any]]:
        return runs(Record(self.folder / "record").entries())

    def leases(self) -> list[str]:
        return [name for name, home in self.homes.items() if current_lease(home)]


def test_all_machines_or_none(tmp_path: Path) -> None:
    """Two of three are somebody else's: both are named, and the third is given back."""
    machines = Machines(tmp_path, "one", "two", "three")
    for name in ("one", "three"):
        hold_lease(machines.homes[name], f"elsewhere:boot:1:{name}", f"ann@{name}", "restore", 600)
    code, output = machines.play()
    assert code != 0
    assert "nothing was changed" in output
    for name in ("one", "three"):
        assert re.search(rf"^ +{name}: restore by ann@{name} has been at work here", output, re.MULTILINE), output
    assert machines.leases() == ["one", "three"]
    assert machines.ends("two") == ["refused"]
    assert machines.ends("one") == [None], "that of the other"
    assert [run["result"] for run in machines.controller()] == ["refused"]

    code, output = machines.play("--check")
    assert code == 0, output
    assert "Without --check this run would be refused." in output
    assert machines.ends("two") == ["refused"], "a run that changes nothing is in no record"

    code, output = machines.play("-e", "pygrid_take_over=true")
    assert code == 0, output
    assert machines.ends("one") == ["cut off or failed", "done"]


def test_two_runs_at_once_never_work_side_by_side(tmp_path: Path) -> None:
    """One of them does all or each of them nothing; none keeps a machine."""
    machines = Machines(tmp_path, "one", "two")
    started = [machines.start(3) for _number in range(2)]
    outputs = [run.communicate()[0] for run, _flag in started]
    codes = [run.returncode for run, _flag in started]
    worked = [flag.exists() for _run, flag in started]
    assert worked == [code == 0 for code in codes], outputs
    assert sum(worked) <= 1, outputs
    for output, code in zip(outputs, codes, strict=True):
        assert code == 0 or "upgrade by " in output, output
    assert machines.leases() == []


def test_a_run_that_was_killed_and_one_that_failed(tmp_path: Path) -> None:
    machines = Machines(tmp_path, "one", "two")
    run, flag = machines.start(100)
    while not flag.exists():
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert machines.ends("one") == [None]
    assert machines.leases() == ["one", "two"]
    code, output = machines.play("-e", "broken=two")
    assert code != 0, output
    assert machines.ends("one") == ["cut off or failed", "failed"]
    assert machines.ends("two") == ["cut off or failed", None], "it failed here, before its end"
    assert [run["result"] for run in machines.controller()] == ["cut off or failed", "failed"]
    assert machines.controller()[1]["message"] == "it failed on two"
    code, output = machines.play()
    assert code == 0, output
    assert machines.ends("two") == ["cut off or failed", "failed", "done"], "as the controller knows it"
    latest = machines.controller()[-1]
    facts = [latest[key] for key in ("verb", "result", "wanted", "collection", "inventory", "changes")]
    assert facts == ["upgrade", "done", "0.9.5", "0.1.0", str(machines.folder / "hosts.json"), {}]
    assert machines.leases() == []
