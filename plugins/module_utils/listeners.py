# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on which TCP port of this machine, from /proc."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"


@dataclass(frozen=True)
class Holder:
    """A process that holds a socket. ``unit`` is its systemd unit, empty when it has none."""

    pid: int
    program: str
    unit: str

    @property
    def text(self) -> str:
        return f"{self.program} (process {self.pid}{', ' + self.unit if self.unit else ''})"


def listening_ports() -> dict[int, set[str]]:
    """Port to the inodes of the sockets that listen on it, on whatever address."""
    ports: dict[int, set[str]] = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING:
                    ports.setdefault(int(fields[1].rpartition(":")[2], 16), set()).add(fields[9])
    return ports


def holders(inodes: set[str]) -> list[Holder]:
    """The processes that hold these sockets, as far as this account may see."""
    return [Holder(pid, program, unit_of(pid)) for pid, program in programs() if inodes & sockets_of(pid)]


def programs() -> list[tuple[int, str]]:
    """Number and name of every process."""
    found = []
    for process in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((int(process.name), (process / "comm").read_text(encoding="utf-8").strip()))
    return sorted(found)


def sockets_of(pid: int) -> set[str]:
    """Inodes of the sockets that a process holds; none when this account may not see them."""
    found = set()
    try:
        for entry in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                kind, _colon, inode = os.readlink(entry).partition(":")
                if kind == "socket":
                    found.add(inode.strip("[]"))
    except OSError:
        return set()
    return found


def unit_of(pid: int) -> str:
    """``postgresql@15-main.service`` for a process of that unit; empty for one of a session or none at all."""
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines():
            for part in reversed(line.strip().split("/")):
                if part.endswith((".service", ".socket")):
                    return part
    return ""
