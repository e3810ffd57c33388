# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases as ansible-playbook stages them: once per host, whole or not at all, never one in use removed.

Packages come from the cache that UV_CACHE_DIR (or uv's default) names; with a warm one all of this takes a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK = CHECKOUT / "roles" / "node" / "files" / "locks" / "syft-0.9.5.txt"
EXTRA = "humanize==4.9.0"
ANY_PACKAGE_CACHE = subprocess.run(
    [shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "uv", "cache", "dir"],
    capture_output=True,
    text=True,
    check=False,
).stdout.strip()


class Host:
    """A folder that plays the part of a host, and the playbook that calls the module on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "grid home"  # a blank must not matter
        self.results = folder / "results"
        self.results.mkdir(parents=True)

    def start(self, *options: str, nodes: int = 1, **arguments: Any) -> subprocess.Popen[str]:
        """Start ansible-playbook with one call of the module for each node."""
        arguments = {"home": str(self.home), "package_cache": ANY_PACKAGE_CACHE, **arguments}
        if arguments.get("state", "present") != "present":
            del arguments["package_cache"]
        play = {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [
                {"openmined.pygrid.release": arguments, "register": "__release", "ignore_errors": True},
                {
                    "ansible.builtin.copy": {
                        "content": "{{ __release | to_json }}",
                        "dest": f"{self.results}/{{{{ inventory_hostname }}}}.json",
                    },
                    "check_mode": False,
                    "diff": False,
                    "delegate_to": "localhost",
                },
            ],
        }
        (self.folder / "play.yml").write_text(json.dumps([play]))
        hosts = {f"node{number}": {} for number in range(nodes)}
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        (self.folder / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
        for result in self.results.iterdir():
            result.unlink()
        playbook = shutil.which("ansible-playbook", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert playbook
        return subprocess.Popen(
            [playbook, "-i", str(self.folder / "hosts.json"), "--forks", "5", str(self.folder / "play.yml"), *options],
            cwd=CHECKOUT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *options: str, nodes: int = 1, **arguments: Any) -> list[dict[str, Any]]:
        """Call the module for every node and return the results."""
        playbook = self.start(*options, nodes=nodes, **arguments)
        output, _errors = playbook.communicate(timeout=600)
        found = [json.loads(path.read_text()) for path in sorted(self.results.glob("*.json"))]
        assert len(found) == nodes, output
        return found

    def release(self, *options: str, **arguments: Any) -> dict[str, Any]:
        """Call the module once and return its result, which must be no failure."""
        (result,) = self.run(*options, **arguments)
        assert not result.get("failed"), result["msg"]
        return result

    def refusal(self, *options: str, **arguments: Any) -> str:
        """Call the module once and return its message, which must be a failure that names the host."""
        (result,) = self.run(*options, **arguments)
        assert result["failed"] is True
        assert result["msg"].startswith("node0: ")
        assert "Traceback" not in json.dumps(result)
        return result["msg"]

    def names(self, folder: str = "releases") -> list[str]:
        """Return everything in a folder of the host, hidden things too."""
        return sorted(path.name for path in (self.home / folder).glob("*")) if self.home.exists() else []


def works(host: Host, name: str) -> bool:
    """Tell whether a node could start from a release, and that it was byte-compiled."""
    environment = host.home / "releases" / name / "env"
    site_packages = next((environment / "lib").glob("python*")) / "site-packages"
    compiled = {path.relative_to(site_packages).parts[0] for path in site_packages.rglob("*.pyc")}
    assert {"syft", "pygrid_node", "uvicorn", "sqlalchemy"} <= compiled
    program = "import importlib.metadata as m; import pygrid_node, sys; print(sys.prefix, m.version('syft'), sep='\\n')"
    answer = subprocess.run(
        [environment / "bin" / "python", "-I", "-c", program], capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines() == [str(environment.resolve()), "0.9.5"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("release")
    yield Host(folder)
    shutil.rmtree(folder)  # pytest would keep it, and it is large


@pytest.fixture
def empty_host(tmp_path: Path) -> Iterator[Host]:
    yield Host(tmp_path / "host")
    shutil.rmtree(tmp_path / "host")


@pytest.fixture(scope="module")
def staged(host: Host) -> list[dict[str, Any]]:
    """Return what five nodes on one host answered that staged the same release at the same time."""
    return host.run(nodes=5, version="0.9.5", service_manager="supervisor")


def test_five_nodes_on_one_host_stage_once(host: Host, staged: list[dict[str, Any]]) -> None:
    assert [result.get("msg") for result in staged if result.get("failed")] == []
    assert sorted(result["changed"] for result in staged) == [False, False, False, False, True]
    (name,) = {result["release"]["name"] for result in staged}
    assert host.names() == [name]
    assert works(host, name)
    assert [tool.split("-")[0] for tool in host.names("tools")] == ["supervisor", "uv"]
    assert (Path(staged[0]["supervisor"]) / "bin" / "supervisord").exists()
    again = host.run(nodes=5, version="0.9.5", service_manager="supervisor")
    assert [(result["changed"], result["steps"]) for result in again] == [(False, [])] * 5


def test_the_name_is_known_without_asking_for_files(host: Host, staged: list[dict[str, Any]]) -> None:
    from ansible_collections.openmined.pygrid.plugins.module_utils import releases
    from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import find_source

    release = staged[0]["release"]
    name = releases.release_name(**find_source("0.9.5").summary(), packages=[], python_tag=release["python"]["tag"])
    assert name == release["name"]
    assert releases.is_staged(host.home, name)


def test_check_mode_says_what_would_be_done_and_does_nothing(empty_host: Host) -> None:
    result = empty_host.release("--check", "--diff", version="0.9.5")
    assert result["changed"] is True
    assert result["release"]["name"] in result["diff"]["after"]
    assert not empty_host.home.exists()


# What lies in the grid folder when a run is to be killed: sending tools, new environment, packages, byte-code.
MOMENTS = (
    "tools/.staging-*",
    "releases/.staging-*/env/bin/python",
    "releases/.staging-*/env/lib/python*/site-packages/syft",
    "releases/.staging-*/env/lib/python*/site-packages/syft/__pycache__/*.pyc",
)


def staging(home: Path, pattern: str) -> set[str]:
    """Return the staging folders in which a pattern is found."""
    return {path.relative_to(home).parts[1] for path in home.glob(pattern)}


def holders(home: Path) -> list[int]:
    """Return the processes that have the lock file open: the module first, then its children."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) == f"{home}/locks/releases.lock" for link in (process / "fd").iterdir()):
                started = int((process / "stat").read_text().rpartition(")")[2].split()[19])
                found.append((started, int(process.name)))
    return [number for _started, number in sorted(found)]


@pytest.mark.thorough
def test_a_run_that_was_killed_leaves_nothing_that_counts(empty_host: Host) -> None:
    for moment in MOMENTS:
        old = staging(empty_host.home, "*/.staging-*")  # of the run that was killed before
        playbook = empty_host.start(version="0.9.5", service_manager="supervisor")
        wait_until(lambda moment=moment, old=old: bool(staging(empty_host.home, moment) - old))
        module, *_children = holders(empty_host.home)
        os.kill(module, signal.SIGKILL)
        playbook.communicate(timeout=120)
        wait_until(lambda: not holders(empty_host.home), seconds=30)  # children do not go on unseen
        assert not [name for name in empty_host.names() if not name.startswith(".staging-")], moment
    result = empty_host.release(version="0.9.5", service_manager="supervisor")
    assert result["changed"] is True
    assert empty_host.names() == [result["release"]["name"]]
    assert not [name for name in empty_host.names("tools") if name.startswith(".")]
    assert works(empty_host, result["release"]["name"])
    assert empty_host.release(version="0.9.5", service_manager="supervisor")["changed"] is False


def test_a_killed_playbook_and_the_next_one_do_not_meet(empty_host: Host) -> None:
    playbook = empty_host.start(version="0.9.5")
    wait_until(lambda: bool(staging(empty_host.home, MOMENTS[2])))
    os.killpg(playbook.pid, signal.SIGKILL)  # the module may live on; then the next run waits for its result
    playbook.communicate(timeout=60)
    result = empty_host.release(version="0.9.5")
    assert empty_host.names() == [result["release"]["name"]]
    assert works(empty_host, result["release"]["name"])


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)


