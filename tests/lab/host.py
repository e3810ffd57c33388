# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host of a lab: its disk, and its life from the first boot to the power cut."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from . import base
from .groups import Group
from .machine import CACHE, PATH, LabError, run
from .network import Network

#: uv's cache, shared by all hosts of all labs.
PACKAGES = CACHE / "packages"
#: Starts the machine again when it asks for it: systemd-nspawn ends with this code when the host reboots itself.
KEEPER = """
code=133 boot=0
enter() { for folder in $GROUPS_OF_HOST; do mkdir -p "$folder/$1"; echo 0 > "$folder/$1/cgroup.procs"; done; }
enter keeper
while [ "$code" -eq 133 ]; do
    boot=$((boot + 1))
    (enter "boot-$boot"; exec systemd-nspawn "$@")
    code=$?
done
"""


@dataclass
class Host:
    """What a lab remembers of a host."""

    name: str
    number: int
    image: str = "bookworm"
    #: No package cache at all, warm or shared: what this host needs, somebody has to bring.
    bare: bool = False
    #: Size of a file system of its own; 0: it shares the machine's.
    disk_mb: int = 0
    #: What cloud-init reads, by the name of the file: user-data, meta-data. Only where the image has cloud-init.
    seed: dict[str, str] | None = None
    #: What it may use of this machine; 0: all.
    memory_mb: int = 0
    processors: float = 0
    #: A folder of what its image has beyond the base (Machine.keep_as_layer).
    layer: str = ""
    #: The neighbour through which it is reached, when the controller cannot reach it itself.
    behind: str | None = None

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


