# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of an upgrade, and what speaks against one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.openmined.pygrid.plugins.plugin_utils import rollout
from ansible_collections.openmined.pygrid.plugins.plugin_utils.preflight_problems import version_problem

OLD, NEW = "0.9.2-0000000000aa", "0.9.5-0000000000bb"


def grid_of(*domains: str, workers: int = 1) -> dict[str, Any]:
    nodes: dict[str, Any] = {"net": {"name": "net", "kind": "network", "workers": [], "domain": None}}
    for domain in domains:
        names = [f"{domain}-w{number + 1}" for number in range(workers)]
        nodes[domain] = {"name": domain, "kind": "domain", "workers": names, "domain": None}
        nodes.update({name: {"name": name, "kind": "worker", "workers": [], "domain": domain} for name in names})
    return {"nodes": nodes}


def states_of(grid: dict[str, Any], **changes: Any) -> dict[str, Any]:
    node = {
        "release": OLD, "trial": False, "upgrading": False, "former": None, "health": {"status": "ready"},
        "service": {"state": "running"},
    }  # fmt: skip
    return {host: {"node": {**node, **changes}, "wanted": {"release": NEW}} for host in grid["nodes"]}


def hosts(batches: list[dict[str, Any]]) -> list[list[str]]:
    return [batch["hosts"] for batch in batches]


def test_a_canary_then_batches_then_the_network() -> None:
    grid = grid_of("a", "b", "c", "d", workers=2)
    batches = rollout.plan(grid, states_of(grid), 2)
    assert hosts(batches) == [
        ["a", "a-w1", "a-w2"],
        ["b", "b-w1", "b-w2", "c", "c-w1", "c-w2"],
        ["d", "d-w1", "d-w2"],
        ["net"],
    ]
    assert [batch["title"] for batch in batches] == ["canary", "batch 1 of 2", "batch 2 of 2", "network"]


def test_only_what_is_due_and_a_domain_never_without_its_workers() -> None:
    grid = grid_of("a", "b")
    states = states_of(grid, release=NEW)
    assert rollout.plan(grid, states, 1) == []
    states["b-w1"]["node"]["release"] = OLD
    assert hosts(rollout.plan(grid, states, 1)) == [["b", "b-w1"]]
    states["net"]["node"]["trial"] = True
    assert hosts(rollout.plan(grid, states, 1)) == [["b", "b-w1"], ["net"]]


@pytest.mark.parametrize(("size", "units", "expected"), [(1, 10, 1), ("3", 10, 3), ("20%", 10, 2), ("20%", 3, 1)])
def test_size_of_a_batch(size: Any, units: int, expected: int) -> None:
    assert rollout.batch_size(size, units) == expected


@pytest.mark.parametrize("size", ["", "0", "many", "x%", -1])
def test_a_size_that_is_none(size: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="pygrid_upgrade_batch must be"):
        rollout.batch_size(size, 5)


@pytest.mark.parametrize(
    ("former", "version", "problem"),
    [
        ("0.9.2", "0.9.5", ""),
        ("0.9.5", "0.9.5", ""),
        ("0.9.5", "0.9.2", "rollback.yml leads back"),
        ("0.9.1", "0.9.5", "would start empty"),
        ("0.8.8", "0.9.5", "would start empty"),
        ("0.9.5", "0.10.0", "no step that the data are known to survive"),
        ("0.9.5", "latest", "cannot be compared"),
    ],
)
def test_paths(former: str, version: str, problem: str) -> None:
    found = list(rollout.path_problems(former, version))
    assert len(found) == bool(problem)
    assert problem in "".join(found)


def test_a_grid_that_does_not_work_is_not_upgraded() -> None:
    grid = grid_of("a")
    states = states_of(grid)
    assert rollout.problems(grid, states, "0.9.5") == []
    states["a"]["node"]["health"] = {"status": "not ready", "reasons": ["no database"]}
    states["a-w1"]["node"].update(health=None, service={"state": "stopped"})
    states["net"]["node"].update(former={"release": OLD, "going_back": True})
    assert rollout.problems(grid, states, "0.9.5") == [
        f"net: it is on its way back to {OLD}; run rollback.yml to its end",
        "a: it is not ready (no database); only a grid that works is upgraded",
        "a-w1: it is not ready (stopped); only a grid that works is upgraded",
    ]


@pytest.mark.parametrize("state", [{"trial": True}, {"upgrading": True}])
def test_an_upgrade_that_was_cut_off_may_go_on(state: dict[str, bool]) -> None:
    grid = grid_of("a")
    states = states_of(grid, release=NEW, health=None, **state)
    assert rollout.problems(grid, states, "0.9.5") == []
    assert hosts(rollout.plan(grid, states, 1)) == [["a", "a-w1"], ["net"]]


