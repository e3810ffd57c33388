# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This run of Ansible among all others: a name that a later run on the same controller can see to be dead."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def own_name(process: int | None = None) -> str:
    """The name of this run: machine, boot, process, and when that process began.

    Args:
        process: the one that a person started; the parent by default, as actions run in children of it.
    """
    process = os.getppid() if process is None else process
    return ":".join((_machine(), _boot(), str(process), _began(process)))


def is_dead(name: str) -> bool:
    """Whether this is the name of a run on this controller that has ended; False for whatever cannot be known here."""
    machine, _colon, rest = name.partition(":")
    boot, _colon, rest = rest.partition(":")
    process, _colon, began = rest.partition(":")
    if machine != _machine() or not process.isdecimal():
        return False
    return boot != _boot() or (began != "" and _began(int(process)) != began)


def person(variables: Mapping[str, Any] | None = None) -> str:
    """Who runs this, for other people: account, controller and process.

    Behind the account there may be somebody else, whom sudo knows, or AWX (``variables`` of the run).
    """
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        account = str(os.getuid())
    known = variables or {}
    behind = known.get("awx_user_name") or known.get("tower_user_name") or os.environ.get("SUDO_USER") or account
    name = account if behind == account else f"{behind} as {account}"
    return f"{name}@{os.uname().nodename} (process {os.getppid()})"


def _machine() -> str:
    """A name that is this machine's, and does not tell its id to others.

    A container's is its own whatever image it was made from: it cannot see whether processes outside of it run.
    """
    identity = _read("/etc/machine-id") or f"{os.uname().nodename} {uuid.getnode()}"
    with contextlib.suppress(OSError):  # macOS has none
        identity += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _began(process: int) -> str:
    """When a process began, in ticks since boot (proc(5)); empty when there is none, or no /proc to tell (macOS).

    One that has ended and whose parent has not asked for its exit code yet is none.
    """
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
