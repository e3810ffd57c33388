# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who talks to whom, what a machine's firewall and preflight make of it, and the report of a preflight."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.plugin_utils.access import access
from ansible_collections.openmined.pygrid.plugins.plugin_utils.flows import EVERYONE, Flow, firewall_rules, flows
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import build_grid, build_node
from ansible_collections.openmined.pygrid.plugins.plugin_utils.preflight_problems import deploy_problems
from ansible_collections.openmined.pygrid.plugins.plugin_utils.preflight_report import (
    machine_needs,
    preflight_report,
    reachability_plan,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import validate

# name: kind, machine, variables
TWO_MACHINES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "net": ("network", "10.0.0.1", {}),
    "alice": ("domain", "10.0.0.1", {"pygrid_domain_url": "https://alice.example"}),
    "bob": ("domain", "10.0.0.2", {"pygrid_domain_port": 5001, "pygrid_domain_queue_port": 5501}),
    "alice-w0": ("worker", "10.0.0.1", {"pygrid_worker_domain": "alice", "pygrid_worker_port": 5600}),
    "alice-w1": (
        "worker",
        "10.0.0.2",
        {"pygrid_worker_domain": "alice", "pygrid_worker_port": 5600, "pygrid_worker_processes": 3},
    ),
    "bob-w1": ("worker", "10.0.0.2", {"pygrid_worker_domain": "bob", "pygrid_worker_port": 5601}),
}


def build(nodes: dict[str, tuple[str, str, dict[str, Any]]] | None = None, **extra: dict[str, Any]) -> dict[str, Any]:
    """A grid of scope system as the roles get it; ``extra``: more variables of one node."""
    values, built = {}, {}
    for host, (kind, location, given) in (nodes or TWO_MACHINES).items():
        values[host], problems = validate(kind, {"pygrid_scope": "system", **given, **extra.get(host, {})})
        assert problems == []
        built[host] = build_node(host, kind, values[host], location, {"version": "0.9.5"})
    return build_grid(built, values).as_data()


def arriving(grid: dict[str, Any], target: str, variables: Any = None) -> set[tuple[str | None, int]]:
    """(from which node, to which port) of everything that comes to a machine from elsewhere."""
    return {
        (flow.node, flow.target_port)
        for flow in flows(grid, variables or {})
        if flow.target == target and flow.crosses and flow.target_port
    }


def incoming(grid: dict[str, Any], location: str, variables: Any = None) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for rule in firewall_rules(grid, location, variables or {})["incoming"]:
        found.setdefault(rule["port"], []).extend(rule["sources"])
    return {port: sorted(set(sources)) for port, sources in found.items()}


def test_who_talks_to_whom() -> None:
    grid = build()
    assert arriving(grid, "10.0.0.1") == {
        (None, 443),  # data scientists
        ("bob", 443),  # to the Network
        ("alice-w1", 443),  # blobs
        ("alice-w1", 5500),  # jobs
        ("alice-w1", 5432),  # rows
    }
    assert arriving(grid, "10.0.0.2") == {(None, 443), ("net", 443)}


def test_every_flow_says_why() -> None:
    assert all(flow.why and flow.port and flow.address for flow in flows(build(), {}))


def test_a_port_is_open_to_those_who_need_it_and_nobody_else() -> None:
    assert incoming(build(), "10.0.0.1") == {
        443: ["0.0.0.0/0", "10.0.0.2", "::/0"],
        5432: ["10.0.0.2"],
        5500: ["10.0.0.2"],
    }


def test_a_port_that_only_its_own_machine_needs_is_closed_to_others() -> None:
    assert incoming(build(), "10.0.0.2")[5432] == []
    assert 5501 not in incoming(build(), "10.0.0.2")  # bob's queue is on loopback


def test_clients_of_each_node_are_its_own() -> None:
    variables = {"net": {"pygrid_firewall_clients": ["192.0.2.0/24"]}, "alice": {"pygrid_firewall_clients": ["lab"]}}
    assert incoming(build(), "10.0.0.1", variables)[443] == ["10.0.0.2", "192.0.2.0/24", "lab"]


def test_the_acme_server_may_look_for_its_challenge() -> None:
    assert 80 not in incoming(build(), "10.0.0.1")
    assert incoming(build(), "10.0.0.1", {"net": {"pygrid_tls_source": "acme"}})[80] == list(EVERYONE)


def test_connections_of_a_machine_behind_nat_come_from_elsewhere() -> None:
    variables = {"alice-w1": {"pygrid_firewall_sources": ["198.51.100.7"]}}
    assert incoming(build(), "10.0.0.1", variables)[5500] == ["198.51.100.7"]


