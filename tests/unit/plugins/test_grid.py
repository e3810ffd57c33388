# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From variables to the grid: relations, URLs, and what cannot be right."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import (
    Grid,
    Node,
    build_grid,
    build_node,
    is_loopback,
    kind_of,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import find_problems
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import unknown_variable, validate


def node(host: str, kind: str, location: str = "one", **variables: Any) -> Node:
    values, problems = validate(kind, variables)
    assert problems == []
    return build_node(host, kind, values, location, {"version": "0.9.5"})


def grid(*nodes: Node) -> Grid:
    return build_grid({one.host: one for one in nodes}, {})


def local_grid(**alice: Any) -> Grid:
    return grid(
        node("net", "network"),
        node("alice", "domain", **alice),
        node("w1", "worker", pygrid_worker_domain="alice"),
    )


def test_relations_and_urls() -> None:
    described = local_grid()
    assert list(find_problems(described)) == []
    assert described.network == "net"
    assert described.network_url == "http://127.0.0.1:7000"
    assert described.nodes["alice"].workers == ["w1"]
    assert described.nodes["alice"].queue_url == "tcp://127.0.0.1:5500"
    assert described.nodes["alice"].root_email == "alice@pygrid.example"
    assert described.nodes["w1"].root_email == ""


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert node("alice", "domain", pygrid_listen_address="::1").url == "http://[::1]:5000"


def test_ports_that_overlap_on_one_host_are_found() -> None:
    described = local_grid(pygrid_domain_port=7000, pygrid_listen_address="0.0.0.0")
    found = dict(find_problems(described))
    assert found["alice"].startswith("pygrid_domain_port is 7000, as pygrid_network_port of net on the same host")


def test_equal_ports_on_other_hosts_or_addresses_are_fine() -> None:
    here, there = node("a", "domain"), node("b", "domain", location="two")
    assert list(find_problems(grid(here, there))) == []
    other_address = node("c", "domain", pygrid_listen_address="127.0.0.2")
    assert list(find_problems(grid(here, other_address))) == []


def test_one_port_for_two_purposes() -> None:
    found = dict(find_problems(local_grid(pygrid_domain_port=5500)))
    assert "are the same port" in found["alice"]


def test_loopback_url_between_hosts() -> None:
    described = grid(node("net", "network"), node("alice", "domain", location="two"))
    found = dict(find_problems(described))
    assert "pygrid_network_url is http://127.0.0.1:7000, which only its own host can reach" in found["net"]
    assert "pygrid_domain_url" in found["alice"]


def test_second_network() -> None:
    found = dict(find_problems(grid(node("n1", "network"), node("n2", "network", pygrid_network_port=7001))))
    assert "the grid has a Network already (n1)" in found["n2"]


def test_worker_away_from_its_domain() -> None:
    described = grid(node("alice", "domain"), node("w1", "worker", location="two", pygrid_worker_domain="alice"))
    assert "has to be on the same host" in dict(find_problems(described))["w1"]


@pytest.mark.parametrize(
    ("groups", "kind", "said"),
    [
        (["pygrid", "pygrid_domain"], "domain", None),
        (["pygrid"], None, "in none of"),
        (["pygrid_domain", "pygrid_worker"], None, "pygrid_domain and pygrid_worker"),
    ],
)
def test_kind_from_groups(groups: list[str], kind: str | None, said: str | None) -> None:
    found, problem = kind_of(groups)
    assert found == kind
    assert (problem is None) if said is None else (said in (problem or ""))


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("http://10.0.0.1", False),
        ("https://net.hospital.example", False),
    ],
)
def test_loopback(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


def test_types_are_converted_and_defaults_filled() -> None:
    values, problems = validate("network", {"pygrid_network_port": "7001"})
    assert problems == []
    assert values["pygrid_network_port"] == 7001
    assert values["pygrid_listen_address"] == "127.0.0.1"


def test_unknown_variables() -> None:
    assert unknown_variable("pygrid_domain_port") is None
    assert unknown_variable("ansible_host") is None
    assert "did you mean pygrid_worker_packages?" in (unknown_variable("pygrid_worker_package") or "")
    assert "docs/variables.md" in (unknown_variable("pygrid_qqqqqqqqqqqqqqqqq") or "")
