# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker daemon of this machine for nodes in containers, in a folder of its own: no bridge, no rule of a firewall.

`python -m tests.support.container_host up FOLDER` starts it, with a base image of Debian; `down FOLDER` ends it.
Its containers use the machine's own network, as nodes do. What was built stays in the folder for the next time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import dockerd

BASE = "pygrid-test/debian:12"
START_SECONDS = 60
STOP_SECONDS = 60


def up(folder: Path) -> None:
    """Have the daemon and the base image."""
    dockerd.unpack(folder / "programs")
    if not answers(folder):
        words = [
            folder / "programs/usr/sbin/dockerd", "--host", url(folder), "--data-root", folder / "data",
            "--exec-root", folder / "run", "--pidfile", folder / "pid", "--bridge=none", "--iptables=false",
            "--ip-masq=false",
        ]  # fmt: skip
        with (folder / "log").open("w") as log:
            subprocess.Popen(words, env=environment(folder), stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_SECONDS
        while not answers(folder):
            assert time.monotonic() < end, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
    if not docker(folder, "image", "inspect", BASE):
        make_base(folder)


def down(folder: Path) -> None:
    """End it, if it runs, and whatever containers tests have left."""
    if not answers(folder):
        return
    left = subprocess.run(
        [program(folder), "--host", url(folder), "ps", "--all", "--quiet"], capture_output=True, text=True, check=True
    ).stdout.split()
    if left:
        docker(folder, "rm", "--force", "--volumes", *left)
    os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    while (folder / "pid").exists():
        assert time.monotonic() < end, "the daemon does not end"
        time.sleep(0.1)


def make_base(folder: Path) -> None:
    """Debian with a Python, and nothing else that a node could lean on."""
    with TemporaryDirectory(dir=folder) as root:
        words = ["debootstrap", "--variant=minbase", "--include=python3,ca-certificates,libgomp1", "bookworm", root]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
            command = [program(folder), "--host", url(folder), "import", "-", BASE]
            subprocess.run(command, stdin=archive.stdout, check=True, stdout=subprocess.DEVNULL)


def docker(folder: Path, *words: str) -> bool:
    """Whether a command of the client ends well."""
    command = [program(folder), "--host", url(folder), *words]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def answers(folder: Path) -> bool:
    return program(folder).exists() and docker(folder, "version")


def url(folder: Path) -> str:
    return f"unix://{folder}/socket"


def program(folder: Path) -> Path:
    return folder / "programs" / "usr" / "bin" / "docker"


def environment(folder: Path) -> dict[str, str]:
    """In which the daemon and its clients find each other's programs."""
    places = [folder / "programs/usr/sbin", folder / "programs/usr/bin"]
    return {**os.environ, "PATH": os.pathsep.join([*map(str, places), os.environ["PATH"]])}


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]](Path(sys.argv[2]).absolute())
