# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: one clear message with host, variable and remedy, and nothing changed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.grid import CHECKOUT, LocalGrid, Run

UID = "11111111111141118111111111111111"
OTHER_UID = "22222222222242228222222222222222"


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[LocalGrid]:
    grid = LocalGrid(tmp_path, first_port=17100)
    yield grid
    grid.remove()


def refusal(grid: LocalGrid) -> str:
    """Deploy, insist that it is refused before anything is changed, and return what was said."""
    grid.write_inventory()
    before = sorted(str(path) for path in grid.root.rglob("*"))
    run: Run = grid.play("deploy")
    assert run.returncode != 0, run.output
    assert "nothing was changed" in run.output
    assert run.changed == 0
    assert sorted(str(path) for path in grid.root.rglob("*")) == before
    return " ".join(run.output.split())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            {"alice": {"pygrid_domain_prot": 5000}},
            "alice: pygrid_domain_prot is no variable of openmined.pygrid; did you mean pygrid_domain_port?",
        ),
        ({"alice": {"pygrid_domain_port": "five"}}, "alice: pygrid_domain_port is 'five'"),
        ({"alice": {"pygrid_domain_port": 70000}}, "alice: pygrid_domain_port is 70000; a port is a number from 1 to"),
        ({"net": {"pygrid_log_level": "LOUD"}}, "net: pygrid_log_level is 'LOUD'"),
        (
            {"bob": {"pygrid_domain_port": 17101}},
            "bob: pygrid_domain_port is 17101, as pygrid_domain_port of alice on the same host; choose another port",
        ),
        (
            {"bob-w1": {"pygrid_worker_domain": "carol"}},
            "bob-w1: pygrid_worker_domain is 'carol', which is no Domain of the inventory; one of alice, bob",
        ),
        ({"bob-w1": {"pygrid_worker_domain": None}}, "bob-w1: pygrid_worker_domain"),
        (
            {"bob": {"pygrid_name": "alice"}},
            "bob: pygrid_name is alice, as for alice; give each node of a grid its own name",
        ),
        ({"bob": {"pygrid_name": "../etc"}}, "bob: pygrid_name is '../etc'; a name has letters"),
        ({"net": {"pygrid_version": "0.9.1"}}, "net: version '0.9.1' is not supported"),
        ({"net": {"pygrid_version": "0.10.0"}}, "net: version '0.10.0' is not supported"),
        ({"net": {"pygrid_version": "nonsense"}}, "net: version 'nonsense' is not supported"),
        ({"alice": {"pygrid_domain_port": "{{ no_such_thing }}"}}, "alice: pygrid_domain_port cannot be worked out"),
    ],
)
def test_inventory_is_refused(grid: LocalGrid, overrides: dict, said: str) -> None:
    grid.overrides = overrides
    assert said in refusal(grid)


def test_all_problems_of_all_hosts_come_in_one_report(grid: LocalGrid) -> None:
    grid.overrides = {"alice": {"pygrid_domain_port": "x"}, "net": {"pygrid_version": "0.9.1"}}
    said = refusal(grid)
    assert "alice: pygrid_domain_port" in said
    assert "net: version" in said


def test_missing_required_variable(grid: LocalGrid) -> None:
    inventory = grid.inventory()
    del inventory["pygrid"]["children"]["pygrid_worker"]["hosts"]["bob-w1"]["pygrid_worker_domain"]
    grid.inventory = lambda: inventory  # type: ignore[method-assign]
    assert "bob-w1: pygrid_worker_domain is missing; it is needed for a worker" in refusal(grid)


def test_port_in_use_by_something_else(grid: LocalGrid) -> None:
    with socket.create_server(("127.0.0.1", grid.ports["alice"])):
        said = refusal(grid)
    assert (
        f"alice: pygrid_domain_port is {grid.ports['alice']}, but 127.0.0.1:{grid.ports['alice']} is in use by" in said
    )
    assert f"(process {os.getpid()}); free it or choose another port" in said


def test_python_too_old(grid: LocalGrid) -> None:
    """A program that answers as Python 3.9 does: few machines have a real one any more."""
    old = grid.root / "python3.9"
    grid.root.mkdir(exist_ok=True)
    old.write_text("#!/bin/sh\nprintf '%s\\n' /opt/python3.9 cpython 3 9 2\n")
    old.chmod(0o755)
    grid.variables = {"pygrid_python": str(old)}
    said = refusal(grid)
    assert f"net: pygrid_python is {old}, cpython 3.9.2; syft runs on CPython 3.10, 3.11 or 3.12" in said


def test_no_such_python(grid: LocalGrid) -> None:
    grid.variables = {"pygrid_python": "/no/such/python"}
    assert "net: pygrid_python is /no/such/python, which is no Python that can be run here" in refusal(grid)


