# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be known of a host before anything is changed there; checks return sentences, none if all is well."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_json
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, NodePaths

# A staged release is about 700 MB, hard-linked from the package cache where that lies on the same disk.
RELEASE_BYTES = 1_000_000_000
# sun_path holds 107 bytes; supervisord binds a name with ".<pid>" appended first.
LONGEST_SOCKET_PATH = 98
# SYFT_DB_URL exists from here on; older versions keep their data in files that newer ones silently ignore.
OLDEST_DATA = (0, 9, 2)


def version_tuple(text: str) -> tuple[int, ...]:
    """``0.9.5`` as (0, 9, 5); anything that is no number ends it."""
    parts: list[int] = []
    for part in str(text).split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def nearest_existing(path: Path) -> Path:
    """``path`` itself or the closest folder above it that is there already."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_home(home: Home, needs_release: bool) -> list[str]:
    """Can the home folder be made and written, and is there room for a release?"""
    problems = []
    existing = nearest_existing(home.root)
    if not existing.is_dir():
        return [f"pygrid_home is {home.root}, but {existing} is not a folder; choose another folder"]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [
            f"pygrid_home is {home.root}, but {existing} cannot be written by this account;"
            " make it writable or set pygrid_home to a folder that is"
        ]
    socket_path = str(home.supervisor / "supervisord.sock")
    if home.scope == "user" and len(os.fsencode(socket_path)) > LONGEST_SOCKET_PATH:
        problems.append(
            f"pygrid_home is too long: the socket {socket_path} may have {LONGEST_SOCKET_PATH} bytes;"
            " set pygrid_home to a shorter path"
        )
    if needs_release:
        status = os.statvfs(existing)
        free = status.f_bavail * status.f_frsize
        if free < RELEASE_BYTES:
            problems.append(
                f"{existing} has {free // 1_000_000} MB free, a release needs about {RELEASE_BYTES // 1_000_000} MB;"
                " make room or set pygrid_home to a larger disk"
            )
    return problems


def check_ports(address: str, ports: dict[str, int], own_pid: int | None, held: str = "") -> list[str]:
    """Is each port free, unless the running node itself (the process ``own_pid``) or its service manager holds it?

    ``ports``: variable name -> number, so that the message can name what to change. ``held``: address:port.
    """
    problems = []
    for variable, port in ports.items():
        if held == f"[{address}]:{port}" or held == f"{address}:{port}":
            continue
        reason = _why_not_bindable(address, port, own_pid)
        if reason:
            problems.append(f"{variable} is {port}, but {reason}; free it or choose another port")
    return problems


def _why_not_bindable(address: str, port: int, own_pid: int | None) -> str | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # else a connection that was just closed (TIME_WAIT) looks like a listener
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return f"{address}:{port} cannot be opened: {os.strerror(error.errno or 0)}"
        else:
            return None
    listening = _listening_sockets(port)
    if own_pid and listening & _sockets_of(Path("/proc") / str(own_pid)):
        return None
    return f"{address}:{port} is in use by {_holder(listening) or 'another program'}"


def _listening_sockets(port: int) -> set[str]:
    """The sockets that listen on ``port`` on any address, as the links in /proc/PID/fd name them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: listening
                found.add(f"socket:[{fields[9]}]")
    return found


def _sockets_of(process: Path) -> set[str]:
    """The open sockets of a process (its folder in /proc), none when this account may not see them."""
    found = set()
    try:
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry))
    except OSError:
        return set()
    return found


def _holder(listening: set[str]) -> str | None:
    """Who listens, as far as this account may see."""
    for process in Path("/proc").glob("[0-9]*"):
        if listening & _sockets_of(process):
            with contextlib.suppress(OSError):
                return f"{(process / 'comm').read_text(encoding='utf-8').strip()} (process {process.name})"
    return None


def check_data(node: NodePaths, wanted_version: str, brought_uid: str | None) -> list[str]:
    """Does the data that lies in the node's folder belong to its identity, and can the wanted version read it?"""
    problems = []
    identity: dict[str, Any] = read_json(node.identity) or {}
    owner: dict[str, Any] = read_json(node.owner) or {}
    uid = identity.get("uid") or brought_uid
    if identity and brought_uid and identity.get("uid") != brought_uid:
        problems.append(
            f"pygrid_uid is {brought_uid}, but {node.identity} holds the identity {identity.get('uid')};"
            " remove the variable, or move the node's folder away to make another node"
        )
    if owner and not uid:
        problems.append(
            f"{node.data} holds the data of identity {owner.get('uid')}, but {node.identity} is missing;"
            " put the identity back, or move the data away to make a new node"
        )
    elif owner and uid != owner.get("uid"):
        problems.append(
            f"{node.data} holds the data of another identity ({owner.get('uid')}, this node is {uid});"
            " put back the identity that belongs to it, or move the data away"
        )
    elif node.database.exists() and not owner and not identity:
        problems.append(
            f"{node.database} is there, but no identity that it belongs to ({node.identity});"
            " put the identity back, or move the database away"
        )
    problems.extend(_check_data_version(node, wanted_version, str(owner.get("syft_version", ""))))
    return problems


def _check_data_version(node: NodePaths, wanted: str, written_by: str) -> list[str]:
    if written_by and version_tuple(written_by) < OLDEST_DATA:
        return [
            f"{node.data} was written by syft {written_by}; {wanted} would silently start empty in its place."
            " Move the data by get_migration_data / load_migration_data to a new node"
        ]
    # syft before 0.9.2 named its database after the node's id and never looked for another one
    old = [path for pattern in ("*.sqlite", "db/*.sqlite", "*/db/*.sqlite") for path in node.data.glob(pattern)]
    if old:
        return [
            f"{old[0]} is a database of syft 0.9.1 or older; {wanted} would silently start empty beside it."
            " Move the data by get_migration_data / load_migration_data to a new node"
        ]
    if written_by and version_tuple(written_by) > version_tuple(wanted):
        return [
            f"pygrid_version is {wanted}, but {node.data} was written by syft {written_by}, which {wanted} cannot read;"
            f" set pygrid_version to {written_by} or newer"
        ]
    return []
