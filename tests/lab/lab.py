# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole lab: which hosts it has, how they are reached, and what happens to several of them at once."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from . import base
from .groups import Group
from .host import Host, Machine
from .machine import CACHE, CHECKOUT, LabError, locked, network_of, run
from .network import Network

Result = TypeVar("Result")

#: All labs together; which third number a lab gets, it keeps.
NETWORK = "10.101"
FIRST_NUMBER = 11
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
#: Labs are called like the scenarios of molecule.
LAB_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
#: What `systemctl is-system-running` says of a host that has finished booting.
BOOTED = ("running", "degraded")
# Far more than a boot takes: a host with nodes starts them at the same time as others do.
BOOT_SECONDS = 180


class Lab:
    """A lab by name. Its state lies in its folder, so any process can go on where another one ended."""

    def __init__(self, name: str) -> None:
        if not LAB_NAME.fullmatch(name):
            raise LabError(f"a lab cannot be called {name!r}: use lower-case letters, digits, _ and -")
        self.name = name
        self.folder = CACHE / name
        self.state = self.folder / "lab.json"
        self.hosts: dict[str, Host] = {}
        self.subnet = ""
        if self.state.exists():
            self.read()

    def read(self) -> None:
        document = json.loads(self.state.read_text())
        self.subnet = document["subnet"]
        self.hosts = {host["name"]: Host(**host) for host in document["hosts"]}

    def save(self) -> None:
        """Write down what there is, and what ssh needs to reach it."""
        document = {"subnet": self.subnet, "hosts": [host.as_document() for host in self.hosts.values()]}
        replace(self.state, json.dumps(document, indent=2))
        replace(self.folder / "ssh_config", self.ssh_config())

    @property
    def prefix(self) -> str:
        """What the kernel's objects of this lab are called, on a machine that may have several checkouts."""
        return f"pg{hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:4]}-{self.name}"

    @property
    def network(self) -> Network:
        return Network(self.prefix, self.subnet)

    def machine(self, name: str) -> Machine:
        if name not in self.hosts:
            raise LabError(f"lab {self.name} has no host {name!r}; it has {', '.join(self.hosts) or 'none'}")
        return Machine(self.hosts[name], self.folder / "hosts" / name, self.network)

    # Making and taking away

    def up(self, wanted: Iterable[dict[str, Any]]) -> None:
        """Make the hosts that do not exist (name, and what else Host has), and boot all that are named."""
        wishes = list(wanted)
        bases = {image: base.ensure(image) for image in {wish.get("image", "bookworm") for wish in wishes}}
        with locked(CACHE / f"{self.name}.lock"):
            self.prepare()
            for wish in wishes:
                if wish["name"] not in self.hosts:
                    self.add(wish)
            self.save()
            new = [self.hosts[wish["name"]] for wish in wishes if not self.machine(wish["name"]).whole]
            for host in new:
                self.machine(host.name).destroy()
                self.machine(host.name).create(bases[host.image])
            self.personalise(new)
        self.boot([wish["name"] for wish in wishes])

    def prepare(self) -> None:
        """Give the lab its folder, addresses, key and password, unless it has them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if self.state.exists():
            self.read()
        if not self.subnet:
            with locked(CACHE / "networks.lock"):
                taken = {json.loads(state.read_text())["subnet"] for state in CACHE.glob("*/lab.json")}
                self.subnet = next(f"{NETWORK}.{n}" for n in range(1, 255) if f"{NETWORK}.{n}" not in taken)
                self.save()
        if not self.key.with_suffix(".pub").exists():
            self.key.unlink(missing_ok=True)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {self.name}", "-f", self.key)
        if not self.password_file.exists():
            replace(self.password_file, secrets.token_urlsafe(16))

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def password_file(self) -> Path:
        """The password with which user careful calls sudo."""
        return self.folder / "careful.password"

    def add(self, wish: dict[str, Any]) -> Host:
        if not NAME.fullmatch(wish["name"]):
            raise LabError(f"a host cannot be called {wish['name']!r}: use lower-case letters, digits and -")
        used = {host.number for host in self.hosts.values()}
        free = next(number for number in range(FIRST_NUMBER, 255) if number not in used)
        host = Host(**{"number": free, **wish})
        self.hosts[host.name] = host
        return host

    def personalise(self, new: list[Host]) -> None:
        """Mount new hosts, make them individuals and remember their host keys."""
        key, password = self.key.with_suffix(".pub").read_text(), self.password_file.read_text()

        def one(host: Host) -> str:
            machine = self.machine(host.name)
            machine.mount()
            public = " ".join(machine.personalise(key, password).split()[:2])
            return f"{host.name},{self.network.address(host.number)} {public}\n"

        lines = together(one, new)
        with (self.folder / "known_hosts").open("a") as known:
            known.writelines(lines)
        for host in new:
            (self.machine(host.name).folder / "whole").touch()

    def change(self, name: str, **what: Any) -> None:
        """Let a host that is off have other limits (memory_mb, processors) from its next boot on."""
        with locked(CACHE / f"{self.name}.lock"):
            self.read()
            self.hosts[name] = Host(**{**self.hosts[name].as_document(), **what})
            self.save()

    def destroy(self, name: str) -> None:
        """Leave nothing of one host."""
        with locked(CACHE / f"{self.name}.lock"):
            self.read()
            self.machine(name).destroy()
            host = self.hosts.pop(name)
            self.network.detach(name, host.number)
            known = self.folder / "known_hosts"
            mine = f"{name},{self.network.address(host.number)} "
            replace(known, "".join(line for line in known.read_text().splitlines(True) if not line.startswith(mine)))
            self.save()

    def boot(self, names: Iterable[str], seconds: float = BOOT_SECONDS) -> None:
        """Boot hosts, all at once, and wait until SSH answers and systemd has finished."""
        chosen = list(names)
        machines = [self.machine(name) for name in chosen]
        self.network.create()
        neighbours = [f"{self.network.address(host.number)} {host.name}" for host in self.hosts.values()]
        for machine in map(self.machine, self.hosts):
            if machine.host.name in chosen:
                machine.mount()
            if machine.root.is_mount():
                machine.introduce(neighbours)
        for machine in machines:
            if not machine.running():
                self.network.hang_up(self.network.address(machine.host.number))

        def one(machine: Machine) -> None:
            machine.start()
            self.wait(machine.host, seconds)

        together(one, machines)

    def wait(self, host: Host, seconds: float = BOOT_SECONDS) -> None:
        """Wait until a host has booted and can be logged in to."""
        deadline = time.monotonic() + seconds
        console = self.folder / "hosts" / host.name / "console.log"
        while not self.answers(host):
            if time.monotonic() > deadline:
                raise LabError(f"no SSH on {host.name} within {seconds:.0f} s; see {console}")
            time.sleep(0.05)
        # Not with --wait: that sometimes misses the moment and waits for ever.
        booted = f'case "$(systemctl is-system-running)" in {"|".join(BOOTED)}) ;; *) false ;; esac'
        ask = f"until {booted}; do sleep 0.1; done 2>/dev/null"
        command = self.ssh_command(host.name, ask, shared=False)
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            raise LabError(f"{host.name} does not finish its boot: {error}; see {console}") from error

    def answers(self, host: Host) -> bool:
        """Whether an SSH server greets."""
        seen_from = self.network.host_namespace(host.behind) if host.behind else self.network.namespace
        address = self.network.address(host.number)
        with network_of(seen_from):
            try:
                with socket.create_connection((address, 22), timeout=1) as connection:
                    return connection.recv(4) == b"SSH-"
            except OSError:
                return False

    def down(self) -> None:
        """Leave nothing of the lab: processes, mounts, namespaces, control groups, files."""
        with locked(CACHE / f"{self.name}.lock"):
            together(lambda name: self.machine(name).destroy(), list(self.hosts))
            Group(self.prefix).kill()
            self.network.remove()
            Group(self.prefix).remove()
            shutil.rmtree(self.folder, ignore_errors=True)
        (CACHE / f"{self.name}.lock").unlink(missing_ok=True)
        self.hosts, self.subnet = {}, ""

    # Mishaps

    def stop(self, names: Iterable[str], seconds: float = 120) -> None:
        together(lambda name: self.machine(name).stop(seconds), list(names))

    def kill(self, names: Iterable[str]) -> None:
        together(lambda name: self.machine(name).kill(), list(names))

    def reboot(self, names: Iterable[str]) -> None:
        chosen = list(names)
        together(lambda name: self.machine(name).reboot(), chosen)
        for name in chosen:
            self.wait(self.hosts[name])

    def plug(self, names: Iterable[str], connected: bool) -> None:
        for name in names:
            self.network.plug(self.machine(name).host.number, connected)

    def set_offline(self, names: Iterable[str], offline: bool) -> None:
        for name in names:
            self.network.set_member("offline", self.machine(name).host.number, offline)

    def leaked(self) -> dict[str, int]:
        """How many packets each offline host tried to send outside, and did not."""
        counted = self.network.members("offline")
        addresses = {self.network.address(host.number): host.name for host in self.hosts.values()}
        return {addresses[address]: packets for address, packets in counted.items()}

    def hide(self, name: str, behind: str | None) -> None:
        """Let a host be reached only through a neighbour (None: directly again)."""
        host = self.machine(name).host
        if behind is not None:
            self.machine(behind)
        host.behind = behind
        self.network.set_member("hidden", host.number, behind is not None)
        self.network.hang_up(self.network.address(host.number))
        self.save()

    # Reaching the hosts

    def ssh_config(self) -> str:
        """The way to the hosts, for ssh, scp and sftp (-F): through the lab's namespace, with host keys checked."""
        python, relay = quote(sys.executable), quote(str(Path(__file__).with_name("relay.py")))
        lines = [f"# Written by tests/lab: how lab {self.name} is reached. The key is beside it."]
        jumps = {host.behind for host in self.hosts.values()}
        for host in self.hosts.values():
            address = self.network.address(host.number)
            lines += [f"Host {host.name} {address}", f"    HostName {address}"]
            if host.behind:
                lines.append(f"    ProxyJump root@{host.behind}")
            if host.name in jumps:
                # ssh passes -i on to nobody; a person would have an agent.
                lines.append(f'    IdentityFile "{self.key}"')
        known = self.folder / "known_hosts"
        lines += [
            f"Host {self.subnet}.* {' '.join(self.hosts)}",
            f"    ProxyCommand nsenter --net={self.network.namespace} {python} -IS {relay} %h %p",
            "    StrictHostKeyChecking yes",
            f'    UserKnownHostsFile "{known}"',
            "    GlobalKnownHostsFile /dev/null",
        ]
        return "\n".join([*lines, ""])

    def ssh_command(self, name: str, *words: str, user: str = "root", shared: bool = True) -> list[str]:
        """How ssh is called for a host; by default over one login for many commands, ended with the host."""
        self.machine(name)
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-i", str(self.key)]
        # The kernel allows 108 bytes for the path of a socket, and ssh appends 17 of them.
        if shared and len(str(self.folder)) < 60:
            path = f'ControlPath="{self.folder}/%r@%h"'
            options += [
                "-o",
                "ControlMaster=auto",
                "-o",
                "ControlPersist=30",
                "-o",
                path,
                "-o",
                "ServerAliveInterval=5",
            ]
        return ["ssh", "-F", str(self.folder / "ssh_config"), *options, "-l", user, name, *words]

    def variables(self) -> dict[str, dict[str, Any]]:
        """What Ansible has to know of each host."""
        return {
            host.name: {
                "ansible_host": self.network.address(host.number),
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(self.key),
                "ansible_ssh_common_args": f"-F {quote(str(self.folder / 'ssh_config'))}",
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            for host in self.hosts.values()
        }

    def inside(self, *command: str) -> list[str]:
        """A command that runs on the lab's own side of the network, as a controller without detours."""
        return ["ip", "netns", "exec", self.prefix, *command]


def replace(path: Path, text: str) -> None:
    """Write a file that nobody else can read, so that nobody sees half of it."""
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


Item = TypeVar("Item")


def together(action: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """Do the same to several hosts at the same time; the first failure is raised after all have ended."""
    if not items:
        return []
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(action, items))
