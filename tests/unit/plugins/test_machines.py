# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From tags to hosts, whatever people write into tags."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from ansible.template import Templar
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import NAME
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import (
    GROUPS,
    Choice,
    Found,
    Machine,
    find_hosts,
    host_variables,
)

HOSTILE = (
    "{{ lookup('pipe', 'id') }}", "{% raw %}", "{#", "!!python/object:os.system", "$(id)", "`id`", "; rm -rf /", "a: b",
    "- x", "null", "true", "0x10", "\u202e", "\x1b[31m", "é" * 64, "x" * 10_000, "\n", "", "😀", "{{", "}}",
)  # fmt: skip
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))
VALUES = st.one_of(st.sampled_from((*GROUPS, "alice", "bob", "net", "heart")), TEXTS)
NAMES = st.one_of(
    st.sampled_from(
        (
            "pygrid_grid",
            "pygrid_role",
            "pygrid_name",
            "pygrid_domain",
            "pygrid_role_2",
            "pygrid_name_2",
            "pygrid_role_x",
        )
    ),
    TEXTS,
)
MACHINES = st.lists(
    st.builds(
        Machine,
        cloud=st.just("aws"),
        id=st.uuids().map(str),
        name=TEXTS,
        region=st.sampled_from(("eu", "us")),
        state=TEXTS,
        addresses=st.dictionaries(st.sampled_from(("private", "public")), TEXTS, max_size=2),
        tags=st.dictionaries(NAMES, VALUES, max_size=8),
    ),
    max_size=8,
)


def machine(number: int = 1, **tags: str) -> Machine:
    return Machine(
        cloud="aws",
        id=f"i-{number}",
        region="eu",
        state="running",
        addresses={"private": f"10.0.0.{number}", "public": f"192.0.2.{number}"},
        tags={"pygrid_grid": "heart", **{f"pygrid_{name}": value for name, value in tags.items()}},
    )


def hosts(found: Found) -> dict[str, tuple[str, dict[str, Any]]]:
    assert found.problems == found.conflicts == []
    return {name: (group, variables) for name, group, variables in host_variables(found)}


class TestTags:
    def test_roles_become_groups(self) -> None:
        found = find_hosts(
            [
                machine(1, role="network", name="net"),
                machine(2, role="domain", name="alice"),
                machine(3, role="worker", name="alice-w1", domain="alice"),
                machine(4, role="spare"),
            ],
            Choice(),
        )
        known = hosts(found)
        assert {name: group for name, (group, _variables) in known.items()} == {
            "net": "pygrid_network",
            "alice": "pygrid_domain",
            "alice-w1": "pygrid_worker",
            "i-4": "pygrid_spare",
        }
        assert known["alice-w1"][1]["pygrid_worker_domain"] == "alice"
        assert known["alice-w1"][1]["ansible_host"] == "10.0.0.3"
        assert known["alice-w1"][1]["pygrid_machine"]["id"] == "i-3"

    def test_a_machine_carries_several_nodes_with_ports_of_their_own(self) -> None:
        one = machine(
            1, role="worker", name="w1", domain="alice", role_2="worker", name_2="w2", domain_2="bob",
            role_10="domain", name_10="alice",
        )  # fmt: skip
        known = hosts(find_hosts([one], Choice()))
        assert list(known) == ["w1", "w2", "alice"]
        assert "pygrid_worker_port" not in known["w1"][1]
        assert known["w2"][1]["pygrid_worker_port"] == 5601
        assert "pygrid_domain_port" not in known["alice"][1]
        assert {variables["ansible_host"] for _group, variables in known.values()} == {"10.0.0.1"}

    @pytest.mark.parametrize(
        ("tags", "sentence"),
        [
            ({"name": "alice"}, "it has no tag pygrid_role"),
            ({"role": "boss", "name": "alice"}, "its tag pygrid_role is 'boss', which is none of network, domain"),
            ({"role": "worker", "name": "w"}, "no tag pygrid_domain"),
            ({"role": "domain", "name": "{{ x }}"}, "its tag pygrid_name is '{{ x }}', which is no name"),
            ({"role": "domain", "name": "a", "role_2": "domain"}, "nothing that could be its name: .* pygrid_name_2"),
            ({"role": "worker", "name": "w", "domain": "\x1b[2J"}, r"pygrid_domain is '\\\\x1b\[2J'"),
        ],
    )
    def test_a_machine_that_says_too_little_is_named(self, tags: dict[str, str], sentence: str) -> None:
        found = find_hosts([machine(7, **tags)], Choice())
        assert len(found.problems) == 1
        assert found.problems[0].startswith("i-7 in eu: ")
        assert re.search(sentence, found.problems[0]), found.problems

    def test_two_machines_that_claim_the_same_node_are_both_named(self) -> None:
        found = find_hosts(
            [machine(1, role="domain", name="alice"), machine(2, role="worker", name="alice", domain="x")], Choice()
        )
        assert found.conflicts == [
            "i-2 in eu and i-1 in eu both claim to be alice; change the tag pygrid_name of one of them"
        ]

    def test_more_than_one_grid_has_to_be_chosen_from(self) -> None:
        other = Machine(
            "aws",
            "i-9",
            region="eu",
            addresses={"private": "10.0.0.9"},
            tags={"pygrid_grid": "lung", "pygrid_role": "network"},
        )
        found = find_hosts([machine(1, role="network", name="net"), other], Choice())
        assert "heart (1 machines), lung (1 machines)" in found.conflicts[0]
        assert list(find_hosts([machine(1, role="network", name="net"), other], Choice(grids=["lung"])).hosts) == [
            "i-9"
        ]


