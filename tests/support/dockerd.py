# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker daemon of the tests' own: its programs from Debian's packages, unpacked beside the tests and not installed.

`python -m tests.support.dockerd FOLDER` unpacks them. The daemon lives in a network namespace, so that its bridge is
nobody else's, and is reached by a socket in the file system.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import docker

PACKAGES = ("docker.io", "containerd", "runc", "tini", "busybox-static")
IMAGE = "pygrid-test/busybox"
START_SECONDS = 60


def unpack(folder: Path) -> None:
    """Have the programs in a folder."""
    if programs(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as packages:
        subprocess.run(["apt-get", "-qq", "download", *PACKAGES], cwd=packages, check=True)
        for package in Path(packages).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)


def programs(folder: Path) -> Path | None:
    """The daemon that was unpacked into a folder, if it was."""
    daemon = folder / "usr" / "sbin" / "dockerd"
    # docker-init is a link to what another package brings
    return daemon if daemon.exists() and (folder / "usr" / "bin" / "docker-init").exists() else None


@dataclass(frozen=True)
class Daemon:
    """A daemon that runs, a client of it, and where it listens: a socket, and port 2376 of its network namespace."""

    client: docker.DockerClient
    socket: Path
    namespace: str

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"


@contextlib.contextmanager
def running(unpacked: Path, folder: Path, certificates: Path) -> Iterator[Daemon]:
    """Run a daemon with an image of Busybox until the end of the block.

    Args:
        unpacked: where its programs are.
        folder: for all that it keeps.
        certificates: with ca.pem, cert.pem and key.pem, which it wants of clients on its port as well.
    """
    namespace = f"pygrid-dockerd-{os.getpid()}"
    socket = folder / "socket"
    words = [
        "nsenter", f"--net=/run/netns/{namespace}", unpacked / "usr/sbin/dockerd", "--host", f"unix://{socket}",
        "--host", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", certificates / "ca.pem",
        "--tlscert", certificates / "cert.pem", "--tlskey", certificates / "key.pem",
        "--data-root", folder / "data", "--exec-root", folder / "run", "--pidfile", folder / "pid",
        "--storage-driver", "vfs", "--iptables=false", "--ip-masq=false", "--bip", "10.231.0.1/24",
    ]  # fmt: skip
    path = os.pathsep.join([str(unpacked / "usr/sbin"), str(unpacked / "usr/bin"), os.environ["PATH"]])
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    log = folder / "log"
    try:
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        with log.open("w") as output:
            daemon = subprocess.Popen(words, env={**os.environ, "PATH": path}, stdout=output, stderr=output)
            try:
                client = docker.DockerClient(f"unix://{socket}", version=_when_it_answers(daemon, socket, log))
                client.api.import_image_from_data(_busybox(unpacked / "bin/busybox"), repository=IMAGE, tag="latest")
                yield Daemon(client, socket, namespace)
                for container in client.containers.list(all=True):
                    container.remove(force=True)
            finally:
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(30)
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def _when_it_answers(daemon: subprocess.Popen[bytes], socket: Path, log: Path) -> str:
    end = time.monotonic() + START_SECONDS
    while True:
        assert daemon.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < end, log.read_text()[-2000:]
        with (
            contextlib.suppress(docker.errors.DockerException),
            contextlib.closing(docker.APIClient(f"unix://{socket}", version="auto")) as client,
        ):
            return client.version()["ApiVersion"]
        time.sleep(0.2)


def _busybox(program: Path) -> bytes:
    """A root of one program."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(program, "bin/busybox")
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(link)
        for name in ("tmp", "root"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o777
            archive.addfile(directory)
    return content.getvalue()


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
