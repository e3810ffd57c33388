# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines of a grid in a cloud are missing, where they are tried, and what is said of them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.openmined.pygrid.plugins.filter.aws import aws_kept_zones, aws_rules
from ansible_collections.openmined.pygrid.plugins.filter.cloud import (
    cloud_subnets,
    machine_failures,
    machines_made,
    machines_of_workers,
    machines_to_try,
    with_kept_volumes,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machine_plan import (
    Entry,
    Plan,
    Present,
    make_plan,
    only_workers,
    plan_text,
    problems,
    resizes,
)

ZONES = ["a", "b"]
ENTRIES = [
    Entry("network", "small"),
    Entry("domain", "large", name="alice", data_disk=50),
    Entry("worker", "medium", domain="alice", count=2, tags={"Owner": "cardiology", "pygrid_grid": "mine"}),
    Entry("spare", "medium"),
]


def present(host: str, role: str, domain: str = "", size: str = "medium") -> Present:
    return Present(host, role, domain, {"id": f"i-{host}", "type": size, "zone": "a"})


def planned(entries: list[Entry] | None = None, workers: dict[str, int] | None = None, *there: Present) -> Plan:
    return make_plan("heart", entries or ENTRIES, ZONES, workers or {}, there)


def names(plan: Plan) -> list[str]:
    return [new.host for new in plan.new]


def test_an_empty_account_gets_everything() -> None:
    plan = planned()
    assert names(plan) == ["net", "alice", "alice-w1", "alice-w2", "spare-1"]
    net, alice, worker, _second, spare = plan.new
    assert net.public
    assert not alice.public
    assert alice.tags == {"pygrid_grid": "heart", "pygrid_role": "domain", "pygrid_name": "alice"}
    assert worker.tags == {
        "pygrid_grid": "heart", "pygrid_role": "worker", "pygrid_name": "alice-w1", "pygrid_domain": "alice",
        "Owner": "cardiology",
    }  # fmt: skip
    assert spare.tags["pygrid_role"] == "spare"


def test_machines_are_spread_and_each_may_be_tried_everywhere() -> None:
    assert [new.zones for new in planned().new] == [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"], ["a", "b"]]
    own = planned([Entry("network", "small", zones=["c"])])
    assert own.new[0].zones == ["c"]


def test_only_what_is_missing_is_made_under_free_names() -> None:
    there = [
        present("net", "network", size="small"),
        present("alice", "domain"),
        present("alice-w2", "worker", "alice"),
    ]
    plan = planned(None, None, *there)
    assert names(plan) == ["alice-w1", "spare-1"]
    assert plan.other_size == {"alice": "large"}
    assert "large is wanted: resize.yml changes it" in plan_text(plan)


def test_wanted_numbers_of_workers_win_and_nothing_is_taken_away() -> None:
    assert names(planned(None, {"alice": 3}))[2:5] == ["alice-w1", "alice-w2", "alice-w3"]
    there = [present(f"alice-w{number}", "worker", "alice") for number in (1, 2, 3)]
    plan = planned(None, {"alice": 1}, *there)
    assert names(plan) == ["net", "alice", "spare-1"]
    assert plan.more == ["alice has 3 Workers and 1 are wanted; scale.yml takes Workers away"]


def test_two_kinds_of_workers_of_one_domain_do_not_count_each_other() -> None:
    entries = [
        Entry("worker", "medium", domain="alice", count=2),
        Entry("worker", "huge", domain="alice", count=1, spot=True),
    ]
    there = [present("alice-w1", "worker", "alice", "huge"), present("alice-w2", "worker", "alice")]
    plan = planned(entries, None, *there)
    assert [(new.host, new.size, new.spot) for new in plan.new] == [("alice-w3", "medium", False)]
    assert plan.other_size == {}
    sizes = [new.size for new in planned(entries, {"alice": 5}).new]
    assert sizes == ["medium", "medium", "huge", "huge", "huge"]
    assert [new.size for new in planned(entries, {"alice": 1}).new] == ["medium"]
    assert planned(entries, {"alice": 1}, *there).more == [
        "alice has 2 Workers and 1 are wanted; scale.yml takes Workers away"
    ]


def test_networks_and_domains_keep_their_data_on_volumes() -> None:
    plan = planned(None, None, present("net", "network", size="small"))
    assert plan.data == {"net": 5, "alice": 50}
    assert planned([Entry("domain", "large", name="alice", data_disk=0)]).data == {}


def test_networks_and_public_domains_keep_their_addresses() -> None:
    entries = [*ENTRIES, Entry("domain", "large", name="bob", public=True), Entry("spare", "s", name="x", public=True)]
    assert planned(entries, None, present("net", "network", size="small")).addresses == ["net", "bob"]


def test_machines_that_resize_was_killed_at_are_gone_on_with() -> None:
    marked = Present("net", "network", "", {"id": "i-1", "type": "small", "tags": {"pygrid_resizing": "small"}})
    plan = planned(None, None, marked, present("alice-w1", "worker", "alice", "tiny"))
    assert [(one["host"], one["former"], one["wanted"]) for one in resizes(plan)] == [
        ("alice-w1", "tiny", "medium"), ("net", "small", "small")
    ]  # fmt: skip


def test_scaling_makes_workers_alone_and_none_for_whom_a_machine_waits() -> None:
    entries = only_workers(ENTRIES, ["alice", "bob"])
    assert [(entry.domain, entry.size) for entry in entries] == [("alice", "medium"), ("bob", "medium")]
    plan = make_plan("heart", entries, ZONES, {"alice": 2, "bob": 1}, [present("alice-w1", "worker", "alice")], free=1)
    assert names(plan) == ["bob-w1"]
    assert only_workers([Entry("network", "small")], ["alice"]) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "pygrid_machines is empty"),
        ([Entry("network", "s"), Entry("network", "s", name="other")], "more than one network"),
        ([Entry("domain", "s")], "a domain has no name"),
        ([Entry("worker", "s")], "a worker has no domain"),
        ([Entry("worker", "s", domain="carol")], "has Workers for carol, and no domain of that name"),
        ([Entry("worker", "s", domain="carol", name="w")], "leave the name out"),
        ([Entry("domain", "s", name="alice", count=2)], "each Domain is an entry of its own"),
        ([Entry("spare", "s", count=-1)], "has count -1"),
        ([Entry("spare", "s", data_disk=5)], "only a Network and Domains keep data"),
        ([Entry("domain", "s", name="a", spot=True)], "which only Workers survive"),
        ([Entry("domain", "s", name="{{ x }}")], "'{{ x }}' is no name of a node"),
        ([Entry("domain", "s", name="a"), Entry("domain", "s", name="a")], "names a twice"),
    ],
)
def test_what_cannot_be_meant_is_told(entries: list[Entry], said: str) -> None:
    assert any(said in problem for problem in problems("heart", entries)), list(problems("heart", entries))


