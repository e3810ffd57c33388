# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups: one for each host, by which all of its processes are found and killed, whoever their parent is."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .machine import LabError

#: Hierarchies of cgroup v1 that are used where they are mounted: tracking, and what systemd limits. (A group in
#: cpuset takes no process before it is filled in.)
VERSION_1 = {"name=systemd", "memory", "pids", "cpu", "cpuacct", "cpu,cpuacct"}


@cache
def hierarchies() -> tuple[Path, ...]:
    """Where this machine's hierarchies are mounted; the first one follows every process."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        kind, _dash, options = after.split(" ", 2)
        folder = Path(before.split()[4])
        if kind == "cgroup2":
            found.insert(0, folder)
        elif kind == "cgroup" and VERSION_1 & {folder.name, f"name={folder.name}", *options.split(",")}:
            found.append(folder)
    if not found:
        raise LabError("no control groups are mounted at /sys/fs/cgroup; mount them, as systemd would")
    return tuple(found)


@dataclass(frozen=True)
class Group:
    """One control group in all hierarchies."""

    name: str

    def folders(self) -> list[Path]:
        return [hierarchy / self.name for hierarchy in hierarchies()]

    def make(self) -> None:
        """Create the group, and hand the controllers of cgroup v2 down to it."""
        for hierarchy in hierarchies():
            parent = hierarchy
            for part in Path(self.name).parts:
                control = parent / "cgroup.subtree_control"
                if control.exists():
                    for controller in (parent / "cgroup.controllers").read_text().split():
                        with suppress(OSError):  # used by a v1 hierarchy, or the parent has processes
                            control.write_text(f"+{controller}")
                parent /= part
                parent.mkdir(exist_ok=True)

    def limit(self, memory_mb: int, processors: float) -> None:
        """Let the group use no more than so much of this machine; 0: all of it."""
        memory = memory_mb << 20
        limits = {
            "memory.max": memory or "max",
            "memory.limit_in_bytes": memory or -1,
            "cpu.max": f"{int(processors * 100_000) or 'max'} 100000",
            "cpu.cfs_quota_us": int(processors * 100_000) or -1,
        }
        for folder in self.folders():
            for name, value in limits.items():
                if (folder / name).exists():
                    (folder / name).write_text(str(value))

    def processes(self) -> list[int]:
        """Everything that runs in the group and below it."""
        found: set[int] = set()
        for folder, _folders, _files in os.walk(self.folders()[0]):
            with suppress(OSError):  # removed since
                found |= {int(line) for line in Path(folder, "cgroup.procs").read_text().split()}
        return sorted(found)

    def kill(self) -> None:
        """End everything in the group at once, as a power cut does, and wait until it is gone."""
        deadline = time.monotonic() + 60
        while processes := self.processes():
            if time.monotonic() > deadline:
                raise LabError(f"processes {processes} of {self.name} cannot be killed; look at their state in /proc")
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.02)

    def remove(self) -> None:
        """Take the group away, from the innermost outwards."""
        for top in self.folders():
            for folder, _folders, _files in os.walk(top, topdown=False):
                remove_empty(Path(folder))

    def memory_mb(self) -> int:
        """What the group uses, page cache included; 0 where nobody counts."""
        names = ("memory.current", "memory.usage_in_bytes")
        found = [
            int((folder / name).read_text()) for folder in self.folders() for name in names if (folder / name).exists()
        ]
        return max(found, default=0) >> 20


def remove_empty(folder: Path) -> None:
    """Remove a group; after the last process has ended the kernel says that it is busy, under load for many seconds."""
    deadline = time.monotonic() + 60
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
