# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine has to have for nodes of scope system; each check says what is wrong and what to do about it.

A problem makes a deploy fail or leaves the grid unsafe; a warning is something a person should know.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_names import addresses_of
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_run import output_of
from ansible_collections.openmined.pygrid.plugins.module_utils.host_checks import nearest_existing
from ansible_collections.openmined.pygrid.plugins.module_utils.listeners import holders, listening_ports
from ansible_collections.openmined.pygrid.plugins.module_utils.operating_system import describe

# The first one that hands credentials to services (LoadCredential=).
OLDEST_SYSTEMD = 247
# Tokens and certificates tolerate less than a minute.
CLOCK_SECONDS = 30
# Of its memory a machine needs some for itself: the system, the database, the page cache.
MEMORY_SHARE = 0.8
CAPABILITIES = {
    12: ("CAP_NET_ADMIN", "firewall rules cannot be made"),
    21: ("CAP_SYS_ADMIN", "services cannot be sandboxed"),
}
TESTED_SYSTEMS = {("debian", "11"), ("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")}
# Units of the collection itself and of the database that it runs.
OWN_UNITS = re.compile(r"^(pygrid-|postgresql)")


@dataclass
class Findings:
    """Sentences for a person, each once."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_system(needs: dict[str, Any], staged: bool, root: Path = Path("/")) -> Findings:
    """Compare a machine with what its nodes need. ``staged``: their release is there, so no room is needed for it.

    ``needs`` is made by ``openmined.pygrid.machine_needs``: ``controller_time`` (seconds since the epoch),
    ``reach``, ``names`` (name to what it is for), ``memory_mb``, ``space`` (list of path, mb, files, and whether it is
    for a release and holds programs), ``ports`` (list of variable and port) and ``limits`` (are any set).
    ``root`` is where /proc, /sys and /etc are.
    """
    findings = Findings()
    for sentence in (
        *check_rights(root),
        *check_init(root),
        *check_clock(needs.get("controller_time"), time.time()),
        *check_names(needs.get("names") or {}, _resolves),
        *check_shared_ports(needs.get("ports") or []),
    ):
        findings.problems.append(sentence)
    space = needs.get("space") or []
    if staged:
        # a machine that works already is not refused for a disk that is nearly full
        findings.warnings += check_space(entry for entry in space if not entry.get("release"))
    else:
        findings.problems += check_space(space)
    memory_problems, memory_warnings = check_memory(needs.get("memory_mb") or 0, root)
    findings.problems += memory_problems
    findings.warnings += [
        *memory_warnings,
        *check_reach(needs.get("reach"), addresses_of, is_local_address),
        *check_limits(bool(needs.get("limits")), root),
        *check_selinux(root),
        *check_operating_system(root),
    ]
    return findings


def check_rights(root: Path) -> Iterator[str]:
    """Root, and in a container the capabilities that root usually has."""
    if os.geteuid() != 0:
        yield (
            "the modules do not run as root, which scope system needs; log in as root, or set ansible_become to true"
            " and, unless sudo works without one, ansible_become_password"
        )
        return
    held = re.search(r"(?m)^CapEff:\s*([0-9a-f]+)", read_text(root / "proc/self/status") or "")
    for number, (name, without) in CAPABILITIES.items():
        if held and not int(held[1], 16) >> number & 1:
            yield f"root lacks the capability {name} here, so {without}; give it to the container that this is"


def check_init(root: Path) -> Iterator[str]:
    """A running systemd that is new enough."""
    if not (root / "run/systemd/system").is_dir():
        init = (read_text(root / "proc/1/comm") or "something else").strip()
        yield f"systemd does not run this machine ({init} is process 1); scope system needs it, or use scope user"
        return
    version = re.search(r"^systemd (\d+)", output_of(["systemctl", "--version"]))
    if version and int(version[1]) < OLDEST_SYSTEMD:
        yield (
            f"systemd is {version[1]}, and {OLDEST_SYSTEMD} or newer is needed to hand secrets to services;"
            " use a newer release of the operating system"
        )


def check_clock(controller: float | None, own: float) -> Iterator[str]:
    """The clock of the controller and that of this machine, both named in UTC."""
    if controller is None or abs(own - controller) <= CLOCK_SECONDS:
        return
    here, there = (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment)) for moment in (own, controller))
    yield (
        f"its clock says {here} UTC when that of the controller says {there} UTC, {abs(own - controller):.0f} s apart;"
        " certificates and logins need clocks that agree: run a time service (chrony, systemd-timesyncd)"
    )


def check_space(wanted: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Room, inodes and a usable mount below each path; paths on one disk are added up."""
    disks: dict[int, list[dict[str, Any]]] = {}
    for entry in wanted:
        existing = nearest_existing(Path(entry["path"]))
        disks.setdefault(existing.stat().st_dev, []).append({**entry, "existing": existing})
    for entries in disks.values():
        paths = " and ".join(dict.fromkeys(entry["path"] for entry in entries))
        status = os.statvfs(entries[0]["existing"])
        free, needed = status.f_bavail * status.f_frsize // 1_000_000, sum(entry["mb"] for entry in entries)
        if free < needed:
            yield f"{paths}: {free} MB are free and about {needed} MB are needed; make room or mount a larger disk"
        inodes = sum(entry.get("files", 0) for entry in entries)
        # file systems without a fixed number of inodes say 0 of 0
        if status.f_files and status.f_favail < inodes:
            yield f"{paths}: {status.f_favail} files can still be made, about {inodes} are needed; delete small files"
        if status.f_flag & os.ST_RDONLY:
            yield f"{paths}: the disk is mounted read-only; mount it writable"
        programs = [entry["path"] for entry in entries if entry.get("programs")]
        if programs and status.f_flag & os.ST_NOEXEC:
            yield f"{programs[0]} is mounted noexec, but programs run from there; mount it with exec"