def test_a_lock_file_with_a_wrong_hash_is_refused(host: Host, staged: list[dict[str, Any]], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.txt"
    before, pin, rest = LOCK.read_text().partition("sniffio==")
    hashes, last, after = rest.partition("sqlalchemy==")  # the pin that follows
    assert last
    wrong.write_text(before + pin + re.sub(r"sha256:\w{8}", "sha256:00000000", hashes) + last + after)
    message = host.refusal(version="0.9.5", lock_file=str(wrong))
    assert "sniffio" in message
    assert "lock file" in message
    assert host.names() == [staged[0]["release"]["name"]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"version": "0.9.1"}, "set pygrid_version to one of 0.9.2, 0.9.3, 0.9.5"),
        ({"version": "0.10.0"}, "set pygrid_version to one of 0.9.2, 0.9.3, 0.9.5"),
        ({"version": "nonsense"}, "set pygrid_version to one of 0.9.2, 0.9.3, 0.9.5"),
        ({"version": "0.9.5", "needed_mb": 999_999_999}, "MB of free space"),
        (
            {"version": "0.9.5", "python": "python-of-nobody"},
            "python-of-nobody, which is no Python that can be run",
        ),
        ({"version": "0.9.5", "home": "/proc/version/grid"}, "set pygrid_home to another folder"),
        ({"version": "0.9.5", "packages": ["--index-url=x"]}, "correct pygrid_worker_packages"),
    ],
)
def test_bad_input_is_refused_before_anything_changes(empty_host: Host, arguments: dict[str, Any], reason: str) -> None:
    assert reason in empty_host.refusal(**arguments)
    assert not empty_host.home.exists()