class Machine:
    """A host as it lies on this machine."""

    def __init__(self, host: Host, folder: Path, network: Network) -> None:
        self.host, self.folder, self.network = host, folder, network
        self.root = folder / "root"
        self.disk = folder / "disk"
        self.group = Group(f"{network.prefix}/{host.name}")

    @cached_property
    def base(self) -> base.Base:
        """The layers below this host; it keeps those that it was made on."""
        root, warm = (Path(line) for line in (self.folder / "base").read_text().splitlines())
        return base.Base(root, warm)

    def create(self, made_on: base.Base) -> None:
        """Make the host's empty disk."""
        self.folder.mkdir(parents=True)
        (self.folder / "base").write_text(f"{made_on.root}\n{made_on.warm}\n")
        self.root.mkdir()
        self.disk.mkdir()
        if self.host.disk_mb:
            image = self.folder / "disk.img"
            with image.open("wb") as file:
                file.truncate(self.host.disk_mb << 20)
            # No journal: nobody needs this disk after the machine itself has crashed.
            run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1", image)

    def mount(self) -> None:
        """Put the root together, unless it is."""
        if self.root.is_mount():
            return
        if self.host.disk_mb and not self.disk.is_mount():
            run("mount", "-o", "loop", self.folder / "disk.img", self.disk)
        upper, work = self.disk / "upper", self.disk / "work"
        upper.mkdir(exist_ok=True)
        work.mkdir(exist_ok=True)
        layers = [self.base.root] if self.host.bare else [self.base.warm, self.base.root]
        if self.host.layer:
            layers.insert(0, Path(self.host.layer))
        lower = ":".join(str(layer) for layer in layers)
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", self.root)

    def unmount(self) -> None:
        """Take the root apart; the disk keeps what was written."""
        for folder in (self.root, self.disk):
            deadline = time.monotonic() + 5
            while folder.is_mount():
                try:
                    run("umount", folder)
                except LabError:
                    # The kernel still clears up after the processes that were killed.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the mounted root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        file.chmod(mode)

    def personalise(self, key: str, careful_password: str) -> str:
        """Give a new root its name, its users' keys and its own host key; returns the public host key."""
        name = self.host.name
        self.write("etc/hostname", f"{name}\n")
        self.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
        self.write("etc/machine-id", f"{secrets.token_hex(16)}\n", 0o444)
        owners = {
            line.split(":")[0]: line.split(":")[2:6] for line in (self.root / "etc/passwd").read_text().splitlines()
        }
        for user in ("root", *base.recipe.USERS):
            uid, gid, _password, home = owners[user]
            self.write(f"{home[1:]}/.ssh/authorized_keys", key, 0o600)
            folder = self.root / home[1:] / ".ssh"
            folder.chmod(0o700)
            for owned in (folder, folder / "authorized_keys"):
                os.chown(owned, int(uid), int(gid))
        hashed = run("openssl", "passwd", "-6", "-stdin", input=careful_password).strip()
        run("chroot", self.root, "chpasswd", "--encrypted", input=f"careful:{hashed}\n")
        for file, text in (self.host.seed or {}).items():
            self.write(f"var/lib/cloud/seed/nocloud/{file}", text, 0o600)
        host_key = self.root / "etc/ssh/ssh_host_ed25519_key"
        host_key.unlink(missing_ok=True)  # of the machine that an image was made of
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", host_key)
        return host_key.with_suffix(".pub").read_text()

    @property
    def whole(self) -> bool:
        """Whether the host was made to the end; a preparation may be killed."""
        return (self.folder / "whole").exists()

    def introduce(self, neighbours: list[str]) -> None:
        """Let the mounted root know hosts of the lab by name (lines of /etc/hosts)."""
        hosts = self.root / "etc/hosts"
        known = hosts.read_text().splitlines()
        if new := [line for line in neighbours if line not in known]:
            self.write("etc/hosts", "\n".join([*known, *new, ""]))

    def start(self) -> None:
        """Boot; returns at once."""
        if self.running():
            return
        self.mount()
        self.network.attach(self.host.name, self.host.number)
        self.network.plug(self.host.number)
        self.group.make()
        self.group.limit(self.host.memory_mb, self.host.processors)
        options = [
            "--quiet", "--boot", "--keep-unit", "--register=no",
            f"--machine={self.host.name}", f"--directory={self.root}",
            f"--network-namespace-path={self.network.host_namespace(self.host.name)}", "--resolv-conf=off",
            "--link-journal=no", "--console=read-only",
            # A host rules over its own network: for its firewall.
            "--capability=CAP_NET_ADMIN",
            # systemd's IPAddressDeny= works by it, as on a machine.
            "--system-call-filter=bpf",
        ]  # fmt: skip
        if not self.host.bare:
            PACKAGES.mkdir(parents=True, exist_ok=True)
            options.append(f"--bind={PACKAGES}:/var/cache/pygrid/packages")
        environment = {
            "PATH": PATH,
            "GROUPS_OF_HOST": " ".join(str(folder) for folder in self.group.folders()),
            # As an installed system has it: /tmp on the disk.
            "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        with (self.folder / "console.log").open("ab") as console:
            starter = ["setsid", "--fork", "sh", "-c", KEEPER, "keeper", *options]
            subprocess.run(
                starter, env=environment, stdin=subprocess.DEVNULL, stdout=console, stderr=console, check=True
            )

    def running(self) -> bool:
        return bool(self.group.processes())

    def init(self) -> int:
        """The process that is PID 1 inside the host."""
        for process in self.group.processes():
            with suppress(OSError):
                lines = Path(f"/proc/{process}/status").read_text().splitlines()
                ids = next(line.split()[1:] for line in lines if line.startswith("NSpid:"))
                if len(ids) > 1 and ids[-1] == "1":
                    return process
        raise LabError(f"{self.host.name} is not running; boot it")

    def signal_init(self, number: int) -> None:
        os.kill(self.init(), number)

    def reboot(self) -> None:
        """Ask systemd for a reboot and wait until this boot has ended."""
        before = self.init()
        self.signal_init(signal.SIGRTMIN + 5)
        self.wait_gone(lambda: Path(f"/proc/{before}").exists(), 120)

    def stop(self, seconds: float) -> None:
        """Ask systemd to power off, and wait for it."""
        if self.running():
            self.signal_init(signal.SIGRTMIN + 4)
            self.wait_gone(self.running, seconds)
        self.unmount()

    def wait_gone(self, present: Any, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while present():
            if time.monotonic() > deadline:
                raise LabError(
                    f"{self.host.name} does not go down within {seconds:.0f} s; see {self.folder}/console.log"
                )
            time.sleep(0.05)

    def kill(self) -> None:
        """Cut the power: no farewell packet leaves, and nothing of the host runs any more."""
        if self.network.host_namespace(self.host.name).exists():
            self.network.plug(self.host.number, connected=False)
        self.group.kill()
        self.unmount()

    def destroy(self) -> None:
        """Leave nothing of the host."""
        self.kill()
        self.group.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep_as_layer(self, folder: Path) -> None:
        """Copy what this host has on its own disk, as the image of others; best when it is off."""
        new = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        run("cp", "--archive", self.disk / "upper", new)
        for own in ("etc/hostname", "etc/hosts", "etc/machine-id", "var/lib/cloud"):
            path = new / own
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        new.rename(folder)

    def set_clock(self, seconds: int) -> None:
        """Put the wall clock of everything that starts from now on so many seconds wrong; 0: right again."""
        if not self.root.is_mount():
            raise LabError(f"{self.host.name} is off; boot it, then put its clock wrong")
        preload = self.root / "etc/ld.so.preload"
        if not seconds:
            preload.unlink(missing_ok=True)
            return
        library = f"usr/lib/clock{seconds:+d}.so"
        source = Path(__file__).with_name("clock.c")
        new = self.root / f"{library}.new"
        run("cc", "-shared", "-fPIC", "-O2", "-nostdlib", f"-DOFFSET={seconds}", "-o", new, source)
        new.rename(self.root / library)
        self.write("etc/ld.so.preload", f"/{library}\n")

    def free_space(self, leave_mb: int | None) -> None:
        """Leave only so much free space on the host's own disk; 0 leaves none to anybody, None gives all of it back."""
        if not self.host.disk_mb:
            raise LabError(f"{self.host.name} has no disk of its own; make it with a size (disk_mb, or up --disk-mb)")
        ballast = self.disk / "ballast"
        ballast.unlink(missing_ok=True)
        os.sync()
        if leave_mb is None:
            return
        status = os.statvfs(self.disk)
        # Those who write meanwhile take some of it as well; the last of it is written out, also what is root's alone.
        size = status.f_bavail * status.f_frsize - ((leave_mb or 64) << 20)
        if size > 0:
            run("fallocate", "-l", str(size), ballast)
        if not leave_mb:
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
                while file.write(bytes(1 << 20)):
                    pass
