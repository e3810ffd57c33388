# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a lab: a bridge in a namespace of its own, a cable to each host, and a way out that can be closed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .groups import Group
from .machine import PATH, LabError, run

NAMESPACES = Path("/run/netns")
RULES = """
table inet lab {
    set offline { type ipv4_addr; counter; }
    set hidden { type ipv4_addr; }
    chain forward {
        type filter hook forward priority 0;
        oifname "tap0" ip saddr @offline reject with icmp type net-unreachable
    }
    chain output {
        type filter hook output priority 0;
        ip daddr @hidden drop
    }
    chain way_out {
        type nat hook postrouting priority 100;
        oifname "tap0" masquerade
    }
}
"""


@dataclass(frozen=True)
class Network:
    """One lab's network; `prefix` is what the names of its namespaces begin with."""

    prefix: str
    subnet: str

    @property
    def namespace(self) -> Path:
        """The lab's own side, where the controller's connections start."""
        return NAMESPACES / self.prefix

    def host_namespace(self, name: str) -> Path:
        return NAMESPACES / f"{self.prefix}.{name}"

    def address(self, number: int) -> str:
        return f"{self.subnet}.{number}"

    @property
    def group(self) -> Group:
        return Group(f"{self.prefix}/network")

    def ip(self, *words: str) -> str:
        return run("ip", "-n", self.prefix, *words)

    def nft(self, *words: str, rules: str | None = None) -> str:
        return run("ip", "netns", "exec", self.prefix, "nft", *words, input=rules)

    def create(self) -> None:
        """Make the namespace, the bridge and the way out, unless they are there and whole."""
        if self.whole():
            if not self.group.processes():
                self.open_way_out()
            return
        self.remove()
        run("ip", "netns", "add", self.prefix)
        run("ip", "netns", "exec", self.prefix, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", "br0", "type", "bridge")
        self.ip("address", "add", f"{self.address(1)}/24", "dev", "br0")
        self.ip("link", "set", "br0", "up")
        self.nft("-f", "-", rules=RULES)
        self.open_way_out()

    def whole(self) -> bool:
        """Whether everything up to the rules, which are made last, is there."""
        try:
            self.nft("list", "table", "inet", "lab")
        except LabError:
            return False
        return True

    def open_way_out(self) -> None:
        """Start slirp4netns and wait until it has configured its end."""
        self.group.make()
        ready, told = os.pipe()
        options = ["--configure", "--mtu=1500", "--disable-host-loopback", "--netns-type=path", f"--ready-fd={told}"]
        command = enter(self.group, "slirp4netns", *options, str(self.namespace), "tap0")
        environment = {**os.environ, "PATH": PATH}
        starter = subprocess.Popen(
            ["setsid", "--fork", *command], env=environment, pass_fds=[told], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(told)
        starter.wait()
        with os.fdopen(ready) as answer:
            if answer.read(1) != "1":
                raise LabError(f"slirp4netns does not start: run it by hand: {' '.join(command[-8:])}")

    def remove(self) -> None:
        """End whatever still uses the network, and take it away."""
        self.group.kill()
        self.group.remove()
        namespaces = [self.namespace, *NAMESPACES.glob(f"{self.prefix}.*")]
        for namespace in namespaces:
            if namespace.exists():
                for process in users(namespace):
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                run("ip", "netns", "delete", namespace.name)

    def attach(self, name: str, number: int) -> None:
        """Give a host its namespace and a cable to the bridge, unless it has them."""
        host = self.host_namespace(name).name
        if (NAMESPACES / host).exists():
            # The route is made last.
            if run("ip", "-n", host, "route", "show", "default"):
                return
            run("ip", "netns", "delete", host)
        run("ip", "netns", "add", host)
        self.ip("link", "add", f"h{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
        self.ip("link", "set", f"h{number}", "master", "br0", "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address(number)}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", self.address(1)),
        ):
            run("ip", "-n", host, *words)

    def detach(self, name: str, number: int) -> None:
        """Take a host's cable and namespace away."""
        with suppress(LabError):  # it had none
            self.ip("link", "delete", f"h{number}")
        if self.host_namespace(name).exists():
            run("ip", "netns", "delete", self.host_namespace(name).name)

    def plug(self, number: int, connected: bool = True) -> None:
        """Plug or unplug a host's cable at the bridge."""
        self.ip("link", "set", f"h{number}", "up" if connected else "down")

    def set_member(self, which: str, number: int, member: bool) -> None:
        """Put a host on, or take it off, the list of those without a way out (offline) or unseen by us (hidden)."""
        if (self.address(number) in self.members(which)) != member:
            self.nft("add" if member else "delete", "element", "inet", "lab", which, f"{{ {self.address(number)} }}")

    def members(self, which: str) -> dict[str, int]:
        """The addresses on a list, each with the number of packets that were stopped for it."""
        answer = json.loads(self.nft("-j", "list", "set", "inet", "lab", which))
        listed = next(entry["set"] for entry in answer["nftables"] if "set" in entry).get("elem", [])
        plain = [entry["elem"] if isinstance(entry, dict) else {"val": entry} for entry in listed]
        return {entry["val"]: entry.get("counter", {}).get("packets", 0) for entry in plain}

    def hang_up(self, address: str) -> None:
        """End the connections of the controller to a host, which would wait for answers that never come."""
        for process in users(self.namespace):
            with suppress(OSError):
                if f"\0{address}\0".encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                    os.kill(process, signal.SIGKILL)


def enter(group: Group, *command: str) -> list[str]:
    """A command that runs in a control group from its start."""
    script = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1/cgroup.procs"; shift; n=$((n-1)); done; exec "$@"'
    folders = [str(folder) for folder in group.folders()]
    return ["sh", "-c", script, "enter", str(len(folders)), *folders, *command]


def users(namespace: Path) -> list[int]:
    """The processes in a network namespace."""
    wanted = namespace.stat().st_ino
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):
            if link.stat().st_ino == wanted:
                found.append(int(link.parts[2]))
    return found