def test_database_on_a_machine_of_its_own() -> None:
    nodes = {**TWO_MACHINES, "carol": ("domain", "10.0.0.3", {"pygrid_database_host": "net"})}
    assert incoming(build(nodes), "10.0.0.1")[5432] == ["10.0.0.2", "10.0.0.3"]


def test_database_and_network_of_somebody_else() -> None:
    nodes = {
        "alice": (
            "domain",
            "10.0.0.1",
            {
                "pygrid_database_url": "postgresql://u:p@db.example:6432/grid",
                "pygrid_domain_network_url": "https://net.example",
            },
        )
    }
    grid = build(nodes)
    outside = {(flow.address, flow.port) for flow in flows(grid, {}) if flow.target is None}
    assert outside == {("db.example", 6432), ("net.example", 443)}
    assert list(incoming(grid, "10.0.0.1")) == [443]


def test_object_store() -> None:
    grid = build(alice={"pygrid_blob_store": "s3"}, **{"alice-w1": {"pygrid_blob_store": "s3"}})
    variables = {host: {"pygrid_s3_endpoint": "http://s3.example:9000"} for host in grid["nodes"]}
    stored = {(flow.node, flow.address, flow.port) for flow in flows(grid, variables) if flow.target is None}
    assert stored == {("alice", "s3.example", 9000), ("alice-w1", "s3.example", 9000)}
    assert ("alice-w1", 443) not in arriving(grid, "10.0.0.1")


def test_a_node_without_our_proxy() -> None:
    behind_another = build(net={"pygrid_ingress": "none", "pygrid_network_url": "http://10.0.0.1:7000"})
    assert ("bob", 7000) not in arriving(behind_another, "10.0.0.1")
    by_itself = build(net={"pygrid_ingress": "none", "pygrid_listen_address": "10.0.0.1"})
    assert ("bob", 7000) in arriving(by_itself, "10.0.0.1")


def test_code_on_a_worker_reaches_its_domain_only() -> None:
    cages = {cage["account"]: cage for cage in firewall_rules(build(), "10.0.0.2", {})["egress"]}
    reached = {name: {(place["address"], place["port"]) for place in cage["to"]} for name, cage in cages.items()}
    assert reached == {
        "pygrid-alice-w1": {("10.0.0.1", 5500), ("alice.example", 443), ("10.0.0.1", 5432)},
        "pygrid-bob-w1": {("127.0.0.1", 5501), ("10.0.0.2", 443), ("127.0.0.1", 5432)},
    }
    assert not any(cage["networks"] or cage["everywhere"] for cage in cages.values())
    assert cages["pygrid-bob-w1"]["answers"] == [{"address": "127.0.0.1", "port": 5601}]


@pytest.mark.parametrize(
    ("egress", "networks", "everywhere"), [(["10.9.0.0/16"], ["10.9.0.0/16"], False), (["any"], [], True)]
)
def test_more_for_code_on_a_worker(egress: list[str], networks: list[str], everywhere: bool) -> None:
    grid = build(**{"bob-w1": {"pygrid_worker_egress": egress}})
    cage = firewall_rules(grid, "10.0.0.2", {})["egress"][1]
    assert (cage["networks"], cage["everywhere"]) == (networks, everywhere)


def test_loopback_ports_answer_the_proxy_and_their_own_account() -> None:
    variables = {"bob": {"pygrid_firewall_local_accounts": ["prometheus"]}}
    local = {rule["name"]: rule for rule in firewall_rules(build(), "10.0.0.2", variables)["local"]}
    assert local["bob"]["accounts"] == ["root", "pygrid-bob", "pygrid-ingress", "prometheus"]
    assert local["bob-queue"]["accounts"] == ["root", "pygrid-bob", "pygrid-bob-w1"]
    assert local["alice-w1"]["accounts"] == ["root", "pygrid-alice-w1", "prometheus"]
    assert (local["bob"]["address"], local["bob"]["port"]) == ("127.0.0.1", 5001)


def test_what_any_node_of_a_machine_wants_open_is_open() -> None:
    variables = {
        "bob": {"pygrid_firewall_also_open": [{"port": 9100, "sources": ["10.0.0.9"]}]},
        "bob-w1": {"pygrid_firewall_deny_others": "true", "pygrid_firewall_also_open": [{"port": 80}]},
    }
    rules = firewall_rules(build(), "10.0.0.2", variables)
    opened = {rule["port"]: rule["sources"] for rule in rules["incoming"]}
    assert opened[9100] == ["10.0.0.9"]
    assert opened[80] == ["0.0.0.0/0", "::/0"]
    assert rules["deny_others"] is True
    assert firewall_rules(build(), "10.0.0.1", variables)["deny_others"] is False


