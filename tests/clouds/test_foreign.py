# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/foreign.yml with an image of other origin in a real daemon."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.support import dockerd
from tests.support.dockerd import Daemon
from tests.support.playbook import Run, run_playbook

CHECKOUT = Path(__file__).resolve().parents[2]
PORT = 5005
SECRET = "the-classical-secret-key"
IMAGE = "pygrid-test/grid-domain:1"
# As the classical images do, it takes everything from its environment.
DOCKERFILE = f"""
FROM {dockerd.IMAGE}
CMD ["/bin/sh", "-c", "echo $GRID_NODE_HOST $NUM_REPLICAS > /tmp/index.html && exec busybox httpd -f -p $PORT -h /tmp"]
ENV PATH=/bin
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    unpacked = Path(os.environ.get("PYGRID_TEST_DOCKERD", "unpacked"))
    if os.geteuid() != 0 or not dockerd.programs(unpacked) or not shutil.which("nsenter"):
        pytest.skip("needs root, and PYGRID_TEST_DOCKERD as `python -m tests.support.dockerd FOLDER` makes it")
    certificates, made = tmp_path_factory.mktemp("certificates"), trustme.CA()
    issued = made.issue_cert("127.0.0.1")
    made.cert_pem.write_to_path(certificates / "ca.pem")
    issued.private_key_pem.write_to_path(certificates / "key.pem")
    issued.cert_chain_pems[0].write_to_path(certificates / "cert.pem")
    with dockerd.running(unpacked, tmp_path_factory.mktemp("docker"), certificates) as daemon:
        daemon.client.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), tag=IMAGE, rm=True)
        yield daemon


def play(daemon: Daemon, folder: Path, *arguments: str, **variables: object) -> Run:
    """The playbook where the daemon is: in its network namespace."""
    values = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "pygrid_foreign_image": IMAGE,
        "pygrid_foreign_port": PORT,
        "pygrid_foreign_environment": {
            "PORT": PORT,
            "SECRET_KEY": SECRET,
            "GRID_NODE_HOST": "10.0.0.7",
            "NUM_REPLICAS": 1,
        },
        **variables,
    }
    inventory = folder / "hosts.yml"
    inventory.write_text(json.dumps({"pygrid_foreign": {"hosts": {"old-alice": values}}}))
    words = ["nsenter", f"--net=/run/netns/{daemon.namespace}", shutil.which("ansible-playbook") or "ansible-playbook"]
    surroundings = {**os.environ, "DOCKER_HOST": daemon.url, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    return run_playbook([*words, "-i", str(inventory), "playbooks/foreign.yml", *arguments], CHECKOUT, surroundings)


def inside(daemon: Daemon, *words: str) -> str:
    command = ["nsenter", f"--net=/run/netns/{daemon.namespace}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_image_of_other_origin(daemon: Daemon, tmp_path: Path) -> None:
    refused = play(daemon, tmp_path)
    assert refused.returncode != 0
    assert "pygrid_foreign_insecure_accepted" in refused.output
    assert daemon.client.containers.list(all=True) == []
    known = {"pygrid_foreign_insecure_accepted": True}
    assert play(daemon, tmp_path, "--check", **known).returncode == 0
    assert daemon.client.containers.list(all=True) == []
    run = play(daemon, tmp_path, "-vvv", "--diff", **known)
    assert run.returncode == 0, run.output[-4000:]
    assert run.changed == 1
    assert SECRET not in run.output
    assert inside(daemon, "curl", "--silent", f"http://127.0.0.1:{PORT}/") == "10.0.0.7 1\n"
    tables = inside(daemon, "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    ends = [line.split()[1].split(":") for line in tables if line.split()[3] == "0A"]
    assert {address for address, port in ends if int(port, 16) == PORT} == {"0100007F"}
    assert play(daemon, tmp_path, **known).changed == 0
    assert play(daemon, tmp_path, "-e", "pygrid_foreign_state=absent").changed == 1
    assert daemon.client.containers.list(all=True) == []


def test_one_that_does_not_answer_is_a_failure(daemon: Daemon, tmp_path: Path) -> None:
    variables = {"pygrid_foreign_insecure_accepted": True, "pygrid_foreign_start_timeout_seconds": 4}
    run = play(daemon, tmp_path, pygrid_foreign_health_path="/nothing-here", **variables)
    assert run.returncode != 0
    assert "404" in run.output, run.output