def test_folder_that_is_a_file(grid: LocalGrid) -> None:
    (grid.root / "file").write_text("")
    grid.variables = {"pygrid_home": str(grid.root / "file" / "grid")}
    assert "is not a folder; choose another folder" in refusal(grid)


def test_too_long_a_folder(grid: LocalGrid) -> None:
    grid.variables = {"pygrid_home": str(grid.root / ("x" * 100))}
    assert "net: pygrid_home is too long" in refusal(grid)


def test_no_space(grid: LocalGrid) -> None:
    """A real file system of 20 MB, where this account may mount one."""
    disk = grid.root / "disk"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        grid.variables = {"pygrid_home": str(disk / "grid")}
        said = refusal(grid)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "MB free, a release needs about 1000 MB; make room or set pygrid_home to a larger disk" in said


def test_unwritable_folder(grid: LocalGrid) -> None:
    """A folder without write permission; for root, who may write that, one on a read-only file system."""
    locked = grid.root / "locked"
    locked.mkdir(parents=True, mode=0o555)
    grid.variables = {"pygrid_home": str(locked / "grid")}
    read_only = os.access(locked, os.W_OK)
    if read_only:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(locked)], check=True)
    try:
        assert f"but {locked} cannot be written by this account; make it writable or set" in refusal(grid)
    finally:
        if read_only:
            subprocess.run(["umount", str(locked)], check=True)


def test_lock_file_of_another_version(grid: LocalGrid) -> None:
    lock = grid.root / "lock.txt"
    lock.write_text("syft==0.9.3 --hash=sha256:" + "0" * 64 + "\n")
    grid.variables = {"pygrid_lock_file": str(lock)}
    assert "does not pin syft==0.9.5; pygrid_version and the lock must agree" in refusal(grid)


def test_lock_file_that_does_not_match_its_hashes(grid: LocalGrid) -> None:
    """Only the installation can find it; it leaves no release and no node behind."""
    text = (CHECKOUT / "roles/node/files/locks/syft-0.9.5.txt").read_text()
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("aiofiles=="))
    end = next(number for number in range(start, len(lines)) if not lines[number].endswith("\\"))
    wrong = [lines[start].split(" ")[0] + " \\", "    --hash=sha256:" + "0" * 64]
    lock = grid.root / "lock.txt"
    lock.write_text("\n".join([*lines[:start], *wrong, *lines[end + 1 :]]) + "\n")
    grid.variables = {"pygrid_lock_file": str(lock)}
    run = grid.play("deploy")
    assert run.returncode != 0
    assert "aiofiles" in run.output
    assert "hash" in run.output.lower()
    assert list((grid.home / "releases").glob("0.*")) == []
    assert not (grid.home / "nodes").exists()


def write_node(grid: LocalGrid, name: str, identity: dict | None, owner: dict | None) -> None:
    node = grid.home / "nodes" / name
    (node / "data").mkdir(parents=True)
    if identity:
        (node / "identity.json").write_text(json.dumps(identity))
    if owner:
        (node / "data" / "owner.json").write_text(json.dumps(owner))


def test_database_of_another_identity(grid: LocalGrid) -> None:
    write_node(grid, "alice", {"uid": UID}, {"uid": OTHER_UID, "verify_key": "", "syft_version": "0.9.5"})
    said = refusal(grid)
    assert f"holds the data of another identity ({OTHER_UID}, this node is {UID}); put back the identity" in said


def test_database_without_identity(grid: LocalGrid) -> None:
    write_node(grid, "alice", None, {"uid": OTHER_UID, "verify_key": "", "syft_version": "0.9.5"})
    assert f"alice: {grid.home}/nodes/alice/data holds the data of identity {OTHER_UID}" in refusal(grid)


def test_another_uid_for_a_node_that_has_one(grid: LocalGrid) -> None:
    write_node(grid, "alice", {"uid": UID}, None)
    grid.overrides = {"alice": {"pygrid_uid": OTHER_UID}}
    assert f"alice: pygrid_uid is {OTHER_UID}, but" in refusal(grid)


@pytest.mark.parametrize("trace", ["owner.json", "db/11111111111141118111111111111111.sqlite"])
def test_crossing_0_9_1_in_place(grid: LocalGrid, trace: str) -> None:
    owner = {"uid": UID, "verify_key": "", "syft_version": "0.9.1"} if trace == "owner.json" else None
    write_node(grid, "alice", {"uid": UID}, owner)
    if owner is None:
        file = grid.home / "nodes/alice/data" / trace
        file.parent.mkdir()
        file.write_bytes(b"")
    assert "would silently start empty" in refusal(grid)


def test_downgrade_in_place(grid: LocalGrid) -> None:
    write_node(grid, "alice", {"uid": UID}, {"uid": UID, "verify_key": "", "syft_version": "0.9.5"})
    grid.variables = {"pygrid_version": "0.9.2"}
    assert "set pygrid_version to 0.9.5 or newer" in refusal(grid)