def test_the_name_of_a_grid_becomes_a_part_of_names() -> None:
    assert not list(problems("heart-study_2", ENTRIES))
    assert any("pygrid_cloud_grid" in problem for problem in problems("the heart", ENTRIES))


def test_subnets_do_not_overlap() -> None:
    found = cloud_subnets("10.20.0.0/16", ["a", "b", "c"], "grid")
    assert [one["name"] for one in found][:2] == ["grid-public-a", "grid-public-b"]
    assert [one["public"] for one in found] == [True] * 3 + [False] * 3
    parts = [ipaddress.ip_network(one["cidr"]) for one in found]
    assert not any(one.overlaps(other) for one in parts for other in parts if one is not other)
    assert all(part.subnet_of(ipaddress.ip_network("10.20.0.0/16")) for part in parts)
    for wrong in ("10.20.0.1/16", "nonsense", "10.0.0.0/32"):
        with pytest.raises(AnsibleFilterError, match="pygrid_cloud_cidr: "):
            cloud_subnets(wrong, ["a"], "grid")


def test_rules_name_groups_and_addresses_of_both_kinds() -> None:
    rule = {"port": 443, "kinds": ["domain"], "cidrs": ["0.0.0.0/0", "::/0"], "why": "people"}
    common = {"proto": "tcp", "ports": [443], "rule_desc": "people"}
    assert aws_rules([rule], {"domain": "sg-1"}) == [
        {**common, "group_id": "sg-1"}, {**common, "cidr_ip": "0.0.0.0/0"}, {**common, "cidr_ipv6": "::/0"},
    ]  # fmt: skip


def test_another_zone_is_tried_when_one_has_no_room_and_only_then() -> None:
    machines = [{"host": host, "size": "s", "zones": ZONES} for host in ("x", "y", "z")]
    assert [one["zone"] for one in machines_to_try(machines, 0, {})] == ["a", "a", "a"]
    made = machines_made([
        result("x", instance_ids=["i-1"], changed=True),
        result("y", msg="InsufficientInstanceCapacity: none  left\nhere"),
        result("z", msg="InstanceLimitExceeded: ask for more"),
    ])  # fmt: skip
    assert made["x"] == {"id": "i-1", "made": True, "failure": ""}
    assert [(one["host"], one["zone"]) for one in machines_to_try(machines, 1, made)] == [("y", "b")]
    assert machines_to_try(machines, 2, made) == []
    assert machine_failures(made, machines) == [
        "y (s, tried in a, b): InsufficientInstanceCapacity: none left here",
        "z (s, tried in a, b): InstanceLimitExceeded: ask for more",
    ]


def result(host: str, **said: Any) -> dict[str, Any]:
    return {"item": {"item": {"host": host}}, **said}


def test_a_machine_comes_back_where_its_data_is() -> None:
    volumes = [{"zone": "b", "tags": {"pygrid_data_of": "alice"}}, {"zone": "c", "tags": {"Name": "root"}}]
    machines = [{"host": "alice", "zones": ["a", "b"]}, {"host": "net", "zones": ["a", "b"]}]
    assert [one["zones"] for one in with_kept_volumes(machines, aws_kept_zones(volumes))] == [["b"], ["a", "b"]]


def test_only_machines_made_for_one_worker_go_with_it() -> None:
    hostvars = {
        "own": {"pygrid_machine": {"tags": {"pygrid_role": "worker"}}},
        "on-a-spare-one": {"pygrid_machine": {"tags": {"pygrid_role": "spare"}}},
        "with-another": {"pygrid_machine": {"tags": {"pygrid_role": "worker", "pygrid_role_2": "worker"}}},
        "of-a-file": {},
    }
    assert machines_of_workers(list(hostvars), hostvars) == ["own"]
