# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What names of hosts and accounts mean on this machine, now: a firewall holds addresses and numbers."""

from __future__ import annotations

import pwd
import socket
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text

HOSTS_FILE = Path("/etc/hosts")
RESOLVER_FILE = Path("/etc/resolv.conf")


def addresses_of(name: str) -> list[str]:
    """All addresses of a name, of both families, each once; none when it does not resolve."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    # a link-local address comes with the number of its interface
    return list(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers))


def uid_of(account: str) -> int | None:
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        return None


def names_in_hosts_file() -> frozenset[str]:
    """Names that are known without asking a name server."""
    lines = (read_text(HOSTS_FILE) or "").splitlines()
    return frozenset(name for line in lines for name in line.partition("#")[0].split()[1:])


def name_servers() -> list[str]:
    lines = (read_text(RESOLVER_FILE) or "").splitlines()
    words = [line.split() for line in lines]
    return [word[1].partition("%")[0] for word in words if len(word) > 1 and word[0] == "nameserver"]
