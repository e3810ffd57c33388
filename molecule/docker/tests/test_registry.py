# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that comes by its digest from a real registry that wants an account, and goes with the node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import bcrypt
import docker
import pytest

CHECKOUT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(CHECKOUT))

from tests.support.playbook import Run, run_playbook  # noqa: E402

pytestmark = pytest.mark.timeout(0)

HOST = CHECKOUT / ".cache" / "container-host"
PORT, NODE_PORT = 17390, 17391
REPOSITORY = f"127.0.0.1:{PORT}/hospital/network"
ACCOUNT = {"username": "reader", "password": "mXq7-secret-of-the-registry"}
VERSION = "0.9.5"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(f"unix://{HOST}/socket")
    yield client
    client.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Debian's docker-registry, unpacked and not installed."""
    programs = HOST / "registry"
    if not (programs / "usr/bin/docker-registry").exists():
        with TemporaryDirectory() as packages:
            subprocess.run(["apt-get", "-qq", "download", "docker-registry"], cwd=packages, check=True)
            subprocess.run(["dpkg-deb", "-x", *Path(packages).glob("*.deb"), programs], check=True)
    folder = tmp_path_factory.mktemp("registry")
    kept = bcrypt.hashpw(ACCOUNT["password"].encode(), bcrypt.gensalt(4)).decode()
    (folder / "accounts").write_text(f"{ACCOUNT['username']}:{kept}\n")
    (folder / "config.yml").write_text(
        json.dumps(
            {
                "version": 0.1,
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                "http": {"addr": f"127.0.0.1:{PORT}"},
                "auth": {"htpasswd": {"realm": "test", "path": str(folder / "accounts")}},
            }
        )
    )
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [programs / "usr/bin/docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log
        )
        try:
            _wait_for_registry(folder / "log")
            yield
        finally:
            server.terminate()
            server.wait(30)


def _wait_for_registry(log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2/", timeout=5)
        except urllib.error.HTTPError:  # it wants to know who asks
            return
        except OSError:
            assert time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.1)


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, registry: None) -> str:
    """The image of a Network in the registry, by digest; this machine has it under other names only."""
    found = engine.images.get(f"pygrid/network:{VERSION}")
    assert found.tag(REPOSITORY, VERSION)
    for line in engine.images.push(REPOSITORY, VERSION, auth_config=ACCOUNT, stream=True, decode=True):
        assert "error" not in line, line
    found.reload()
    digest = next(name for name in found.attrs["RepoDigests"] if name.startswith(REPOSITORY))
    engine.images.remove(f"{REPOSITORY}:{VERSION}")
    _forget(engine, digest)
    return digest


def _forget(engine: docker.DockerClient, digest: str) -> None:
    if _has(engine, digest):
        engine.images.remove(digest)
    assert not _has(engine, digest)


def _has(engine: docker.DockerClient, name: str) -> bool:
    try:
        engine.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def play(verb: str, folder: Path, image: str, *arguments: str) -> Run:
    inventory = folder / "hosts.json"
    values = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "pygrid_install_method": "container",
        "pygrid_home": str(folder / "grid"),
        "pygrid_container_socket": f"unix://{HOST}/socket",
        "pygrid_container_images": {"network": image},
        "pygrid_network_port": NODE_PORT,
    }
    inventory.write_text(json.dumps({"pygrid": {"children": {"pygrid_network": {"hosts": {"solo": values}}}}}))
    inventory = inventory.rename(inventory.with_suffix(".yml"))
    path = os.pathsep.join([str(HOST / "programs/usr/bin"), os.environ["PATH"]])
    surroundings = {**os.environ, "PATH": path, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    return run_playbook(
        ["ansible-playbook", "-i", str(inventory), f"playbooks/{verb}.yml", *arguments], CHECKOUT, surroundings
    )


def with_account(folder: Path, password: str) -> list[str]:
    file = folder / f"account-{len(password)}.json"
    variables = {"pygrid_container_registry_username": ACCOUNT["username"]}
    file.write_text(json.dumps({**variables, "pygrid_container_registry_password": password}))
    return ["-e", f"@{file}"]


def test_an_image_of_a_registry(engine: docker.DockerClient, image: str, tmp_path: Path) -> None:
    for account in ([], with_account(tmp_path, "wrong")):
        refused = play("deploy", tmp_path, image, *account)
        assert refused.returncode != 0
        assert "cannot pull" in refused.output
        assert not (tmp_path / "grid" / "nodes").exists()
    right = with_account(tmp_path, ACCOUNT["password"])
    run = play("deploy", tmp_path, image, "-vvv", "--diff", *right)
    assert run.returncode == 0, run.output[-4000:]
    assert ACCOUNT["password"] not in run.output
    release = (tmp_path / "grid" / "nodes" / "solo" / "current").resolve()
    assert release.name == f"{VERSION}-{image.partition('sha256:')[2][:12]}"
    with urllib.request.urlopen(f"http://127.0.0.1:{NODE_PORT}/healthz/ready", timeout=10) as answer:
        assert json.loads(answer.read())["release"] == release.name
    kept = [path for path in (tmp_path / "grid").rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in kept if ACCOUNT["password"] in path.read_text(errors="replace")] == []
    assert play("deploy", tmp_path, image, *right).changed == 0
    removed = play("remove", tmp_path, image, "-e", "pygrid_remove_data=true", "-e", "pygrid_confirm=true")
    assert removed.returncode == 0, removed.output[-4000:]
    assert not (tmp_path / "grid").exists()
    # What was pulled for the node went with it; what was built here under another name stays.
    assert not _has(engine, image)
    assert _has(engine, f"pygrid/network:{VERSION}")
