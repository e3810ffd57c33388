# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time: a second one is refused and told why, and a dead one bars nobody's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils.lease import (
    HeldError,
    Lease,
    current_lease,
    give_lease_back,
    hold_lease,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.plugin_utils import controller_process

CHECKOUT = Path(__file__).parents[3]
PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - openmined.pygrid.lease: {{home: {home}, verb: upgrade}}
    - ansible.builtin.command: {{argv: [sh, -c, 'touch {flag}; sleep {seconds}']}}
    - openmined.pygrid.lease: {{home: {home}, state: released}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "grid")


class TestClock:
    LEASE = Lease("me", "me@here", "upgrade", 100, 1_700_000_000.0, 1000.0)

    def test_it_ends_by_itself(self) -> None:
        assert self.LEASE.left_seconds(1000.0) == 100
        assert self.LEASE.left_seconds(1090.0) == 10
        assert self.LEASE.left_seconds(1101.0) == 0

    def test_setting_the_time_changes_nothing(self) -> None:
        moved = replace(self.LEASE, since=0.0)
        assert moved.left_seconds(1090.0) == 10

    def test_a_reboot_starts_its_time_anew(self) -> None:
        assert self.LEASE.left_seconds(20.0) == 80
        assert self.LEASE.left_seconds(101.0) == 0


def test_only_one_has_it(home: Home) -> None:
    hold_lease(home, "one", "ann@here", "upgrade", 600)
    with pytest.raises(HeldError, match=r"upgrade by ann@here has been at work here since .*10 minutes.*take_over"):
        hold_lease(home, "two", "bob@there", "restore", 600)
    assert not give_lease_back(home, "two")
    first = current_lease(home)
    again = hold_lease(home, "one", "ann@here", "upgrade", 900)
    assert first is not None
    assert (again.since, again.seconds) == (first.since, 900)
    assert give_lease_back(home, "one")
    hold_lease(home, "two", "bob@there", "restore", 600)


def test_it_may_be_taken_from_one_that_is_known_to_be_dead_and_from_no_other(home: Home) -> None:
    hold_lease(home, "one", "ann@here", "upgrade", 600)
    with pytest.raises(HeldError):
        hold_lease(home, "two", "bob@there", "restore", 600, over="three")
    hold_lease(home, "two", "bob@there", "restore", 600, over="one")
    hold_lease(home, "three", "eve@there", "scale", 600, over="*")


def test_after_its_end_it_is_anybodys(home: Home) -> None:
    hold_lease(home, "one", "ann@here", "upgrade", 0)
    hold_lease(home, "two", "bob@there", "restore", 600)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_which_runs_are_dead(process: subprocess.Popen[bytes]) -> None:
    machine, boot, *_own = controller_process.own_name().split(":")
    began = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    name = f"{machine}:{boot}:{process.pid}:{began}"
    assert not controller_process.is_dead(name)
    assert controller_process.is_dead(f"{machine}:{boot}:{process.pid}:1"), "its number was given to another process"
    assert controller_process.is_dead(f"{machine}:before-a-reboot:{process.pid}:{began}")
    assert not controller_process.is_dead(f"elsewhere:{boot}:{process.pid}:1")
    assert not controller_process.is_dead("made by a later version")
    process.kill()
    process.wait()
    assert controller_process.is_dead(name)


def start(folder: Path, home: Home, seconds: int, *options: str) -> tuple[subprocess.Popen[str], Path]:
    """A run that holds the lease for a while, and the file that it makes once it does."""
    flag = folder / f"holds-{time.monotonic_ns()}"
    playbook = folder / f"{flag.name}.yml"
    playbook.write_text(PLAYBOOK.format(home=home.root, flag=flag, seconds=seconds))
    interpreter = f"ansible_python_interpreter={sys.executable}"
    program = Path(sys.executable).parent / "ansible-playbook"
    run = subprocess.Popen(
        [program, "-i", "localhost,", "-c", "local", "-e", interpreter, playbook, *options],
        cwd=CHECKOUT,
        env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    return run, flag


@pytest.mark.timeout(120)
def test_real_runs(tmp_path: Path, home: Home) -> None:
    first, flag = start(tmp_path, home, 40)
    while not flag.exists():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    second, _flag = start(tmp_path, home, 0)
    refused = second.communicate()[0]
    assert second.returncode != 0
    assert f"upgrade by {controller_process.getpass.getuser()}@" in refused
    assert f"(process {first.pid})" in refused
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    third, flag = start(tmp_path, home, 0)
    output = third.communicate()[0]
    assert third.returncode == 0, output
    assert flag.exists()
    assert current_lease(home) is None


@pytest.mark.timeout(120)
def test_a_run_of_another_controller_is_waited_for(tmp_path: Path, home: Home) -> None:
    hold_lease(home, "elsewhere:boot:1:1", "ann@elsewhere (process 1)", "restore", 600)
    refused, _flag = start(tmp_path, home, 0)
    assert "restore by ann@elsewhere" in refused.communicate()[0]
    assert refused.returncode != 0
    checked, _flag = start(tmp_path, home, 0, "--check")
    assert "restore by ann@elsewhere" in checked.communicate()[0]
    document = json.loads((home.locks / "lease.json").read_text())
    assert document["holder"] == "elsewhere:boot:1:1"
