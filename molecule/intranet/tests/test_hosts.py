# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each node on its host: service, sandbox, account, files, journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

# node, kind, host
NODES = (
    ("net", "network", "net"),
    ("alice", "domain", "alice"),
    ("bob", "domain", "bob"),
    ("alice-w1", "worker", "workers"),
    ("bob-w1", "worker", "workers"),
)
each_node = pytest.mark.parametrize(("node", "kind", "host"), NODES, ids=[node for node, _kind, _host in NODES])
each_listener = pytest.mark.parametrize(("node", "kind", "host"), NODES[:3], ids=["net", "alice", "bob"])


@each_node
def test_service_runs_now_and_after_a_reboot(grid: Intranet, node: str, kind: str, host: str) -> None:
    assert grid.must(host, f"systemctl is-active pygrid-{kind}@{node}") == "active"
    assert grid.must(host, f"systemctl is-enabled pygrid-{kind}@{node}") == "enabled"
    shown = grid.must(host, f"systemctl show -p Type,Restart,KillMode,WatchdogUSec,NRestarts pygrid-{kind}@{node}")
    assert {"Type=notify", "Restart=always", "KillMode=mixed", "WatchdogUSec=1min", "NRestarts=0"} <= set(
        shown.splitlines()
    )


@each_node
def test_sandbox_is_rated_two_or_better(grid: Intranet, node: str, kind: str, host: str) -> None:
    assert grid.exposure(host, f"pygrid-{kind}@{node}") <= 2.0


@each_listener
def test_port_is_held_by_systemd_on_loopback(grid: Intranet, node: str, kind: str, host: str) -> None:
    assert grid.must(host, f"systemctl is-active pygrid-{kind}@{node}.socket") == "active"
    port = {"network": 7000, "domain": 5000}[kind]
    lines = grid.must(host, f"ss -ltnH sport = :{port}").splitlines()
    # One for everybody, one for the other nodes of the grid.
    assert {line.split()[3] for line in lines} == {f"127.0.0.1:{port}", f"127.0.0.2:{port}"}


@each_node
def test_account_is_its_own_and_cannot_log_in(grid: Intranet, node: str, kind: str, host: str) -> None:
    entry = grid.must(host, f"getent passwd pygrid-{node}").split(":")
    assert entry[6].endswith("nologin")
    processes = grid.must(host, f"ps -o user:32= -u pygrid-{node}").split()
    assert set(processes) == {f"pygrid-{node}"}
    pid = grid.must(host, f"systemctl show -p MainPID --value pygrid-{kind}@{node}")
    assert grid.must(host, f"ps -o user:32= -p {pid}") == f"pygrid-{node}"


@each_node
def test_secrets_belong_to_root(grid: Intranet, node: str, kind: str, host: str) -> None:
    files = grid.must(host, f"stat -c '%n %U %G %a' /etc/pygrid/nodes/{node} /etc/pygrid/nodes/{node}/*").splitlines()
    modes = {line.split()[0].rpartition("/")[2]: line.split()[1:] for line in files}
    assert modes[node] == ["root", f"pygrid-{node}", "750"]
    assert modes["settings.json"] == ["root", f"pygrid-{node}", "640"]
    assert modes["identity.json"] == ["root", "root", "600"]
    if node != "net":  # it has SQLite in this scenario
        assert modes["database.url"] == ["root", "root", "600"]
    assert grid.must(host, f"stat -c '%U %a' /var/lib/pygrid/{node}").split() == [f"pygrid-{node}", "700"]


@each_node
def test_log_is_in_the_journal(grid: Intranet, node: str, kind: str, host: str) -> None:
    assert grid.must(host, f"journalctl -u pygrid-{kind}@{node} -o cat -n 50")


@each_node
def test_own_account_cannot_change_what_the_node_is(grid: Intranet, node: str, kind: str, host: str) -> None:
    for place in (f"/etc/pygrid/nodes/{node}/settings.json", f"/etc/pygrid/nodes/{node}/current/manifest.json"):
        assert not grid.run(host, f"echo x >> {place}", account=f"pygrid-{node}").succeeded


def test_hosts_finished_their_boot_well(grid: Intranet) -> None:
    for host in ("net", "alice", "bob", "workers"):
        assert grid.must(host, "systemctl --failed --no-legend --plain") == ""