class TestChoice:
    def test_preferences(self) -> None:
        one = Machine(
            "aws",
            "i-1",
            name="big",
            addresses={"private": "10.0.0.1", "public": "192.0.2.1"},
            tags={"pygrid_grid": "g", "pygrid_role": "network", "pygrid_name": "net"},
        )
        found = find_hosts([one], Choice(hostnames=["name", "id"], addresses=["public"]))
        assert found.addresses == {"big": "192.0.2.1"}

    def test_a_machine_without_such_an_address_is_named(self) -> None:
        found = find_hosts([machine(1, role="network", name="net")], Choice(addresses=["public_name"]))
        assert (
            "net has no address of the kinds public_name (state: running; it has private, public)" in found.problems[0]
        )

    def test_filters(self) -> None:
        machines = [machine(number, role="spare", stage=stage) for number, stage in ((1, "a"), (2, "b"), (3, "c"))]
        assert list(find_hosts(machines, Choice(filters={"tag:pygrid_stage": ["a", "c"]})).hosts) == ["i-1", "i-3"]
        assert list(find_hosts(machines, Choice(filters={"id": "i-2", "state": "running"})).hosts) == ["i-2"]
        assert not find_hosts(machines, Choice(filters={"tag:nobody": "a"})).hosts


@settings(max_examples=400, deadline=None)
@given(MACHINES)
@example([Machine("aws", "i-1", region="eu", state="\x1f", tags={"pygrid_grid": "heart", "pygrid_role": "network"})])
def test_whatever_tags_say(machines: list[Machine]) -> None:
    """Every claim becomes a host or a sentence; names are names; nothing is a template; a cache changes nothing."""
    found = find_hosts(machines, Choice())
    for sentence in (*found.problems, *found.conflicts):
        assert sentence.isprintable()
    for host, group, variables in host_variables(found):
        assert NAME.match(host)
        assert group in GROUPS.values()
        assert _templated(variables) == variables
        original = found.hosts[host].machine
        assert variables["pygrid_machine"]["tags"] == original.tags
    carriers = [machine for machine in machines if machine.tags.get("pygrid_grid")]
    if not any("more than one grid" in sentence for sentence in found.conflicts):
        told = {claim.machine.id for claim in found.hosts.values()}
        for one in carriers:
            sentences = [sentence for sentence in (*found.problems, *found.conflicts) if one.id in sentence]
            assert one.id in told or sentences, one
    again = [Machine(**facts) for facts in json.loads(json.dumps([asdict(one) for one in machines]))]
    assert find_hosts(again, Choice()) == found


def _templated(value: Any) -> Any:
    return Templar(loader=None, variables={"x": "evaluated"}).template(value)
