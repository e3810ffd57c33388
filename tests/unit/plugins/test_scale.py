# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who comes and who goes, where to, under which names, and what the file of inventory keeps of it."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError

from ansible_collections.openmined.pygrid.plugins.action import scale_plan
from ansible_collections.openmined.pygrid.plugins.plugin_utils import scale, scale_file
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale import Step, Wanted, make_plan, to_ask
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale_file import ScaleFile


def node(kind: str, location: str, port: int, domain: str | None = None) -> dict[str, Any]:
    return {
        "kind": kind, "location": location, "ports": {f"pygrid_{kind}_port": port}, "domain": domain, "workers": [],
        "joined": kind == "domain", "database": None,
    }  # fmt: skip


def grid_of(workers: dict[str, tuple[str, str]], spare: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """net, alice and bob on machines of their own; ``workers``: name to Domain and machine."""
    nodes = {name: node(kind, f"{name}.host", 5000) for name, kind in
             (("net", "network"), ("alice", "domain"), ("bob", "domain"))}  # fmt: skip
    for number, (name, (domain, location)) in enumerate(workers.items()):
        nodes[name] = node("worker", location, 5600 + number, domain)
        nodes[domain]["workers"].append(name)
    for host, value in nodes.items():
        value.update(name=host, host=host)
    hosts: dict[str, Any] = {}
    for host, value in nodes.items():
        hosts.setdefault(value["location"], {"nodes": []})["nodes"].append(host)
    machines = {host: {"host": host, "location": f"{host}.host", "domain": None, "port": None} for host in spare or {}}
    machines.update({host: value for host, value in (spare or {}).items() if value})
    grid = {"nodes": nodes, "hosts": hosts, "spare": machines, "scope": "system", "network": "net"}
    return {**grid, "network_url": "https://net.host", **more}


def state(*busy_seconds: float) -> dict[str, Any]:
    """A Worker with a slot for each number: 0 for an idle one, else since when its job runs."""
    slots = [{"job": "j" if seconds else None, "busy_seconds": seconds} for seconds in busy_seconds]
    return {"node": {"health": {"slots": slots}}}


def plan_of(
    grid: dict[str, Any],
    workers: dict[str, int],
    record: ScaleFile | None = None,
    states: dict[str, Any] | None = None,
    joined: list[str] | None = None,
) -> list[tuple[str, str, str]]:
    plan = make_plan(grid, record or ScaleFile(), Wanted(workers, joined), states or {})
    return [(step.host, step.what, step.location) for step in plan.steps]


TWO = {"alice-w1": ("alice", "w.host"), "alice-w2": ("alice", "w.host")}


def test_nothing_to_do() -> None:
    grid = grid_of(TWO)
    assert plan_of(grid, {"alice": 2}) == []
    assert plan_of(grid, {}) == []
    assert to_ask(grid, ScaleFile(), Wanted({"alice": 2})) == []


def test_spare_machines_first_and_evenly_then_those_with_few_workers() -> None:
    grid = grid_of(TWO, {"s1": None, "s2": None})
    assert plan_of(grid, {"alice": 6}) == [
        ("alice-w3", "coming", "s1.host"),
        ("alice-w4", "coming", "s2.host"),
        ("alice-w5", "coming", "s1.host"),
        ("alice-w6", "coming", "s2.host"),
    ]


def test_own_machines_before_those_of_others_and_servers_last() -> None:
    grid = grid_of({"alice-w1": ("alice", "a.host"), "bob-w1": ("bob", "b.host")})
    assert plan_of(grid, {"bob": 2}) == [("bob-w2", "coming", "b.host")]
    alone = grid_of({})
    assert plan_of(alone, {"bob": 1})[0][2] in ("net.host", "alice.host", "bob.host"), "nothing else is there"


def test_machines_that_a_cloud_would_make_are_shown() -> None:
    wanted = Wanted({"alice": 2}, machines={"alice": ["alice-w2"]})
    plan = make_plan(grid_of({"alice-w1": ("alice", "m1")}), ScaleFile(), wanted, {})
    assert [(step.host, step.location, step.new) for step in plan.steps] == [("alice-w2", "a new machine", False)]


def test_a_domain_that_runs_its_workers_itself_keeps_to_that() -> None:
    grid = grid_of({"alice-w1": ("alice", "alice.host"), "bob-w1": ("bob", "bob.host")})
    assert plan_of(grid, {"alice": 2}) == [("alice-w2", "coming", "alice.host")]


def test_in_scope_user_a_worker_is_where_its_domain_is() -> None:
    grid = grid_of({}, {"s1": None}, scope="user")
    assert plan_of(grid, {"alice": 1}) == [("alice-w1", "coming", "alice.host")]


def test_free_names_and_free_ports() -> None:
    grid = grid_of({"alice-w2": ("alice", "w.host"), "bob-w1": ("bob", "w.host")})
    plan = make_plan(grid, ScaleFile(), Wanted({"alice": 3}), {})
    assert [(step.host, step.port) for step in plan.steps] == [("alice-w1", 5602), ("alice-w3", 5603)]
    grid["nodes"]["bob-w1"]["name"] = "alice-w1"
    plan = make_plan(grid, ScaleFile(), Wanted({"alice": 2}), {})
    assert [step.host for step in plan.steps] == ["alice-w3"], "a node of that name is there under another host"


def test_a_machine_is_reached_through_a_host_of_the_users_own() -> None:
    grid = grid_of({"alice-w9": ("alice", "w.host"), "alice-w1": ("alice", "w.host")})
    plan = make_plan(grid, ScaleFile(workers={"alice-w9": {}}), Wanted({"alice": 3}), {})
    assert [step.carrier for step in plan.steps] == ["alice-w1"]


def test_the_idle_go_first_then_who_began_last_and_of_equals_the_newest() -> None:
    many = {f"alice-w{number}": ("alice", "w.host") for number in (1, 2, 3, 10)}
    states = {"alice-w1": state(0), "alice-w2": state(5), "alice-w3": state(60, 0), "alice-w10": state(9, 9)}
    grid = grid_of(many)
    order = [[host for host, _what, _place in plan_of(grid, {"alice": keep}, states=states)] for keep in (3, 2, 1, 0)]
    assert order[0] == ["alice-w1"]
    assert order[1] == ["alice-w1", "alice-w2"]
    assert order[2] == ["alice-w1", "alice-w2", "alice-w3"], "one process of two is busy: less than both"
    assert set(order[3]) == set(many)
    idle = {host: state(0) for host in many}
    assert plan_of(grid, {"alice": 3}, states=idle) == [("alice-w10", "going", "w.host")]
    assert to_ask(grid, ScaleFile(), Wanted({"alice": 3})) == list(many)


def test_spare_machines_are_freed_before_others() -> None:
    grid = grid_of({"alice-w1": ("alice", "s1.host"), "alice-w2": ("alice", "w.host")}, {"s1": None})
    states = {host: state(0) for host in ("alice-w1", "alice-w2")}
    assert plan_of(grid, {"alice": 1}, states=states) == [("alice-w1", "going", "s1.host")]


def test_a_choice_once_made_stays_made() -> None:
    """The Worker whose removal was cut off goes, though now another one would; the number need not be said again."""
    record = ScaleFile(unfinished={"alice-w1": "going"})
    states = {"alice-w1": state(50), "alice-w2": state(0)}
    assert plan_of(grid_of(TWO), {"alice": 1}, record, states) == [("alice-w1", "going", "w.host")]
    assert plan_of(grid_of(TWO), {}, record, states) == [("alice-w1", "going", "w.host")]
    assert plan_of(grid_of(TWO), {"alice": 2}, record) == [("alice-w1", "coming", "w.host")], "it may be half gone"


def test_what_was_begun_is_ended() -> None:
    record = ScaleFile(workers={"alice-w2": {}}, unfinished={"alice-w2": "coming"})
    assert plan_of(grid_of(TWO), {"alice": 2}, record) == [("alice-w2", "coming", "w.host")]


def test_those_taken_away_come_back_before_new_ones() -> None:
    away = {"alice-w1": {"host": "alice-w1", "location": "w.host", "domain": "alice", "port": 5600}}
    grid = grid_of({"alice-w2": TWO["alice-w2"]}, away)
    record = ScaleFile(spare=["alice-w1"])
    assert plan_of(grid, {"alice": 2}, record) == [("alice-w1", "coming", "w.host")]
    plan = make_plan(grid, record, Wanted({"alice": 3}), {})
    assert [(step.host, step.new) for step in plan.steps] == [("alice-w1", False), ("alice-w3", True)]
    assert [step.host for step in make_plan(grid, record, Wanted({"bob": 1}), {}).steps] == ["bob-w1"]


def test_no_worker_is_allowed_and_said() -> None:
    plan = make_plan(grid_of(TWO), ScaleFile(), Wanted({"alice": 0}), {})
    assert plan.hosts("going") == ["alice-w1", "alice-w2"]
    assert plan.notes == ["alice keeps no Worker: its jobs wait until it has one again"]


def test_domains_join_and_leave() -> None:
    grid = grid_of({})
    assert plan_of(grid, {}, joined=["alice", "bob"]) == []
    assert plan_of(grid, {}, joined=["alice"]) == [("bob", "leaving", "bob.host")]
    grid["nodes"]["bob"]["joined"] = False
    assert plan_of(grid, {}) == []
    assert plan_of(grid, {}, joined=["alice", "bob"]) == [("bob", "joining", "bob.host")]
    assert plan_of(grid, {}, ScaleFile(unfinished={"bob": "leaving"})) == [("bob", "leaving", "bob.host")]


@pytest.mark.parametrize(
    ("workers", "joined", "said"),
    [
        ({"carol": 1}, None, "pygrid_domain_workers names carol, which is no Domain of the inventory; the Domains are"),
        ({"net": 1}, None, "pygrid_domain_workers names net, which is no Domain"),
        ({"alice": -1}, None, "pygrid_domain_workers is -1 for alice; it is a number from 0 on"),
        ({"alice": "two"}, None, "pygrid_domain_workers is 'two' for alice"),
        ({}, ["carol"], "pygrid_domains_joined names carol"),
    ],
)
def test_what_is_refused(workers: dict[str, Any], joined: list[str] | None, said: str) -> None:
    assert next(scale.problems(grid_of({}), Wanted(workers, joined))).startswith(said)


def test_numbers_and_names_as_words() -> None:
    assert scale.as_numbers("alice=3, bob=0") == {"alice": "3", "bob": "0"}
    assert scale.as_numbers({"alice": 3}) == {"alice": 3}
    assert scale.as_list("alice, bob") == ["alice", "bob"]
    assert scale.as_list("") == []
    assert scale.as_list(None) is None
    assert "is '' for alice" in next(scale.problems(grid_of({}), Wanted(scale.as_numbers("alice"))))


def test_no_network_to_join() -> None:
    grid = grid_of({}, network_url=None)
    assert list(scale.problems(grid, Wanted({}, ["alice"]))) == [
        "pygrid_domains_joined is given, and the grid has no Network that Domains could join"
    ]
    assert list(scale.problems(grid, Wanted({"alice": 1}))) == []


# ---- the file


def test_added_workers_come_and_go_and_the_file_with_them(tmp_path: Path) -> None:
    path = tmp_path / "pygrid-scale.yml"
    scale_file.change(path, lambda content: content.begin("alice-w2", "coming", {"pygrid_worker_domain": "alice"}))
    document = yaml.safe_load(path.read_text())
    assert document["pygrid"]["vars"] == {"pygrid_scale_unfinished": {"alice-w2": "coming"}}
    assert document["pygrid"]["children"]["pygrid_worker"]["hosts"] == {"alice-w2": {"pygrid_worker_domain": "alice"}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.read_text().startswith("# Written by the playbooks scale and resize")
    scale_file.change(path, lambda content: content.end("alice-w2"))
    assert "vars" not in yaml.safe_load(path.read_text())["pygrid"]
    scale_file.change(path, lambda content: content.begin("alice-w2", "going"))
    assert "alice-w2" in scale_file.read(path).workers, "it is a node until it is gone"
    scale_file.change(path, lambda content: content.end("alice-w2"))
    assert list(tmp_path.iterdir()) == []


def test_workers_of_other_files_become_spare_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "pygrid-scale.yml"
    scale_file.change(path, lambda content: content.begin("alice-w1", "going"))
    scale_file.change(path, lambda content: content.end("alice-w1"))
    assert yaml.safe_load(path.read_text()) == {"pygrid_spare": {"hosts": {"alice-w1": {}}}}
    scale_file.change(path, lambda content: content.begin("alice-w1", "coming"))
    assert scale_file.read(path) == ScaleFile(unfinished={"alice-w1": "coming"})
    scale_file.change(path, lambda content: content.undo("alice-w1"))
    assert scale_file.read(path) == ScaleFile(spare=["alice-w1"])


def test_a_domain_that_left_is_kept_out_and_one_that_returns_is_as_before() -> None:
    content = ScaleFile()
    content.begin("bob", "leaving")
    content.end("bob")
    assert content == ScaleFile(scaled={"bob": {"pygrid_domain_network_joined": False}})
    content.begin("bob", "joining")
    content.begin("bob", "joining")  # again, after a kill
    content.end("bob")
    assert content == ScaleFile()


def test_check_mode_writes_nothing_and_undo_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "pygrid-scale.yml"
    before, after = scale_file.change(path, lambda content: content.begin("w", "coming", {"a": 1}), dry_run=True)
    assert before == ""
    assert "coming" in after
    assert not path.exists()
    content = ScaleFile()
    for host, what in (("a", "coming"), ("b", "going"), ("c", "leaving")):
        content.begin(host, what, {"x": 1} if what == "coming" else None)
        content.undo(host)
    assert content == ScaleFile()


def test_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pygrid-scale.yml"

    def add(number: int) -> None:
        scale_file.change(path, lambda content: content.keep(f"w{number}", {"pygrid_worker_processes": number}))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scale_file.read(path).scaled) == 20


@pytest.mark.parametrize("text", ["- a list", "pygrid: [1]", "pygrid: {vars: {pygrid_scaled: {alice: 5}}}", "a: b: c"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pygrid-scale.yml"
    path.write_text(text)
    with pytest.raises(AnsibleError, match=str(path)):
        scale_file.read(path)


def test_where_the_file_is_and_whether_it_is_read(tmp_path: Path) -> None:
    folder, hosts = tmp_path / "mine", tmp_path / "hosts.yml"
    folder.mkdir()
    hosts.touch()
    assert scale_file.place_of("", [str(folder)]) == folder / "pygrid-scale.yml"
    assert scale_file.is_read(folder / "pygrid-scale.yml", [str(folder)])
    beside = scale_file.place_of("", [str(hosts)])
    assert beside == tmp_path / "pygrid-scale.yml"
    assert not scale_file.is_read(beside, [str(hosts)])
    assert scale_file.is_read(beside, [str(hosts), str(beside)])
    assert scale_file.place_of("", [str(hosts), str(beside)]) == beside
    assert scale_file.place_of("", ["a,b,"]) is None


def test_a_worker_that_is_kept_in_another_folder_finds_what_the_controller_keeps() -> None:
    step = Step("alice-w2", "coming", "alice", "10.0.0.9", carrier="spare1", port=5600, new=True)
    carrier = {"ansible_host": "10.0.0.9", "inventory_dir": "/grid"}
    found = scale_plan._variables(step, carrier, {}, Path("/elsewhere/pygrid-scale.yml"))
    assert found["pygrid_pki_directory"] == "/grid/.pygrid/pki"
    assert found["pygrid_backup_password_file"] == "/grid/.pygrid/backup-password"
    assert "pygrid_pki_directory" not in scale_plan._variables(step, carrier, {}, Path("/grid/pygrid-scale.yml"))
    own = {**carrier, "pygrid_pki_directory": "/pki"}
    assert scale_plan._variables(step, own, {}, Path("/elsewhere/x.yml"))["pygrid_pki_directory"] == "/pki"


def test_a_worker_whose_machine_is_gone_is_no_spare_one() -> None:
    record = ScaleFile(unfinished={"alice-w1": "going", "alice-w2": "going"})
    record.end("alice-w1", machine_is_gone=True)
    record.end("alice-w2")
    assert (record.spare, record.unfinished) == (["alice-w2"], {})
