# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scope system: who is where, which address leads there, which database and which packages that needs."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.filter.grid import host_leaders
from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import LONGEST, account_name
from ansible_collections.openmined.pygrid.plugins.plugin_utils.flows import firewall_rules
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import Grid, Spare, build_grid, build_node
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import find_problems, find_warnings
from ansible_collections.openmined.pygrid.plugins.plugin_utils.packages import add_packages
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import validate

# name, kind, machine
NODES = (
    ("net", "network", "10.0.0.1"),
    ("alice", "domain", "10.0.0.2"),
    ("bob", "domain", "10.0.0.3"),
    ("alice-w1", "worker", "10.0.0.4"),
    ("bob-w1", "worker", "10.0.0.3"),
)


def intranet(spare: dict[str, Spare] | None = None, **changed: dict[str, Any]) -> Grid:
    """A grid of four machines; ``changed``: variables by node, with _ for -."""
    nodes, values = {}, {}
    for name, kind, machine in NODES:
        variables = {"pygrid_scope": "system", **changed.get(name.replace("-", "_"), {})}
        if kind == "worker":
            variables["pygrid_worker_domain"] = name.partition("-")[0]
        values[name], problems = validate(kind, variables)
        assert problems == []
        nodes[name] = build_node(name, kind, values[name], machine, {"version": "0.9.5"})
    return build_grid(nodes, values, spare)


def problems(**changed: dict[str, Any]) -> dict[str, str]:
    return dict(find_problems(intranet(**changed)))


def test_others_come_in_through_the_ingress() -> None:
    grid = intranet(bob={"pygrid_domain_url": "https://bob.example:8443", "pygrid_https_port": 8443})
    assert grid.network_url == "https://10.0.0.1"
    alice, bob = grid.nodes["alice"].ingress, grid.nodes["bob"].ingress
    assert alice is not None
    assert bob is not None
    assert (alice.port, alice.names, alice.backend_port) == (443, ["10.0.0.2"], 5000)
    assert (bob.port, bob.server_name, bob.names) == (8443, "bob.example", ["bob.example", "10.0.0.3"])
    assert grid.nodes["alice-w1"].ingress is None
    assert problems() == {}


def test_with_spare_machines_queues_listen_for_them_and_firewalls_let_nobody_in_yet() -> None:
    assert intranet().nodes["bob"].queue_address == "127.0.0.1"
    grid = intranet({"s": Spare("s", "10.0.0.9")})
    assert grid.nodes["bob"].queue_address == "10.0.0.3"
    incoming = {rule["port"]: rule["sources"] for rule in firewall_rules(grid.as_data(), "10.0.0.3", {})["incoming"]}
    assert incoming[5500] == []
    assert intranet({"s": Spare("s", "10.0.0.3")}).nodes["bob"].queue_address == "127.0.0.1", "its own machine"


def test_queue_is_open_to_others_only_where_a_worker_is_elsewhere() -> None:
    grid = intranet()
    assert grid.nodes["alice"].queue_address == "10.0.0.2"
    assert grid.nodes["alice"].queue_url == "tcp://10.0.0.2:5500"
    assert grid.nodes["bob"].queue_address == "127.0.0.1"
    assert grid.nodes["bob"].queue_url == "tcp://127.0.0.1:5500"


def test_queue_behind_nat_listens_on_one_address_and_is_reached_by_another() -> None:
    alice = intranet(alice={"pygrid_domain_queue_address": "192.168.7.7"}).nodes["alice"]
    assert alice.settings["queue"] == {"host": "192.168.7.7", "port": 5500}
    assert alice.queue_url == "tcp://10.0.0.2:5500"


def test_each_node_has_a_login_and_tls_where_the_network_is_crossed() -> None:
    grid = intranet(bob={"pygrid_database_host": "alice"})
    alice, worker = grid.nodes["alice"].database, grid.nodes["alice-w1"].database
    bob, its_worker = grid.nodes["bob"].database, grid.nodes["bob-w1"].database
    assert alice
    assert worker
    assert bob
    assert its_worker
    assert (alice.host, alice.user, alice.owner, alice.tls) == ("127.0.0.1", "pygrid_alice", "pygrid_alice", False)
    assert (worker.host, worker.name, worker.tls) == ("10.0.0.2", "pygrid_alice", True)
    assert (worker.user, worker.owner) == ("pygrid_alice_w1", "pygrid_alice")
    assert (bob.on, bob.host, bob.tls) == ("alice", "10.0.0.2", True)
    assert (its_worker.host, its_worker.user, its_worker.owner) == ("10.0.0.2", "pygrid_bob_w1", "pygrid_bob")
    assert grid.hosts["10.0.0.2"].database_port == 5432
    assert grid.hosts["10.0.0.3"].database_port is None


def test_an_existing_database_is_shared_and_its_password_stays_out_of_the_grid() -> None:
    url = "postgresql://grid:pass+word@db.example:5433/alice"
    grid = intranet(alice={"pygrid_database_url": url})
    alice, worker = grid.nodes["alice"].database, grid.nodes["alice-w1"].database
    assert alice
    assert worker
    assert (alice.managed, alice.host, alice.port, alice.name, alice.tls) == (False, "db.example", 5433, "alice", True)
    assert worker.host == "db.example"
    assert "pass+word" not in str(grid.as_data())


