# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What status tells of differences from the inventory, and of who was at work."""

from __future__ import annotations

from typing import Any

from ansible_collections.openmined.pygrid.plugins.filter.grid import FilterModule
from ansible_collections.openmined.pygrid.plugins.plugin_utils import controller_process
from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import last_change_text

FILTERS = FilterModule().filters()
CHANGE: dict[str, Any] = {
    "verb": "upgrade", "run": "elsewhere:boot:1:1", "who": "anna@ops (process 7)", "wanted": "0.9.5",
    "ago_seconds": 7200,
    "nodes": {"net": "0.9.2-aaaaaaaaaaaa"}, "nodes_after": {"net": "0.9.5-bbbbbbbbbbbb"},
    "result": "done", "message": "", "seconds": 192, "changes": None, "holds": False,
}  # fmt: skip
UNENDED = {**CHANGE, "nodes_after": None, "result": None, "seconds": None}


def table(**hosts: dict[str, Any]) -> str:
    """The table of status for nodes of which that was read."""
    node = {"kind": "network", "url": "http://127.0.0.1:7000", "location": "here", "domain": None}
    grid = {
        "nodes": {host: {**node, "host": host, "name": host} for host in hosts},
        "hosts": {"here": {"nodes": list(hosts)}},
        "scope": "user",
    }
    return FILTERS["status_table"](FILTERS["status_rows"](grid, hosts))


def read(release: str | None = "0.9.5-a", drift: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """The variables of a host that was read, whose node is to have 0.9.5."""
    node = {"release": release, "identity": {"uid": "1"}, "service": {"state": "running"}, **more.pop("node", {})}
    answer = {"skipped": True} if drift is None else {"changes": drift}
    wanted = {"release": more.pop("wanted", "0.9.5-a"), "problem": more.pop("problem", "")}
    return {"__node_state": {"node": node, "wanted": wanted, "host": more}, "__node_drift": answer}


def test_nodes_that_are_as_they_shall_be() -> None:
    text = table(net=read(drift=[]))
    assert len(text.splitlines()) == 2
    assert text.splitlines()[-1].split()[-3:] == ["-", "-", "-"], "drift, jobs, doing"


def test_what_a_deploy_would_change() -> None:
    text = table(net=read(drift=["settings", "state"]), two=read(drift=[], node={"identity": None}))
    assert "settings, state" in text
    assert "deploy.yml would change net (everything)" in table(net=read(None, ["release"], node={"exists": False}))
    assert "deploy.yml would change net (settings, state), two (identity); with --check --diff it shows how" in text


def test_what_takes_an_upgrade() -> None:
    text = table(net=read("0.9.2-a", ["release"]), two=read("0.9.2-a", ["release"]), three=read(None, ["release"]))
    assert "upgrade.yml would bring net, two from 0.9.2 to 0.9.5" in text
    assert "deploy.yml would change three (release)" in text
    older = table(net=read("0.9.5-a", ["release"], wanted="0.9.3-a"))
    assert "net: 0.9.3 is older than its 0.9.5; rollback.yml" in older


def test_what_cannot_be_told() -> None:
    text = table(
        net={}, two=read(problem="no usable Python", wanted=None), three={"__node_state": {"unreachable": True}}
    )
    assert "not compared with what a deploy would make: two (no usable Python)" in text
    assert [line.split()[-3] for line in text.splitlines()[1:4]] == ["?", "?", "?"]
    assert text.count("unreachable") == 2


def test_the_newest_change_of_all_machines() -> None:
    old, new = {**CHANGE, "ago_seconds": 90000}, {**CHANGE, "verb": "deploy", "ago_seconds": 60}
    text = table(net=read(drift=[], last_change=old), two=read(drift=[], last_change=new), three=read(drift=[]))
    assert text.splitlines()[-1] == "last change: deploy 0.9.2 -> 0.9.5 by anna@ops 1m ago, done in 3m 12s"


def test_how_it_ended() -> None:
    failed = {**CHANGE, "result": "failed", "message": "it failed on alice", "changes": {"net": ["release"]}}
    assert last_change_text(failed) == (
        "last change: upgrade 0.9.2 -> 0.9.5 by anna@ops 2h ago, failed after 3m 12s: it failed on alice"
    )
    same = {**CHANGE, "nodes": CHANGE["nodes_after"], "verb": "deploy", "changes": {"net": ["settings"]}}
    assert last_change_text(same) == "last change: deploy 0.9.5 by anna@ops 2h ago, done in 3m 12s, it changed net"


def test_a_run_at_work_and_one_that_does_not_live_any_more() -> None:
    assert last_change_text({**UNENDED, "holds": True}) == (
        "under way: upgrade 0.9.2 -> 0.9.5 by anna@ops, begun 2h ago"
    )
    assert last_change_text(UNENDED).startswith("did not end: upgrade 0.9.2 -> 0.9.5 by anna@ops")
    machine, boot, *_rest = controller_process.own_name().split(":")
    dead = {**UNENDED, "holds": True, "run": f"{machine}:{boot}:1:999"}
    assert last_change_text(dead).startswith("did not end"), "its controller is this machine, where nobody lives of it"
