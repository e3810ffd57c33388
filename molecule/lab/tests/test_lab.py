# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own promises: what a scenario may do to its hosts, tried on two of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(CHECKOUT))

from tests.lab.groups import Group, hierarchies  # noqa: E402 - the path is known only now
from tests.lab.lab import Lab  # noqa: E402
from tests.lab.network import users  # noqa: E402

OUTSIDE = "192.0.2.1"  # nobody's: kept for examples


@pytest.fixture
def lab() -> Lab:
    if os.environ.get("PYGRID_TEST_DRIVER") == "docker":
        pytest.skip("containers have no such mishaps: only the lab's own hosts have")
    return Lab(os.environ["MOLECULE_SCENARIO_NAME"])


def ssh(lab: Lab, name: str, command: str, *options: str, user: str = "root") -> subprocess.CompletedProcess[str]:
    words = lab.ssh_command(name, command, user=user, shared=not options)
    words[1:1] = options
    return subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)


def said(lab: Lab, name: str, command: str, user: str = "root") -> str:
    answer = ssh(lab, name, command, user=user)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def reaches(lab: Lab, name: str, other: str, port: int = 22) -> bool:
    """Whether a host can open a connection to another one."""
    return ssh(lab, name, f"timeout 2 bash -c 'echo > /dev/tcp/{other}/{port}'").returncode == 0


def test_systemd_is_pid_1_and_has_booted(host: Any) -> None:
    assert host.process.get(pid=1).comm == "systemd"
    assert host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded")


def test_control_groups_are_those_of_version_2(lab: Lab) -> None:
    """As on every machine since Debian 11, whatever this one has: systemd filters addresses by them."""
    said(lab, "first", "systemd-run --quiet --wait timeout 5 bash -c 'echo > /dev/tcp/second/22'")
    denied = "systemd-run --quiet --wait -p IPAddressDeny=any timeout 2 bash -c 'echo > /dev/tcp/second/22'"
    assert ssh(lab, "first", denied).returncode != 0


def test_neighbours_reach_each_other_by_name(lab: Lab) -> None:
    assert reaches(lab, "first", "second")
    assert reaches(lab, "second", "first")


def test_host_keys_are_checked(lab: Lab) -> None:
    assert ssh(lab, "first", "true").returncode == 0
    stranger = ssh(lab, "first", "true", "-o", "UserKnownHostsFile=/dev/null")
    assert "Host key verification failed" in stranger.stderr


def test_sudo_with_and_without_password(lab: Lab) -> None:
    assert said(lab, "first", "sudo -n id -un", user="operator") == "root"
    assert ssh(lab, "first", "sudo -n id -un", user="careful").returncode != 0
    command = lab.ssh_command("first", "sudo -S -p '' id -un", user="careful")
    password = lab.password_file.read_text() + "\n"
    given = subprocess.run(command, input=password, capture_output=True, text=True, timeout=60, check=False)
    assert given.stdout.strip() == "root", given.stderr


def test_only_a_host_that_is_not_bare_has_packages_at_hand(lab: Lab) -> None:
    archives = "ls /var/cache/apt/archives | grep -c '[.]deb$' || true"
    assert int(said(lab, "first", archives)) > 0
    assert int(said(lab, "second", archives)) == 0
    assert ssh(lab, "second", "mountpoint -q /var/cache/pygrid/packages").returncode != 0


def test_an_unplugged_host_is_silent_and_comes_back(lab: Lab) -> None:
    try:
        lab.plug(["second"], connected=False)
        assert not reaches(lab, "first", "second")
        assert not lab.answers(lab.hosts["second"])
    finally:
        lab.plug(["second"], connected=True)
    lab.wait(lab.hosts["second"])
    assert reaches(lab, "first", "second")


def test_what_an_offline_host_sends_outside_is_counted(lab: Lab) -> None:
    lab.set_offline(["second"], True)
    try:
        assert reaches(lab, "second", "first")
        assert lab.leaked() == {"second": 0}
        assert not reaches(lab, "second", OUTSIDE, 80)
        assert lab.leaked()["second"] > 0
    finally:
        lab.set_offline(["second"], False)
    assert lab.leaked() == {}


def test_a_hidden_host_is_reached_through_its_neighbour_only(lab: Lab) -> None:
    lab.hide("second", "first")
    try:
        direct = lab.inside(
            "timeout", "1", "bash", "-c", f"echo > /dev/tcp/{lab.variables()['second']['ansible_host']}/22"
        )
        assert subprocess.run(direct, capture_output=True, check=False).returncode != 0
        assert said(lab, "second", "hostname") == "second"
    finally:
        lab.hide("second", None)
    assert said(lab, "second", "hostname") == "second"


def test_a_full_disk_is_full_and_can_be_emptied(lab: Lab) -> None:
    write = "head -c 20M /dev/zero > /var/tmp/filler; code=$?; rm -f /var/tmp/filler; exit $code"
    machine = lab.machine("second")
    machine.free_space(10)
    try:
        refused = ssh(lab, "second", write)
        assert "No space left on device" in refused.stderr
    finally:
        machine.free_space(None)
    assert ssh(lab, "second", write).returncode == 0


def test_a_wrong_clock_is_wrong_for_its_host_alone(lab: Lab) -> None:
    machine = lab.machine("first")
    machine.set_clock(600)
    try:
        times = [int(said(lab, name, "date +%s")) for name in ("first", "second")]
        assert 590 <= times[0] - times[1] <= 610
    finally:
        machine.set_clock(0)
    assert abs(int(said(lab, "first", "date +%s")) - int(said(lab, "second", "date +%s"))) < 10


def test_a_host_may_reboot_itself(lab: Lab) -> None:
    before = said(lab, "first", "cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestampMonotonic")
    lab.reboot(["first"])
    assert said(lab, "first", "systemctl show -p UserspaceTimestampMonotonic") not in before


def test_a_killed_host_leaves_no_process_and_keeps_its_data(lab: Lab) -> None:
    said(lab, "second", "echo kept > /root/data; systemd-run --quiet --unit busy sleep 1000")
    machine = lab.machine("second")
    namespace = lab.network.host_namespace("second")
    assert users(namespace)
    lab.kill(["second"])
    assert users(namespace) == []
    assert not machine.running()
    assert not reaches(lab, "first", "second")
    lab.boot(["second"])
    assert said(lab, "second", "cat /root/data") == "kept"
    assert ssh(lab, "second", "systemctl is-active --quiet busy").returncode != 0


def test_a_second_lab_beside_this_one_leaves_nothing(lab: Lab) -> None:
    other = Lab(f"{lab.name}-beside")
    try:
        other.up([{"name": "first", "disk_mb": 100}])
        assert other.subnet != lab.subnet
        assert said(other, "first", "hostname") == "first"
        folder, prefix = other.folder, other.prefix
    finally:
        other.down()
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert [space for space in Path("/run/netns").iterdir() if space.name.startswith(prefix)] == []
    assert [tree / prefix for tree in hierarchies() if (tree / prefix).exists()] == []
    assert Group(prefix).processes() == []
    named = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if readable(file)]
    assert [line for line in named if prefix.encode() in line] == []


def readable(file: Path) -> bool:
    """Whether the process still exists."""
    try:
        return bool(file.read_bytes())
    except OSError:
        return False
