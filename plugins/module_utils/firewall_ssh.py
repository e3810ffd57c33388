# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports of SSH on this machine, from every source there is: one that is overlooked locks its owner out."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_run import SYSTEM_PATH, output_of
from ansible_collections.openmined.pygrid.plugins.module_utils.listeners import (
    PROC,
    listening_ports,
    programs,
    sockets_of,
)


def ssh_ports(given: Iterable[int]) -> set[int]:
    """The given ones (Ansible's port), those of this session, those configured and those listened on."""
    return {*given, *_session_ports(), *_configured_ports(), *_listening_sshd()}


def _session_ports() -> set[int]:
    """Ports of the SSH session above this process. sudo clears the environment, so every parent is asked."""
    found = set()
    pid = os.getpid()
    while pid > 1:
        with contextlib.suppress(OSError):
            environment = (PROC / str(pid) / "environ").read_bytes().decode(errors="replace")
            found |= connection_ports(environment)
        pid = _parent(pid)
    return found


def connection_ports(environment: str) -> set[int]:
    """From ``SSH_CONNECTION=client port server port`` in a process's environment (NUL between variables)."""
    return {int(port) for port in re.findall(r"(?:^|\0)SSH_CONNECTION=\S+ \d+ \S+ (\d+)(?=\0|$)", environment)}


def _parent(pid: int) -> int:
    try:
        # the program's name stands in brackets and may hold anything
        fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[1])
    except (OSError, IndexError, ValueError):
        return 0


def _configured_ports() -> set[int]:
    found = set()
    sshd = shutil.which("sshd", path=SYSTEM_PATH)
    if sshd:
        found |= {int(port) for port in re.findall(r"(?m)^port (\d+)$", output_of([sshd, "-T"]))}
    if Path("/run/systemd/system").exists():
        # with socket activation (Ubuntu 24.04) systemd listens, and sshd knows nothing of its port
        listen = output_of(["systemctl", "show", "--property=Listen", "ssh.socket", "sshd.socket"])
        found |= {int(port) for port in re.findall(r"(?m)^Listen=\S*:(\d+) \(Stream\)", listen)}
    return found


def _listening_sshd() -> set[int]:
    sockets = {inode for pid, program in programs() if program.startswith("sshd") for inode in sockets_of(pid)}
    return {port for port, inodes in listening_ports().items() if inodes & sockets}