@pytest.mark.thorough
def test_extra_packages_are_another_release_and_pruning_spares_what_is_used(
    host: Host, staged: list[dict[str, Any]]
) -> None:
    used = staged[0]["release"]["name"]
    extra = host.release(version="0.9.5", packages=[EXTRA])["release"]
    assert extra["name"] != used
    assert host.names() == sorted([used, extra["name"]])
    requirements = (host.home / "releases" / extra["name"] / "requirements.txt").read_text()
    assert requirements.startswith(LOCK.read_text())
    assert f"{EXTRA} \\\n    --hash=sha256:" in requirements
    python = host.home / "releases" / extra["name"] / "env" / "bin" / "python"
    subprocess.run([python, "-I", "-c", "import humanize, syft.types"], check=True)

    alice = host.home / "nodes" / "alice"
    alice.mkdir(parents=True)
    (alice / "current").symlink_to(f"../../releases/{used}")
    assert "alice" in host.refusal(state="absent", name=used)
    assert host.release("--check", state="pruned", keep=0)["removed"] == [extra["name"]]
    assert host.release(state="pruned", keep=1)["removed"] == []
    assert host.names() == sorted([used, extra["name"]])
    assert host.release(state="pruned", keep=0)["removed"] == [extra["name"]]
    assert host.names() == [used]
    assert host.release(state="pruned", keep=0)["changed"] is False
    assert works(host, used)


def test_extra_packages_that_contradict_the_lock_are_refused(host: Host, staged: list[dict[str, Any]]) -> None:
    message = host.refusal(version="0.9.5", packages=["numpy>=2.2"])
    assert "numpy>=2.2" in message
    assert "correct pygrid_worker_packages" in message
    assert host.names() == [staged[0]["release"]["name"]]