def test_a_limit_does_not_part_a_domain_and_its_workers() -> None:
    grid = grid_of("a", "b")
    states = states_of(grid)
    for host in ("a-w1", "net"):
        del states[host]
    assert rollout.problems(grid, states, "0.9.5") == ["a: it changes together with a-w1, which --limit leaves out"]
    del states["a"]
    assert rollout.problems(grid, states, "0.9.5") == []
    assert hosts(rollout.plan(grid, states, 1)) == [["b", "b-w1"]]


@pytest.mark.parametrize(
    ("present", "wanted", "trial", "problem"),
    [
        (OLD, OLD, False, None),
        (None, NEW, False, None),
        (OLD, NEW, False, "it runs syft 0.9.2, and a deploy does not change that"),
        (NEW, OLD, False, "-e pygrid_version=0.9.5 keeps what it has"),
        (NEW, NEW, True, "its upgrade to 0.9.5 has not come to its end"),
    ],
)
def test_a_deploy_keeps_the_version(present: str | None, wanted: str, trial: bool, problem: str | None) -> None:
    found = version_problem({"node": {"release": present, "trial": trial}, "wanted": {"release": wanted}})
    assert (problem in found) if problem and found else found == problem


def test_the_plan_for_people() -> None:
    grid = grid_of("a")
    states = states_of(grid)
    text = rollout.plan_text(grid, states, rollout.plan(grid, states, 1), "0.9.5")
    assert "canary: a (0.9.2), a-w1 (0.9.2)" in text
    assert "nothing to upgrade" in rollout.plan_text(grid, states, [], "0.9.5")


def former(upgraded_to: str = NEW, since: float = 1.0, going_back: bool = False) -> dict[str, Any]:
    return {"release": OLD, "upgraded_to": upgraded_to, "since": since, "going_back": going_back, "snapshot": None}


def test_a_rollback_undoes_the_last_upgrade_and_no_earlier_one() -> None:
    grid = grid_of("a", "b")
    states = states_of(grid)
    assert rollout.return_plan(states) == []
    assert "nothing to go back to" in rollout.return_text(grid, states, [], {})
    states["a"]["node"]["former"] = former(since=1.0)
    states["a-w1"]["node"]["former"] = former(since=2.0)
    states["b"]["node"]["former"] = former("0.9.3-0000000000cc", 3.0)
    assert rollout.return_plan(states) == ["a", "a-w1"]
    states["b-w1"]["node"].update(upgrading=True)
    states["net"]["node"]["former"] = former("0.9.3-0000000000cc", 1.0, going_back=True)
    plan = rollout.return_plan(states)
    assert sorted(plan) == ["a", "a-w1", "b-w1", "net"]
    text = rollout.return_text(grid, states, plan, {"a": "2 jobs"})
    assert "a: 0.9.5 -> 0.9.2; LOSES 2 jobs" in text
    assert "b-w1: as it was before an upgrade that was cut off" in text


def test_whom_a_node_has_to_reach() -> None:
    grid = grid_of("a", "b")
    states = states_of(grid, peers=[])
    for number, host in enumerate(("net", "a", "b")):
        states[host]["node"]["identity"] = {"uid": str(number)}
        grid["nodes"][host]["door"] = ""
    for host in ("a-w1", "b-w1"):
        states[host]["node"]["identity"] = {"uid": host}
    states["net"]["node"]["peers"] = [
        {"uid": "1", "status": "ACTIVE"}, {"uid": "2", "status": "TIMEOUT"}, {"uid": "9", "status": "ACTIVE"},
    ]  # fmt: skip
    assert rollout.peers(grid, states, "net") == [{"name": "a", "uid": "1", "door": ""}]
    grid["nodes"]["a"]["door"] = None
    assert rollout.peers(grid, states, "net") == []


FINE: dict[str, Any] = {"changed": True}


def test_how_an_upgrade_has_ended() -> None:
    grid = grid_of("a", "b", "c")
    done = {"__upgrade_opening": FINE}
    back = {"__upgrade_return": FINE, "__upgrade_opening": {"skipped": True}}
    variables = {
        "a": done, "a-w1": done, "b": {**back, "__upgrade_failure": "b-w1: its probe job is errored"}, "b-w1": back,
        "c": {"__upgrade_failure": "lost", "__upgrade_stuck": "its host cannot be reached"}, "c-w1": {}, "net": {},
    }  # fmt: skip
    text = rollout.failure_text(grid, variables, list(grid["nodes"]), "0.9.5")
    assert "  b: b-w1: its probe job is errored" in text
    assert "NOT BACK: c." in text
    assert "Back at its former release: b, b-w1." in text
    assert "Upgraded: a, a-w1." in text
    assert "Not touched: net, c-w1." in text
    assert rollout.return_failure_text(grid, variables).endswith("c: its host cannot be reached")
    assert rollout.return_failure_text(grid, dict.fromkeys(grid["nodes"], done)) == ""
    assert "Upgraded to syft 0.9.5: a, a-w1." in rollout.summary_text(grid, variables, ["a", "a-w1", "net"], "0.9.5")
    assert "Every node runs" in rollout.summary_text(grid, variables, [], "0.9.5")