def test_sqlite_cannot_serve_workers() -> None:
    assert "shares no files with it" in problems(alice={"pygrid_database": "sqlite"})["alice"]


def test_what_a_worker_may_talk_to_is_said_in_numbers_or_not_at_all() -> None:
    talks_to = intranet(alice_w1={"pygrid_worker_egress": ["10.9.0.0/16"]}).nodes["alice-w1"].talks_to
    assert talks_to == ["10.0.0.2/32", "10.9.0.0/16", "127.0.0.1/32"]
    named = intranet(alice={"pygrid_domain_url": "https://alice.example"})
    assert named.nodes["alice-w1"].talks_to is None


def test_packages_are_those_of_the_services_of_the_machine() -> None:
    grid = intranet(bob={"pygrid_database_host": "alice"}, net={"pygrid_database": "sqlite"})
    add_packages(grid)
    has = {machine: set(host.packages["debian"]) for machine, host in grid.hosts.items()}
    assert "postgresql" in has["10.0.0.2"]
    assert "haproxy" in has["10.0.0.2"]
    assert "postgresql" not in has["10.0.0.1"] | has["10.0.0.3"] | has["10.0.0.4"]
    assert "haproxy" not in has["10.0.0.4"]


def test_wrong_system_grids_are_refused() -> None:
    assert "no node of the inventory" in problems(bob={"pygrid_database_host": "carol"})["bob"]
    assert "begins with https" in problems(net={"pygrid_network_url": "http://net.example"})["net"]
    assert "from 1 to 64" in problems(bob_w1={"pygrid_worker_processes": 65})["bob-w1"]
    assert "a grid has one scope" in problems(net={"pygrid_scope": "user"})["alice"]
    assert "as a process of alice-w1" in problems(
        alice_w1={"pygrid_worker_processes": 2}, bob_w1={"pygrid_name": "alice-w1-2"}
    ).get("bob-w1", "")
    assert "too like" in problems(bob={"pygrid_name": "Alice"})["bob"]
    assert "IPv6 address" in problems(alice={"pygrid_address": "2001:db8::2"})["alice"]
    database = {"pygrid_database_url": "postgresql://u:p@db.example/grid"}
    assert "one of its own" in problems(alice=database, bob=database)["bob"]
    assert "share one store" in problems(alice={"pygrid_blob_store": "s3"})["alice-w1"]
    assert problems(alice={"pygrid_blob_store": "s3"}, alice_w1={"pygrid_blob_store": "s3"}) == {}


def test_a_port_that_data_scientists_cannot_use_is_said() -> None:
    assert list(find_warnings(intranet())) == []
    [(host, said)] = find_warnings(intranet(bob={"pygrid_https_port": 8443}))
    assert host == "bob"
    assert "port 443 for every https URL" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [("pygrid_tls_source", "acm"), ("pygrid_firewall", "maybe"), ("pygrid_ingress_connections", "many"),
     ("pygrid_database_spare_connections", "a few"), ("pygrid_certificates_valid_days", [])],
)  # fmt: skip
def test_variables_of_what_a_host_has_are_checked_before_anything_is_done(name: str, value: Any) -> None:
    _values, (problem,) = validate("domain", {"pygrid_scope": "system", name: value})
    assert problem.startswith(f"{name} is {value!r}: ")


def test_who_shows_a_certificate_to_the_network() -> None:
    shown = {name: node.settings.get("client_certificate") for name, node in intranet().nodes.items()}
    assert set(shown.values()) == {None}
    grid = intranet(net={"pygrid_network_client_certificates": True})
    shown = {name: node.settings.get("client_certificate") for name, node in grid.nodes.items()}
    assert shown == {"net": None, "alice": True, "bob": True, "alice-w1": True, "bob-w1": True}


def test_two_nodes_on_a_machine_need_urls_of_their_own() -> None:
    values = {}
    nodes = {}
    for name in ("alice", "bob"):
        port = {"alice": 5000, "bob": 5001}[name]
        given = {"pygrid_scope": "system", "pygrid_domain_port": port, "pygrid_domain_queue_port": port + 500}
        values[name], _problems = validate("domain", given)
        nodes[name] = build_node(name, "domain", values[name], "10.0.0.2", {"version": "0.9.5"})
    found = dict(find_problems(build_grid(nodes, values)))
    assert "its URL is https://10.0.0.2, as that of alice" in found["bob"]


def test_accounts_are_short_and_differ() -> None:
    assert account_name("alice") == "pygrid-alice"
    assert account_name("Alice.W_1") == "pygrid-alice-w-1"
    one, other = account_name("x" * 49 + "1"), account_name("x" * 49 + "2")
    assert one != other
    assert len(one) <= LONGEST
    assert len(other) <= LONGEST


def test_one_node_of_each_machine_leads() -> None:
    grid = intranet().as_data()
    assert host_leaders(["bob-w1", "net", "bob"], grid) == ["bob-w1", "net"]
