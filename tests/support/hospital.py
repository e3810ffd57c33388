# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole grid on one host of a lab (molecule/airgapped/inventories/grid.yml), for tests that kill its deploys."""

from __future__ import annotations

from tests.support.intranet import Intranet

HOST = "hospital"
NODES = ("net", "alice", "bob", "alice-w1", "bob-w1")


def name_urls(grid: Intranet) -> None:
    """Let the host resolve the names in the URLs of its nodes."""
    names = " ".join(f"{node}.hospital.example" for node in ("net", "alice", "bob"))
    grid.must(HOST, "cat >> /etc/hosts", text=f"{grid.address(HOST)} {names}\n")


def assert_whole(grid: Intranet, seconds: float = 5) -> None:
    """Insist that all is as after an undisturbed deploy; nodes may take ``seconds`` to be ready."""
    for node in NODES:
        grid.wait_ready(HOST, node, seconds)
    peers = {peer["name"]: peer["status"] for peer in grid.status(HOST, "net")["peers"]}
    assert peers == {"alice": "ACTIVE", "bob": "ACTIVE"}
    releases = grid.must(HOST, "ls -A /opt/pygrid/releases").splitlines()
    assert len(releases) == 1, releases
    assert releases[0].startswith("0.9.5-")
    assert grid.must(HOST, "find /etc/pygrid /opt/pygrid -name '*.draft' -o -name '*.new' -o -name '.staging*'") == ""
    assert grid.must(HOST, "systemctl --failed --no-legend --plain") == ""