def test_needs_of_a_machine_are_those_of_all_its_nodes() -> None:
    needs = machine_needs(build(), "10.0.0.2", {})
    assert needs["memory_mb"] == 3 * 400 + (3 + 1) * 400
    assert needs["names"] == {"alice.example": "Workers read and write blobs of alice"}
    assert {(port["variable"], port["port"]) for port in needs["ports"]} == {
        ("pygrid_https_port", 443),
        ("pygrid_database_port", 5432),
    }
    assert {entry["path"] for entry in needs["space"] if not entry.get("release")} == {"/var/lib/pygrid"}


def test_machines_listen_for_each_other_and_not_for_data_scientists() -> None:
    plan = reachability_plan(build(), "10.0.0.1", {})
    assert {entry["port"]: entry["expected"] for entry in plan["listen"]} == {443: 2, 5432: 1, 5500: 1}
    assert {(place["address"], place["port"]) for place in plan["connect"]} == {("10.0.0.2", 443)}
    alone = {"net": TWO_MACHINES["net"]}
    assert reachability_plan(build(alone), "10.0.0.1", {}) == {"listen": [], "connect": [], "end": None}


STATE = {"__node_state": {"node": {}, "problems": [], "host_warnings": []}}


def listener(**given: Any) -> dict[str, Any]:
    return {"token": "t", "listening": [443, 5432, 5500], "in_use": {}, "opens": "", "problems": [], **given}


def after_visits(
    visit: dict[str, Any] | None = None, heard: dict[str, Any] | None = None, **others: Any
) -> dict[str, Any]:
    """Variables after a preflight in which all went well but the connection to alice's queue."""
    fine = {"result": "ok", "detail": "", "seen_from": "10.0.0.2", "let_in": True}
    visits = [
        {**fine, "address": "10.0.0.1", "port": 443},
        {**fine, "address": "alice.example", "port": 443},
        {**fine, "address": "10.0.0.1", "port": 5432},
        {**fine, "address": "10.0.0.1", "port": 5500, **(visit or {})},
    ]
    return {
        **{host: dict(STATE) for host in TWO_MACHINES},
        "net": {
            **STATE,
            "__preflight_listener": heard or listener(),
            "__preflight_visits": {"visits": [{**fine, "address": "10.0.0.2", "port": 443}]},
        },
        "bob": {**STATE, "__preflight_listener": listener(listening=[443]), "__preflight_visits": {"visits": visits}},
        **others,
    }


def sentences(variables: dict[str, Any]) -> tuple[list[str], list[str]]:
    machine = preflight_report(build(), variables)["machines"][1]
    return machine["problems"], machine["warnings"]


def test_a_grid_that_is_ready() -> None:
    report = preflight_report(build(), after_visits())
    assert (report["problems"], report["warnings"]) == (0, 0)
    assert report["text"].splitlines()[0] == "10.0.0.1 (net, alice, alice-w0): ready"
    assert report["text"].endswith("0 problems, 0 warnings. The grid can be deployed; nothing was changed.")


def test_a_database_that_does_not_let_the_node_in_is_a_problem() -> None:
    refused = {
        **STATE,
        "__preflight_listener": listener(listening=[443]),
        "__database_preflight": {"problem": "no way in"},
    }
    found, _warnings = sentences({**after_visits(), "bob": {**after_visits()["bob"], **refused}})
    assert [sentence for sentence in found if "no way in" in sentence] == found != []


@pytest.mark.parametrize(
    ("visit", "problem"),
    [
        ({"result": "filtered", "detail": "no answer"}, "drops it: let TCP port 5500 through"),
        ({"result": "rejected"}, "a firewall rejects it"),
        ({"result": "refused"}, "refused on the way or by another machine"),
        ({"result": "no route"}, "a route between them"),
        ({"result": "no address"}, "does not resolve here"),
        ({"result": "other"}, "answered by another program"),
        ({"let_in": False, "seen_from": "10.0.0.77"}, "arrive from 10.0.0.77"),
    ],
)
def test_what_keeps_a_worker_from_its_queue_is_a_problem(visit: dict[str, Any], problem: str) -> None:
    ((found,), warnings) = sentences(after_visits(visit))
    assert problem in found
    assert warnings == []


@pytest.mark.parametrize(
    ("visit", "heard", "warning"),
    [
        ({"result": "rejected"}, listener(opens="firewalld"), "firewalld on that machine may be why"),
        ({"result": "refused"}, listener(in_use={"5500": "postgres (process 7)"}), "postgres (process 7) has the port"),
    ],
)
def test_what_a_deploy_will_change_is_a_warning(visit: dict[str, Any], heard: dict[str, Any], warning: str) -> None:
    (problems, (found,)) = sentences(after_visits(visit, heard))
    assert problems == []
    assert warning in found


def test_a_port_in_use_that_answers_is_fine() -> None:
    heard = listener(listening=[443, 5432], in_use={"5500": "python (process 7)"})
    assert sentences(after_visits({"result": "open", "let_in": None}, heard)) == ([], [])


