# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a host: files, homes, checks, and a real supervisord."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.grid import processes_below

from ansible_collections.openmined.pygrid.plugins.module_utils import pythons
from ansible_collections.openmined.pygrid.plugins.module_utils.files import (
    link_atomic,
    locked,
    write_atomic,
    write_if_different,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.homes import clean_up, ensure_home
from ansible_collections.openmined.pygrid.plugins.module_utils.host_checks import check_data, check_ports, version_tuple
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, resolve_home
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import ServiceSpec
from ansible_collections.openmined.pygrid.plugins.module_utils.services.supervisor import Supervisor
from ansible_collections.openmined.pygrid.plugins.module_utils.settings import full_settings


def test_files_are_replaced_whole_and_private(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    write_atomic(file, "old")
    assert file.stat().st_mode & 0o777 == 0o600
    assert write_if_different(file, "new")
    assert not write_if_different(file, "new")
    file.chmod(0o644)
    assert write_if_different(file, "new")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_link_flips_and_leaves_nothing(tmp_path: Path) -> None:
    link_atomic(tmp_path / "current", "one")
    link_atomic(tmp_path / "current", "two")
    assert (tmp_path / "current").readlink() == Path("two")
    assert len(list(tmp_path.iterdir())) == 1


def test_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> None:
        with locked(tmp_path / "locks" / "x.lock"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1, 1]


def test_home_is_private_and_leaves_no_trace(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "b" / "pygrid")
    ensure_home(home)
    assert home.root.stat().st_mode & 0o777 == 0o700
    home.cache.mkdir()
    assert clean_up(home)
    assert list(tmp_path.iterdir()) == []
    assert not clean_up(home)


def test_home_keeps_what_is_not_ours_and_data(tmp_path: Path) -> None:
    home = Home(tmp_path / "pygrid")
    ensure_home(home)
    data = home.node("alice").data
    data.mkdir(parents=True)
    clean_up(home)
    assert data.is_dir()
    assert not home.locks.exists()


def test_home_with_a_node_is_not_cleaned(tmp_path: Path) -> None:
    home = Home(tmp_path / "pygrid")
    home.node("alice").root.mkdir(parents=True)
    home.node("alice").settings.write_text("{}")
    home.releases.mkdir()
    assert not clean_up(home)
    assert home.releases.exists()


def test_home_from_variable_and_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert resolve_home("") == tmp_path / "pygrid"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/people/ada")
    assert resolve_home("") == Path("/people/ada/.local/share/pygrid")
    assert resolve_home("~/grid") == Path("/people/ada/grid")


def test_own_port_is_no_clash_and_a_strangers_is(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert check_ports("127.0.0.1", {"pygrid_domain_port": port}, own_pid=os.getpid()) == []
        (problem,) = check_ports("127.0.0.1", {"pygrid_domain_port": port}, own_pid=None)
    assert f"(process {os.getpid()})" in problem
    assert check_ports("127.0.0.1", {"pygrid_domain_port": port}, own_pid=None) == []


def test_address_of_another_host(tmp_path: Path) -> None:
    (problem,) = check_ports("192.0.2.1", {"pygrid_domain_port": 5000}, own_pid=None)
    assert "cannot be opened" in problem


def test_data_of_this_identity_and_older_version_is_fine(tmp_path: Path) -> None:
    node = Home(tmp_path).node("alice")
    node.data.mkdir(parents=True)
    node.identity.write_text(json.dumps({"uid": "a"}))
    node.owner.write_text(json.dumps({"uid": "a", "syft_version": "0.9.2"}))
    assert check_data(node, "0.9.5", None) == []


def test_versions_compare_as_numbers() -> None:
    assert version_tuple("0.10.0") > version_tuple("0.9.5") > version_tuple("0.9.1")


def test_python_is_found_and_named() -> None:
    own, problem = pythons.find("")
    assert problem is None
    assert own is not None
    assert own.is_supported
    named, problem = pythons.find(own.path)
    assert problem is None
    assert named == own
    assert own.tag == f"cp{sys.version_info[0]}{sys.version_info[1]}" or sys.version_info[:2] not in pythons.SUPPORTED


def test_worker_shares_the_files_of_its_domain() -> None:
    settings = full_settings(Home(Path("/grid")), "w1", "worker", {"domain": {"name": "alice"}})
    assert settings["database_url"] == "sqlite:////grid/nodes/alice/data/node.db"
    assert settings["blob_directory"] == "/grid/nodes/alice/data/blobs"
    assert settings["identity_file"] == "/grid/nodes/w1/identity.json"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A real supervisord, from the environment that runs the tests."""
    home = Home(tmp_path / "h")
    ensure_home(home)
    tools = home.tools / "supervisor-0" / "bin"
    tools.mkdir(parents=True)
    wrapper = tools / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    manager = Supervisor(home)
    yield manager
    manager.shutdown()


def service(tmp_path: Path, program: str, name: str = "alice") -> ServiceSpec:
    (tmp_path / "run dir").mkdir(exist_ok=True)
    return ServiceSpec(
        name=name,
        kind="domain",
        command=[sys.executable, "-c", program],
        directory=str(tmp_path / "run dir"),
        log_file=str(tmp_path / "run dir" / "100% alice.log"),
        stop_seconds=5,
    )


def wait_for(supervisor: Supervisor, state: str, not_pid: int | None = None) -> int | None:
    end = time.monotonic() + 20
    while True:
        seen = supervisor.state("alice")
        if seen.state == state and (not_pid is None or (seen.pid and seen.pid != not_pid)):
            return seen.pid
        assert time.monotonic() < end, seen
        time.sleep(0.05)


def test_service_lives_through_its_whole_life(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = service(tmp_path, "import time; print('up', flush=True); time.sleep(600)")
    assert supervisor.state("alice").state == "absent"
    assert not supervisor.is_known("alice")
    assert not supervisor.is_defined(spec)
    supervisor.run(spec)
    assert supervisor.is_known("alice")
    assert supervisor.is_defined(spec)
    first = wait_for(supervisor, "running")
    os.kill(first or 0, signal.SIGKILL)
    second = wait_for(supervisor, "running", not_pid=first)
    assert "up" in Path(spec.log_file).read_text()
    supervisor.stop("alice", 5)
    assert supervisor.state("alice").state == "stopped"
    assert not Path(f"/proc/{second}").exists()
    supervisor.run(spec)
    third = wait_for(supervisor, "running")
    supervisor.run(service(tmp_path, "import time; time.sleep(601)"))
    wait_for(supervisor, "running", not_pid=third)
    supervisor.remove("alice", 5)
    supervisor.remove("alice", 5)
    assert supervisor.state("alice").state == "absent"


def test_service_that_ends_at_once_is_seen(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = service(tmp_path, "raise SystemExit(78)")
    supervisor.run(spec)
    wait_for(supervisor, "failing")


def test_secrets_of_the_caller_do_not_reach_a_service(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_PASSWORD", "open sesame")
    spec = service(tmp_path, "import time; time.sleep(600)")
    supervisor.run(spec)
    pid = wait_for(supervisor, "running")
    assert b"sesame" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_supervisord_starts_once_for_many_callers(supervisor: Supervisor, tmp_path: Path) -> None:
    names = ["alice", "bob", "net", "w1", "w2"]
    specs = [service(tmp_path, "import time; time.sleep(600)", name) for name in names]
    threads = [threading.Thread(target=supervisor.run, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(supervisor, "running")
    assert len(dict(processes_below(f"-c {tmp_path}/h/supervisor/supervisord.conf"))) == 1
