# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts of mimic with the servers of a grid; each user's name is an account of its own there."""

from __future__ import annotations

from pathlib import Path

import yaml
from libcloud.compute.providers import get_driver

HERE, THERE = "DFW", "ORD"
NODES = {
    HERE: [("network", "net", ""), ("domain", "alice", ""), ("worker", "alice-w1", "alice")],
    THERE: [("domain", "bob", ""), ("worker", "bob-w1", "bob"), ("spare", "spare-1", "")],
}
NAMES = {name for nodes in NODES.values() for _role, name, _domain in nodes}
GROUPS = {
    "pygrid_network": ["net"],
    "pygrid_domain": ["alice", "bob"],
    "pygrid_worker": ["alice-w1", "bob-w1"],
    "pygrid_spare": ["spare-1"],
}


def fill(port: int, user: str) -> None:
    """Create the grid's servers in two regions, and one server that is none of its in each."""
    for region, nodes in NODES.items():
        named = [
            {"pygrid_grid": "heart", "pygrid_role": role, "pygrid_name": name, "pygrid_domain": domain}
            for role, name, domain in nodes
        ]
        create(port, user, region, [{}, *({tag: value for tag, value in tags.items() if value} for tags in named)])


def create(port: int, user: str, region: str, metadata: list[dict[str, str]]) -> None:
    """Create a server for each metadata."""
    driver = get_driver("rackspace")(user, "key", region=region.lower(), secure=False, ex_force_auth_url=auth(port))
    size, image = driver.list_sizes()[0], driver.list_images()[0]
    for tags in metadata:
        name = f"machine-{tags.get('pygrid_name', 'blog')}"
        driver.create_node(name=name, size=size, image=image, ex_metadata=tags)


def auth(port: int) -> str:
    """Where an account gets its tokens."""
    return f"http://127.0.0.1:{port}/identity"


def write_clouds(file: Path, url: str, user: str, *regions: str) -> None:
    """Tell openstacksdk of the account as the cloud `hospital`. ``url``: of mimic, or of a proxy before it."""
    described = {
        "auth_type": "v2password",
        "auth": {"auth_url": f"{url}/identity/v2.0", "username": user, "password": "p"},
        "identity_api_version": "2.0",
        "regions": list(regions),
    }
    file.write_text(yaml.safe_dump({"clouds": {"hospital": described}}))
