# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The classical grid in containers, from its first job over an upgrade to its removal. In this order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

CHECKOUT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(CHECKOUT))

from tests.support.playbook import Run, run_playbook  # noqa: E402

pytestmark = pytest.mark.timeout(0)

HOME = CHECKOUT / ".cache" / "m" / "docker"
HOST = CHECKOUT / ".cache" / "container-host"
OLD, NEW = "0.9.3", "0.9.5"
DOMAINS = ("alice", "bob", "charlie", "dan")
WORKERS = tuple(f"{domain}-w1" for domain in DOMAINS)
PORTS = {
    "net": 17300,
    **{name: 17301 + number for number, name in enumerate(DOMAINS)},
    **{name: 17321 + number for number, name in enumerate(WORKERS)},
}
KINDS = {"net": "network", **dict.fromkeys(DOMAINS, "domain"), **dict.fromkeys(WORKERS, "worker")}


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(f"unix://{HOST}/socket")
    yield client
    client.close()


def play(verb: str, *arguments: str) -> Run:
    command = ["ansible-playbook", "-i", "molecule/docker/inventories/grid.yml", f"playbooks/{verb}.yml", *arguments]
    path = os.pathsep.join([str(HOST / "programs/usr/bin"), os.environ["PATH"]])
    surroundings = {**os.environ, "PATH": path, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    return run_playbook(command, CHECKOUT, surroundings, timeout_seconds=1200)


def must_play(verb: str, *arguments: str) -> Run:
    run = play(verb, *arguments)
    assert run.returncode == 0, run.output[-6000:]
    return run


def health(name: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[name]}/healthz/ready", timeout=10) as answer:
        return json.loads(answer.read())


def identity(name: str) -> dict[str, str]:
    return json.loads((HOME / "nodes" / name / "identity.json").read_text())


def wait_ready(name: str, seconds: float = 90) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while True:
        try:
            found = health(name)
            if found["status"] == "ready":
                return found
        except OSError:
            found = {}
        assert time.monotonic() < end, f"{name}: {found}"
        time.sleep(0.5)


def inspect(engine: docker.DockerClient, name: str) -> dict[str, Any]:
    return engine.api.inspect_container(f"pygrid-{name}")


def serving(version: str) -> None:
    assert {name: wait_ready(name)["syft_version"] for name in PORTS} == dict.fromkeys(PORTS, version)


@pytest.mark.parametrize("name", PORTS)
def test_a_node_is_a_container(engine: docker.DockerClient, name: str) -> None:
    found = inspect(engine, name)
    labels = found["Config"]["Labels"]
    assert labels["pygrid_role"] == labels["org.openmined.pygrid.kind"] == KINDS[name]
    assert labels["pygrid_name"] == name
    assert labels.get("pygrid_domain", "") == (name[: -len("-w1")] if name in WORKERS else "")
    assert labels["org.opencontainers.image.version"] == health(name)["syft_version"] == OLD
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.parametrize("name", PORTS)
def test_it_may_do_nothing_but_its_work(engine: docker.DockerClient, name: str) -> None:
    found = inspect(engine, name)
    limits = found["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert not limits["Privileged"]
    assert limits["CapDrop"] == ["ALL"]
    assert not limits["CapAdd"]
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert limits["Memory"] == limits["MemorySwap"] == 4000 * 1024 * 1024
    assert limits["PidsLimit"] == 1024
    own = HOME / "nodes" / name
    writable = {own / folder for folder in ("data", "run", "log", "tmp")}
    if name in WORKERS:
        writable.add(HOME / "nodes" / name[: -len("-w1")] / "data")
    mounts = {Path(mount["Source"]): mount["RW"] for mount in found["Mounts"] if mount["Type"] == "bind"}
    assert mounts == {own: False, **dict.fromkeys(writable, True)}


@pytest.mark.parametrize("name", ["net", "alice", "alice-w1"])
def test_what_it_is_it_cannot_change(engine: docker.DockerClient, name: str) -> None:
    container = engine.containers.get(f"pygrid-{name}")
    own, other = HOME / "nodes" / name, HOME / "nodes" / "bob"
    for place in (own / "settings.json", own / "identity.json", Path("/opt/pygrid/env/x"), Path("/etc/x")):
        code, said = container.exec_run(["/bin/sh", "-c", f"echo >> {place}"])
        assert code != 0, f"{place}: {said}"
        assert b"Read-only file system" in said
    assert container.exec_run(["/bin/ls", str(other)])[0] != 0
    assert container.exec_run(["/bin/sh", "-c", f"echo > {own}/data/probe && rm {own}/data/probe"])[0] == 0


@pytest.mark.parametrize("name", PORTS)
def test_its_secrets_stand_in_no_definition_and_no_log(engine: docker.DockerClient, name: str) -> None:
    kept = identity(name)
    secrets = [kept[key] for key in ("private_key", "root_password", "queue_secret_key") if kept.get(key)]
    assert secrets
    told = json.dumps(inspect(engine, name)) + engine.containers.get(f"pygrid-{name}").logs().decode()
    assert [secret for secret in secrets if secret in told] == []


@pytest.mark.parametrize("name", PORTS)
def test_it_listens_on_loopback_only(name: str) -> None:
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    ends = [fields[1].split(":") for fields in lines if fields[3] == "0A"]
    assert {address[-6:] for address, port in ends if int(port, 16) == PORTS[name]} == {"00007F"}


def test_the_engine_says_that_it_is_healthy(engine: docker.DockerClient) -> None:
    end = time.monotonic() + 90
    while True:
        told = {name: inspect(engine, name)["State"]["Health"]["Status"] for name in PORTS}
        if set(told.values()) == {"healthy"}:
            return
        assert time.monotonic() < end, told
        time.sleep(1)


def test_a_federated_training(tmp_path: Path) -> None:
    must_play("demo", "-e", f"pygrid_demo_results={tmp_path}/results")
    record = json.loads((tmp_path / "results" / "results.json").read_text())
    assert abs(record["federated_accuracy"] - record["central_accuracy"]) <= 0.02


def test_a_node_that_is_killed_comes_back(engine: docker.DockerClient) -> None:
    before = health("alice")
    os.kill(_pid_on_the_host(engine, "alice"), signal.SIGKILL)
    time.sleep(1)
    after = wait_ready("alice")
    assert after["uid"] == before["uid"]
    assert after["started_at"] > before["started_at"]
    # What others may say of it is not asked for: their next look at it comes within a minute.
    assert must_play("deploy").changed == 0


def _pid_on_the_host(engine: docker.DockerClient, name: str) -> int:
    """Of the node itself: the container's first process is its init."""
    init = inspect(engine, name)["State"]["Pid"]
    return int(Path(f"/proc/{init}/task/{init}/children").read_text().split()[0])


def test_what_somebody_changed_is_put_back(engine: docker.DockerClient) -> None:
    """The same image and name, and no limits: a deploy sees that it is another container."""
    engine.api.remove_container("pygrid-dan-w1", force=True)
    status = must_play("status").output
    assert "dan-w1" in status
    assert must_play("deploy").recap["dan-w1"] > 0
    assert inspect(engine, "dan-w1")["HostConfig"]["PidsLimit"] == 1024
    serving(OLD)


def test_an_upgrade(engine: docker.DockerClient) -> None:
    before = {name: identity(name)["uid"] for name in PORTS}
    data = {name: (HOME / "nodes" / name / "data" / "node.db").stat().st_ino for name in ("net", *DOMAINS)}
    version = ("-e", f"pygrid_version={NEW}")
    assert "canary: alice (0.9.3), alice-w1 (0.9.3)" in must_play("upgrade", "--check", *version).output
    serving(OLD)
    run = must_play("upgrade", *version)
    assert f"Upgraded to syft {NEW}" in run.output
    serving(NEW)
    assert {name: identity(name)["uid"] for name in PORTS} == before
    assert {name: (HOME / "nodes" / name / "data" / "node.db").stat().st_ino for name in data} == data
    assert must_play("deploy", *version).changed == 0


def test_an_image_that_does_not_work_changes_nothing(engine: docker.DockerClient, tmp_path: Path) -> None:
    """It says of itself that it has this version, and has another."""
    running = {name: inspect(engine, name)["Id"] for name in PORTS}
    (tmp_path / "Dockerfile").write_text(f"FROM pygrid/domain:{OLD}\nLABEL org.opencontainers.image.version={NEW}\n")
    engine.images.build(path=str(tmp_path), tag="pygrid-test/liar:1", rm=True)
    liar = {**{kind: f"pygrid/{kind}:{NEW}" for kind in ("network", "worker")}, "domain": "pygrid-test/liar:1"}
    words = ("-e", json.dumps({"pygrid_version": NEW, "pygrid_container_images": liar}))
    run = play("upgrade", *words)
    assert run.returncode != 0
    assert "says that it has syft 0.9.5, and has 0.9.3" in " ".join(run.output.split())
    assert "a tag: nobody notices when it is moved" in " ".join(run.output.split())
    assert {name: inspect(engine, name)["Id"] for name in PORTS} == running


def test_a_way_back(engine: docker.DockerClient) -> None:
    must_play("rollback", "-e", "pygrid_confirm=true")
    serving(OLD)
    peers = json.loads(_control("net", "/control/association"))["peers"]
    assert {peer["name"] for peer in peers} == set(DOMAINS)


def _control(name: str, path: str) -> str:
    socket = HOME / "nodes" / name / "run" / "control.sock"
    command = ["curl", "--silent", "--fail", "--unix-socket", socket, f"http://localhost{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_removal_and_return(engine: docker.DockerClient) -> None:
    before = {name: identity(name)["uid"] for name in PORTS}
    must_play("remove")
    assert engine.containers.list(all=True) == []
    assert not (HOME / "releases").exists()
    assert {name: identity(name)["uid"] for name in PORTS} == before
    must_play("deploy")
    serving(OLD)
    assert {name: health(name)["uid"] for name in PORTS if name not in WORKERS} == {
        name: uid for name, uid in before.items() if name not in WORKERS
    }
    must_play("remove", "-e", "pygrid_remove_data=true", "-e", "pygrid_confirm=true")
    assert engine.containers.list(all=True) == []
    assert not HOME.exists()
    # Built here, and not the grid's to remove.
    assert engine.images.list("pygrid/domain")
