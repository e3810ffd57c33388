# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab asks of the machine it runs on: programs, rights, and one way to start a command."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache" / "lab"

#: Program -> Debian packages that have it and what it needs.
PROGRAMS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "slirp4netns": "slirp4netns",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "openssl": "openssl",
    "mkfs.ext4": "e2fsprogs",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "cc": "gcc libc6-dev",
}
#: /usr/sbin is not in everybody's PATH.
PATH = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
#: A namespace for each preparation, which ends with us: when it does, its mounts and processes are gone.
ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--")
CLONE_NEWNET = 0x40000000


class LabError(Exception):
    """What went wrong and what to do about it, in one sentence."""


def run(*words: str | Path, **options: Any) -> str:
    """Run a command to its end and return what it printed; what it says against it becomes the error."""
    command = [str(word) for word in words]
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8", **options.pop("environment", {})}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)
    except OSError as error:
        raise LabError(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()
        raise LabError(f"`{' '.join(command)}` ended with {done.returncode}: {' | '.join(said[-3:])}")
    return done.stdout


def missing_programs() -> dict[str, str]:
    """Which of PROGRAMS cannot be found here, with the packages for each."""
    return {program: package for program, package in PROGRAMS.items() if shutil.which(program, path=PATH) is None}


def missing_packages() -> list[str]:
    """The Debian packages that have the missing programs."""
    return sorted({package for packages in missing_programs().values() for package in packages.split()})


def obstacle() -> str | None:
    """Why no lab can be run by this process, whatever is installed; None when one can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces and mount file systems"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun, through which slirp4netns reaches the outside"
    probe = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"this machine makes no namespaces ({probe.stderr.strip()})"
    return None


def can_install() -> bool:
    """Whether this is root on Debian (or a child of it), where apt gets the programs."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get", path=PATH) is not None


@contextmanager
def network_of(namespace: Path) -> Iterator[None]:
    """Let this thread (and no other) open its sockets in a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(file: TextIO) -> None:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise LabError(f"cannot enter {file.name}: {os.strerror(ctypes.get_errno())}")

    with Path("/proc/thread-self/ns/net").open() as own, namespace.open() as other:
        enter(other)
        try:
            yield
        finally:
            enter(own)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time (of all that name this file) do what follows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
