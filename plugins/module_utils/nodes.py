# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the real state of one node: what is on disk, what its service manager says, what it says itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.backup_folder import read_backup
from ansible_collections.openmined.pygrid.plugins.module_utils.control import NodeUnavailable, request
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_json, read_text
from ansible_collections.openmined.pygrid.plugins.module_utils.former import FormerState
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, NodePaths
from ansible_collections.openmined.pygrid.plugins.module_utils.services.managers import manager_for
from ansible_collections.openmined.pygrid.plugins.module_utils.settings import digest

PUBLIC_IDENTITY = ("uid", "verify_key", "root_email", "queue_public_key")


def public_identity(identity: dict[str, Any] | None) -> dict[str, str] | None:
    """The part of an identity that others may know."""
    if not identity:
        return None
    return {key: identity[key] for key in PUBLIC_IDENTITY if key in identity}


def host_id() -> str:
    """The same for all nodes on one running machine: the kernel's boot id, with the machine's name to be safe."""
    boot = read_text(Path("/proc/sys/kernel/random/boot_id")) or ""
    return f"{os.uname().nodename}-{boot.strip()}"


def read_health(node: NodePaths, details: bool = False, timeout_seconds: float = 5.0) -> dict[str, Any] | None:
    """What the running node says of itself; None when it does not answer."""
    if not node.control_socket.exists():
        return None
    try:
        _status, answer = request(
            node.control_socket, "GET", "/status" if details else "/healthz/ready", timeout_seconds=timeout_seconds
        )
    except NodeUnavailable:
        return None
    return answer


def read_peers(node: NodePaths) -> list[dict[str, Any]] | None:
    """The peers of a running Network or Domain with uid, name, url and status; None when it does not tell."""
    try:
        status, answer = request(node.control_socket, "GET", "/control/association")
    except NodeUnavailable:
        return None
    return answer["peers"] if status == 200 else None


def read_former(node: NodePaths) -> dict[str, Any] | None:
    """What the node can go back to (former.Former) without the texts of its files; None when to nothing."""
    former = FormerState(node).read()
    if former is None:
        return None
    return {key: getattr(former, key) for key in ("release", "upgraded_to", "snapshot", "since", "going_back")}


def read_node(home: Home, name: str, details: bool = False) -> dict[str, Any]:
    """Everything that decisions about a node are made from; holds no secret."""
    node = home.node(name)
    service = manager_for(home).state(name)
    settings = read_text(node.settings)
    health = read_health(node, details) if service.state == "running" else None
    return {
        "name": name,
        "home": str(home.root),
        "folder": str(node.root),
        "host_id": host_id(),
        "exists": node.root.is_dir(),
        "release": node.active_release(),
        "identity": public_identity(read_json(node.identity)),
        "settings": read_json(node.settings),
        "settings_digest": digest(settings),
        "workers": read_json(node.workers),
        "former": read_former(node),
        "trial": node.trial.exists() or FormerState(node).is_on_trial,
        "upgrading": FormerState(node).has_begun,
        "backup": read_backup(node),
        "data": node.data.is_dir() and any(node.data.iterdir()),
        "service": {
            "state": service.state,
            "pid": service.pid,
            "uptime_seconds": service.uptime_seconds,
            "detail": service.detail,
            "holds": service.holds,
        },
        "health": health,
        "peers": read_peers(node) if health and health.get("kind") != "worker" else None,
    }
