# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nodes get other limits, in which order, and what speaks against it."""

from __future__ import annotations

from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils import resize


def grid_of(scope: str = "system", **memory_mb: int) -> dict[str, Any]:
    def node(name: str, kind: str, workers: tuple[str, ...] = (), **settings: Any) -> dict[str, Any]:
        limits = {"cpu_percent": 0, "memory_mb": memory_mb.get(name, 0), "tasks": 1024}
        return {
            "name": name, "kind": kind, "scope": scope, "limits": limits, "settings": settings, "workers": workers,
        }  # fmt: skip

    nodes = {
        "net": node("net", "network"),
        "alice": node("alice", "domain", workers=("w1", "w2")),
        "w1": node("w1", "worker", processes=3),
        "w2": node("w2", "worker"),
    }
    return {"nodes": nodes}


def known(changes: list[str], state: str = "running", total_mb: int | None = 8000) -> dict[str, Any]:
    return {
        "__node_state": {"node": {"service": {"state": state}}, "host": {"memory_mb": total_mb}},
        "__node_activation": {"changes": changes},
    }


def test_words_stand_for_variables() -> None:
    assert resize.variables({"w1": {"processes": 2, "memory_max_mb": 4096}}) == {
        "w1": {"pygrid_worker_processes": 2, "pygrid_memory_max_mb": 4096}
    }


def test_only_those_that_differ_workers_first_and_the_network_last() -> None:
    everybody = {host: known(["settings"]) for host in ("net", "alice", "w1", "w2")}
    assert resize.order(grid_of(), list(everybody), everybody) == ["w1", "w2", "alice", "net"]
    everybody["w1"] = known([])
    assert resize.order(grid_of(), list(everybody), everybody) == ["w2", "alice", "net"]
    assert "nothing to do" in resize.plan_text(grid_of(), [])


def test_what_cannot_be_meant() -> None:
    wanted = {
        "x": {"processes": 1},
        "w1": {"process": 2},
        "w2": {"processes": 65, "memory_max_mb": "lots"},
        "net": {"processes": 2, "tasks_max": 100},
        "alice": 5,
    }
    assert [sentence.partition(";")[0] for sentence in resize.problems(grid_of(), wanted)] == [
        "pygrid_resize names x, which is no node of the inventory",
        "pygrid_resize is {'process': 2} for w1",
        "pygrid_resize: processes is 65 for w2",
        "pygrid_resize: memory_max_mb is 'lots' for w2",
        "pygrid_resize: net is a network",
        "pygrid_resize is 5 for alice",
    ]
    assert list(resize.problems(grid_of("user"), {"w1": {"processes": 2}})) == []
    assert "no effect in scope user" in next(resize.problems(grid_of("user"), {"w1": {"tasks_max": 2}}))


def test_what_was_read_may_speak_against_it() -> None:
    read = {
        "w1": known(["release", "state"]),
        "w2": known(["state"], state="failed"),
        "alice": known(["service"]),
        "net": known(["service"], total_mb=None),
    }
    found = list(resize.problems_found(grid_of(alice=9000, net=9000), list(read), read))
    assert [sentence.partition(":")[0] for sentence in found] == ["w1", "w2", "alice"]
    assert found[2] == "alice: its memory_max_mb is 9000, and its machine has 8000 MB"


def test_each_process_is_tried() -> None:
    assert resize.slots(grid_of(), "w1") == ["w1", "w1-2", "w1-3"]
    assert resize.slots(grid_of(), "alice") == ["w1", "w1-2", "w1-3", "w2"]
    assert resize.slots(grid_of(), "net") == []