def test_wrong_source_matters_only_where_there_is_a_firewall() -> None:
    without = {host: {**values, "pygrid_firewall": "none"} for host, values in after_visits({"let_in": False}).items()}
    assert sentences(without) == ([], [])


def test_a_machine_that_cannot_be_reached_is_one_problem_and_not_one_for_each_who_needs_it() -> None:
    gone = {"unreachable": True, "msg": "Task failed: ssh: connect to host 10.0.0.1 port 22: timed out"}
    variables = after_visits({"result": "no route"})
    variables.update({host: {"__node_state": gone} for host in ("net", "alice", "alice-w0")})
    report = preflight_report(build(), variables)
    assert report["machines"][0]["problems"] == [
        "it cannot be reached by SSH: ssh: connect to host 10.0.0.1 port 22: timed out"
    ]
    assert report["machines"][0]["reachable"] is False
    assert report["machines"][1]["problems"] == []


def test_sudo_without_password_tells_what_to_do() -> None:
    failed = {"__preflight_failure": "Task failed: Missing sudo password"}
    report = preflight_report(build(), after_visits(bob=failed, **{"bob-w1": failed, "alice-w1": failed}))
    assert report["machines"][1]["problems"] == [
        "Missing sudo password; give ansible_become_password (in Vault), or run with --ask-become-pass"
    ]


def test_a_sentence_names_its_node_unless_all_have_it() -> None:
    def found(*problems: str) -> dict[str, Any]:
        return {"__node_state": {"node": {}, "problems": list(problems)}}

    variables = {"bob": found("no disk", "bad port"), "alice-w1": found("no disk"), "bob-w1": found("no disk")}
    assert preflight_report(build(), variables)["machines"][1]["problems"] == ["no disk", "bob: bad port"]


def test_a_machine_with_two_names_is_a_problem() -> None:
    """bob's Worker goes by the name of the machine, bob by its address."""
    place, variables = TWO_MACHINES["bob-w1"], after_visits()
    grid = build({**TWO_MACHINES, "bob-w1": (place[0], "second.example", place[2])})
    for host, node in grid["nodes"].items():
        machine = "one" if node["location"] == "10.0.0.1" else "two"
        node_state = {"host_id": machine, "release": None, "trial": False}
        variables[host] = {"__node_state": {"node": node_state, "problems": []}}
    said = "it is on the same machine as bob, but its ansible_host is second.example and that of bob 10.0.0.2"
    (problem,) = deploy_problems(grid, variables, grid["nodes"])
    assert problem.startswith(f"bob-w1: {said}; ")
    reported = {one["machine"]: one["problems"] for one in preflight_report(grid, variables)["machines"]}
    assert [text.split(";")[0] for text in reported["second.example"]] == [said]
    assert deploy_problems(build(), variables, grid["nodes"]) == []


def test_a_listener_that_waits_in_vain_is_ended() -> None:
    assert reachability_plan(build(), "10.0.0.1", after_visits())["end"] is None
    assert reachability_plan(build(), "10.0.0.1", after_visits({"result": "filtered"}))["end"] == "t"


def test_visitors_show_the_token_only_where_our_listener_is() -> None:
    heard = listener(listening=[443, 5432], in_use={"5500": "python (process 7)"})
    connect = reachability_plan(build(), "10.0.0.2", after_visits(None, heard))["connect"]
    assert {place["port"]: place.get("token") for place in connect} == {443: "t", 5432: "t", 5500: None}


def test_flow_within_a_machine_does_not_cross() -> None:
    same = Flow("w", "one", ("a",), "one", "a", 1, 1, "why")
    assert not same.crosses


def test_security_groups_are_for_kinds_of_nodes() -> None:
    nodes = {
        "net": ("network", "10.0.0.1", {}),
        "alice": ("domain", "10.0.0.2", {}),
        "alice-w1": ("worker", "10.0.0.3", {"pygrid_worker_domain": "alice"}),
    }
    grid = build(nodes)
    rules = access(grid, {"alice": {"pygrid_firewall_clients": ["198.51.100.0/24"]}}, ["192.0.2.1/32"])
    found = {
        (kind, rule["port"], source)
        for kind, of_kind in rules.items()
        for rule in of_kind
        for source in rule["kinds"] + rule["cidrs"]
    }
    ssh = {(kind, 22, source) for kind in rules for source in ("network", "192.0.2.1/32")}
    everybody = {("network", 443, cidr) for cidr in EVERYONE}
    assert found == ssh | everybody | {
        ("network", 443, "domain"),
        ("domain", 443, "198.51.100.0/24"),
        ("domain", 443, "network"),
        ("domain", 443, "worker"),
        ("domain", 5432, "worker"),
        ("domain", 5500, "worker"),
    }
