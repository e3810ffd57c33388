# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openmined.pygrid.docker against a real daemon with real containers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support import dockerd
from tests.support.dockerd import Daemon
from tests.support.inventory import Listing, list_inventory, refusal, run, write_source
from tests.support.unruly import RESET, TRUNCATED, Fault, Request, UnrulyProxy

NODES = [("network", "net", ""), ("domain", "alice", ""), ("worker", "alice-w1", "alice"), ("spare", "s1", "")]
REFUSAL = Fault(status=500, body='{"message": "said the daemon"}', content_type="application/json")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for the daemon and its clients."""
    folder, made = tmp_path_factory.mktemp("certificates"), trustme.CA()
    issued = made.issue_cert("127.0.0.1")
    made.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return folder


@pytest.fixture(scope="module")
def daemon(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the containers of two grids, one that was stopped, and one of somebody else."""
    unpacked = Path(os.environ.get("PYGRID_TEST_DOCKERD", "unpacked"))
    if os.geteuid() != 0 or not dockerd.programs(unpacked) or not shutil.which("nsenter"):
        pytest.skip("needs root, and PYGRID_TEST_DOCKERD as `python -m tests.support.dockerd FOLDER` makes it")
    with dockerd.running(unpacked, tmp_path_factory.mktemp("docker"), certificates) as daemon:
        for role, name, domain in NODES:
            begin(daemon, f"heart-{name}", role, name, domain)
        begin(daemon, "blog")
        begin(daemon, "heart-carol", "domain", "carol", home="/root/.local/share/pygrid")  # a node, and no machine
        begin(daemon, "lung-bob", "domain", "bob", grid="lung").stop(timeout=0)
        yield daemon


def begin(
    daemon: Daemon,
    container: str,
    role: str = "",
    name: str = "",
    domain: str = "",
    grid: str = "heart",
    home: str = "",
) -> Any:
    labels = {"pygrid_grid": grid, "pygrid_role": role, "pygrid_name": name, "pygrid_domain": domain} if role else {}
    labels["org.openmined.pygrid.home"] = home
    return daemon.client.containers.run(
        dockerd.IMAGE,
        ["/bin/busybox", "sleep", "3600"],
        name=container,
        hostname=container,
        labels={label: value for label, value in labels.items() if value},
        detach=True,
    )


def listing(url: str, folder: Path, **options: Any) -> Listing:
    source = write_source(folder / "grid.yml", "docker", **{"docker_hosts": [url], "grids": ["heart"], **options})
    return list_inventory(source, environment={})


def test_the_grid_appears(daemon: Daemon, tmp_path: Path) -> None:
    found = listing(daemon.url, tmp_path)
    assert found.groups == {
        "pygrid_network": ["net"],
        "pygrid_domain": ["alice"],
        "pygrid_worker": ["alice-w1"],
        "pygrid_spare": ["s1"],
    }, found.errors
    container = daemon.client.containers.get("heart-alice")
    alice = found.hosts["alice"]
    assert alice["ansible_host"] == container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert alice["pygrid_machine"]["id"] == container.short_id
    assert alice["pygrid_machine"]["name"] == "heart-alice"
    assert found.hosts["alice-w1"]["pygrid_worker_domain"] == "alice"


@pytest.mark.parametrize("how", ["option", "environment", "tls"])
def test_ansible_gets_into_the_containers(daemon: Daemon, certificates: Path, tmp_path: Path, how: str) -> None:
    source = write_source(
        tmp_path / "grid.yml", "docker", grids=["heart"], docker_hosts=[daemon.url] if how == "option" else []
    )
    words = ["ansible", "-i", str(source), "pygrid", "-m", "ansible.builtin.raw", "-a", "/bin/busybox hostname"]
    environment = {"DOCKER_HOST": "unix:///nowhere" if how == "option" else daemon.url}
    if how == "tls":
        words = ["nsenter", f"--net=/run/netns/{daemon.namespace}", *words]
        environment = {"DOCKER_HOST": "tcp://127.0.0.1:2376", "DOCKER_TLS_VERIFY": "1"}
        # A bundle in the environment would be taken instead of the folder's, by the SDK.
        environment |= {"DOCKER_CERT_PATH": str(certificates), "REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": ""}
    done = run(words, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(re.findall(r"^([a-z0-9-]+) \| CHANGED.*\n(.+)$", done.stdout, re.MULTILINE))
    assert said == {name: f"heart-{name}" for _role, name, _domain in NODES}, done.stdout + done.stderr


def test_by_ssh_it_is_the_address_alone(daemon: Daemon, tmp_path: Path) -> None:
    alice = listing(daemon.url, tmp_path, connection="ssh").hosts["alice"]
    assert "ansible_connection" not in alice
    network = daemon.client.networks.create("pygrid-other", driver="bridge")
    try:
        network.connect("heart-alice")
        (other,) = listing(
            daemon.url, tmp_path, networks=["pygrid-other"], filters={"name": "heart-alice"}
        ).hosts.values()
        assert other["ansible_host"] != alice["ansible_host"]
        network.disconnect("heart-alice")
    finally:
        network.remove()


def test_a_container_that_is_stopped_is_said(daemon: Daemon, tmp_path: Path) -> None:
    assert "lung-bob" in refusal(found := listing(daemon.url, tmp_path, grids=["heart", "lung"]))
    assert "state: exited" in found.errors
    running = listing(daemon.url, tmp_path, grids=["heart", "lung"], filters={"state": "running"})
    assert set(running.hosts) == {name for _role, name, _domain in NODES}
    assert set(listing(daemon.url, tmp_path, grids=["heart", "lung"], partial="warn").hosts) == set(running.hosts)


def test_two_containers_that_claim_the_same_node(daemon: Daemon, tmp_path: Path) -> None:
    second = begin(daemon, "heart-alice-too", "domain", "alice")
    try:
        said = refusal(listing(daemon.url, tmp_path))
        assert "heart-alice, " in said
        assert "heart-alice-too, " in said
        assert "both claim to be alice" in said
    finally:
        second.remove(force=True)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(REFUSAL, marks=pytest.mark.thorough),
        TRUNCATED,
        pytest.param(RESET, marks=pytest.mark.thorough),
    ],
    ids=["500", "truncated", "reset"],
)
def test_a_failure_of_the_daemon(daemon: Daemon, tmp_path: Path, fault: Fault) -> None:
    with UnrulyProxy(daemon.socket).running() as proxy:
        lists: list[str] = []

        def first(request: Request) -> Fault | None:
            if "/containers/json" not in request.path:
                return None
            lists.append(request.path)
            return fault if len(lists) == 1 else None

        proxy.choose = first
        url = proxy.url.replace("http", "tcp")
        assert len(listing(url, tmp_path).hosts) == len(NODES)
        assert len(lists) == 2
        proxy.choose = lambda request: fault if "/containers/json" in request.path else None
        assert re.search("tried [0-9]+ times|the last try", refusal(listing(url, tmp_path, limit_seconds=8)))


def test_what_is_missing_is_said(daemon: Daemon, tmp_path: Path) -> None:
    assert "does the daemon run" in refusal(listing("unix:///nowhere/socket", tmp_path))
    both = ["unix:///nowhere/socket", daemon.url]
    assert "unix:///nowhere/socket" in refusal(listing("", tmp_path, docker_hosts=both))
    assert len(listing("", tmp_path, docker_hosts=both, partial="warn").hosts) == len(NODES)
    assert "docker_hosts" in refusal(listing(daemon.url, tmp_path, regions=["here"]))
