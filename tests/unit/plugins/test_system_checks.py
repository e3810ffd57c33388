# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of a machine, on folders that look like one and on this machine itself."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import system_checks
from ansible_collections.openmined.pygrid.plugins.module_utils.listeners import unit_of
from ansible_collections.openmined.pygrid.plugins.module_utils.system_checks import (
    check_clock,
    check_init,
    check_limits,
    check_memory,
    check_names,
    check_operating_system,
    check_reach,
    check_rights,
    check_selinux,
    check_shared_ports,
    check_space,
    check_system,
    is_local_address,
)


def machine(root: Path, **files: str) -> Path:
    """A folder with files of /proc, /sys and /etc; two underscores stand for a slash."""
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_clock_names_both_times() -> None:
    assert list(check_clock(1_000_000_000.0, 1_000_000_029.0)) == []
    (problem,) = check_clock(1_000_000_000.0, 1_000_000_600.0)
    assert "2001-09-09 01:56:40 UTC when that of the controller says 2001-09-09 01:46:40 UTC, 600 s apart" in problem


def test_no_word_of_the_controller_is_no_problem() -> None:
    assert list(check_clock(None, 0.0)) == []


@pytest.mark.parametrize(
    ("needed", "problems", "warnings"), [(1000, 0, 0), (1700, 0, 1), (2100, 1, 0)], ids=["fits", "little", "too little"]
)
def test_memory(tmp_path: Path, needed: int, problems: int, warnings: int) -> None:
    found = check_memory(needed, machine(tmp_path, proc__meminfo="MemTotal:        2000000 kB\n"))
    assert [len(part) for part in found] == [problems, warnings]


def test_memory_of_a_container_counts(tmp_path: Path) -> None:
    files = {"proc__meminfo": "MemTotal: 64000000 kB\n", "sys__fs__cgroup__memory.max": "500000000\n"}
    ((problem,), _warnings) = check_memory(800, machine(tmp_path, **files))
    assert "it has 500 MB" in problem


def test_space_is_added_up_for_one_disk(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    half = status.f_bavail * status.f_frsize // 1_000_000 * 6 // 10
    one, other = ({"path": str(tmp_path / name), "mb": half} for name in ("not-yet", "there"))
    assert list(check_space([one])) == []
    (problem,) = check_space([one, other])
    assert problem.startswith(f"{one['path']} and {other['path']}: ")


def test_inodes(tmp_path: Path) -> None:
    if not os.statvfs(tmp_path).f_files:
        pytest.skip("this file system has no fixed number of inodes")
    (problem,) = check_space([{"path": str(tmp_path), "mb": 0, "files": 10**12}])
    assert "files can still be made" in problem


def test_programs_need_a_disk_with_exec() -> None:
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    noexec = [mount for mount in mounts if Path(mount).is_dir() and os.statvfs(mount).f_flag & os.ST_NOEXEC]
    if not noexec:
        pytest.skip("every disk of this machine is mounted with exec")
    found = list(check_space([{"path": noexec[0], "mb": 0, "programs": True}]))
    assert any(problem.startswith(f"{noexec[0]} is mounted noexec") for problem in found)


def test_names() -> None:
    (problem,) = check_names({"a": "jobs", "b": "blobs"}, lambda name: name == "a")
    assert problem.startswith("the name b (blobs) does not resolve")


def test_address_of_another_machine_is_worth_a_word() -> None:
    (warning,) = check_reach("grid.example", lambda _name: ["192.0.2.1"], is_local_address)
    assert "pygrid_address is grid.example, which is none of its own addresses" in warning
    assert list(check_reach("here", lambda _name: ["127.0.1.1"], is_local_address)) == []
    assert list(check_reach("here", lambda _name: ["192.0.2.1"], lambda _address: True)) == []
    assert list(check_reach(None, lambda _name: [], is_local_address)) == []


def test_loopback_is_an_address_of_this_machine() -> None:
    assert is_local_address("127.0.0.1")
    assert not is_local_address("192.0.2.1")


def test_port_of_the_proxy_in_use_by_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        entry = {"variable": "pygrid_https_port", "port": server.getsockname()[1]}
        (problem,) = check_shared_ports([entry])
        assert f"(process {os.getpid()}" in problem
        own = unit_of(os.getpid()) or "^$"
        monkeypatch.setattr(system_checks, "OWN_UNITS", system_checks.re.compile(own))
        assert list(check_shared_ports([entry])) == []
    assert list(check_shared_ports([entry])) == []


def test_root_without_capabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    root = machine(tmp_path, proc__self__status="CapEff:\t00000000a80425fb\n")
    assert [problem.split()[4] for problem in check_rights(root)] == ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
    machine(tmp_path, proc__self__status="CapEff:\t000001ffffffffff\n")
    assert list(check_rights(root)) == []


def test_other_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (problem,) = check_rights(tmp_path)
    assert "ansible_become" in problem


def test_init_is_named(tmp_path: Path) -> None:
    (problem,) = check_init(machine(tmp_path, proc__1__comm="runit\n"))
    assert "(runit is process 1)" in problem


@pytest.mark.parametrize(("said", "problems"), [("systemd 252 (252.1)", 0), ("systemd 241 (241)", 1)])
def test_systemd_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, problems: int) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(system_checks, "output_of", lambda argv: said)
    assert len(list(check_init(tmp_path))) == problems


def test_control_groups(tmp_path: Path) -> None:
    assert len(list(check_limits(True, tmp_path))) == 1
    assert list(check_limits(False, tmp_path)) == []
    assert list(check_limits(True, machine(tmp_path, **{"sys__fs__cgroup__cgroup.controllers": "cpu\n"}))) == []


def test_selinux(tmp_path: Path) -> None:
    assert list(check_selinux(tmp_path)) == []
    assert len(list(check_selinux(machine(tmp_path, sys__fs__selinux__enforce="1")))) == 1
    assert list(check_selinux(machine(tmp_path, sys__fs__selinux__enforce="0"))) == []


def test_operating_system(tmp_path: Path) -> None:
    assert list(check_operating_system(machine(tmp_path, **{"etc__os-release": 'ID=debian\nVERSION_ID="12"\n'}))) == []
    (warning,) = check_operating_system(machine(tmp_path, **{"etc__os-release": 'ID="rocky"\nVERSION_ID="9.4"\n'}))
    assert "not tested on rocky 9.4" in warning


def test_a_disk_that_is_nearly_full_stops_only_the_first_deploy(tmp_path: Path) -> None:
    needs = {"space": [{"path": str(tmp_path), "mb": 10**9}, {"path": str(tmp_path), "mb": 10**9, "release": True}]}
    first, later = (check_system(needs, staged, tmp_path) for staged in (False, True))
    text = "make room"
    assert any(text in problem for problem in first.problems)
    assert not any(text in problem for problem in later.problems)
    assert any(text in warning for warning in later.warnings)


def test_this_machine_is_looked_at_without_an_error() -> None:
    needs = {
        "controller_time": time.time(),
        "reach": "127.0.0.1",
        "names": {"localhost": "itself"},
        "memory_mb": 1,
        "space": [{"path": "/", "mb": 0}],
        "ports": [],
        "limits": True,
    }
    findings = check_system(needs, staged=False)
    assert not any("clock" in problem or "resolve" in problem for problem in findings.problems)