def check_memory(needed_mb: int, root: Path) -> tuple[list[str], list[str]]:
    """All nodes of the machine together, against its memory or the container's."""
    total = total_memory_mb(root)
    if total is None or not needed_mb:
        return [], []
    text = f"its nodes need about {needed_mb} MB of memory when idle and jobs come on top, but it has {total} MB"
    remedy = "move nodes to other machines or add memory"
    if needed_mb > total:
        return [f"{text}; {remedy}"], []
    return [], [f"{text}, which leaves little; {remedy}"] if needed_mb > MEMORY_SHARE * total else []


def total_memory_mb(root: Path) -> int | None:
    """The machine's memory, or that of the container that it is; None when it does not tell."""
    found = re.search(r"(?m)^MemTotal:\s*(\d+) kB", read_text(root / "proc/meminfo") or "")
    limits = [int(found[1]) * 1024] if found else []
    limit = (read_text(root / "sys/fs/cgroup/memory.max") or "").strip()
    if limit.isdigit():
        limits.append(int(limit))
    return min(limits) // 1_000_000 if limits else None


def check_names(names: dict[str, str], resolves: Callable[[str], bool]) -> Iterator[str]:
    """Every name that this machine will have to look up."""
    for name, purpose in names.items():
        if not resolves(name):
            yield f"the name {name} ({purpose}) does not resolve here; add it to the DNS or to /etc/hosts"


def check_reach(
    reach: str | None, resolve: Callable[[str], list[str]], is_local: Callable[[str], bool]
) -> Iterator[str]:
    """Whether the address that others use is one of this machine's own."""
    addresses = resolve(reach) if reach else []
    # on Debian a machine's own name is 127.0.1.1 in its /etc/hosts: that says nothing of what others see
    public = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    if public and not any(is_local(address) for address in public):
        yield (
            f"pygrid_address is {reach}, which is none of its own addresses: fine behind NAT that forwards the ports;"
            " then set pygrid_domain_queue_address to an own address, and pygrid_firewall_sources to what others see"
        )


def is_local_address(address: str) -> bool:
    """Whether a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _resolves(name: str) -> bool:
    return bool(addresses_of(name))


def check_shared_ports(ports: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Ports of the services that nodes share, such as the proxy: free, or held by a unit of the collection."""
    listening = listening_ports()
    for entry in ports:
        strangers = [
            holder for holder in holders(listening.get(entry["port"], set())) if not OWN_UNITS.match(holder.unit)
        ]
        # a socket unit's listener is held by systemd as well as by the service
        strangers = [holder for holder in strangers if holder.pid != 1]
        if strangers:
            yield (
                f"{entry['variable']} is {entry['port']}, but {strangers[0].text} listens there;"
                " stop it or choose another port"
            )


def check_limits(wanted: bool, root: Path) -> Iterator[str]:
    """Limits of memory and tasks need control groups of version 2."""
    if wanted and not (root / "sys/fs/cgroup/cgroup.controllers").exists():
        yield (
            "it has control groups of version 1, so limits of memory and tasks may have no effect;"
            " boot it with systemd.unified_cgroup_hierarchy=1"
        )


def check_selinux(root: Path) -> Iterator[str]:
    """What an enforcing SELinux will want to be told."""
    if (read_text(root / "sys/fs/selinux/enforce") or "").strip() != "1":
        return
    if output_of(["getsebool", "haproxy_connect_any"]).strip().endswith("on"):
        return
    yield (
        "SELinux is enforcing and the collection is not tested with it: the proxy needs the boolean haproxy_connect_any"
        " (setsebool -P haproxy_connect_any on); look for denials with ausearch -m avc"
    )


def check_operating_system(root: Path) -> Iterator[str]:
    """Whether the collection was tried on this operating system."""
    system = describe(read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release") or "")
    if (system["id"], system["version_id"]) not in TESTED_SYSTEMS:
        name = f"{system['id']} {system['version_id']}".strip() or "this operating system"
        yield f"the collection is not tested on {name}; docs/preflight.md tells what is known"
