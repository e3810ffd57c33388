# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``make deploy`` promises, on a grid of its own: seen from outside, with a real client, through kills."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.grid import CHECKOUT, LocalGrid
from support.inventory import list_inventory, write_source
from support.playbook import run_playbook

from ansible_collections.openmined.pygrid.plugins.module_utils.lease import hold_lease
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, open_home
from ansible_collections.openmined.pygrid.plugins.module_utils.services.supervisor import Supervisor
from ansible_collections.openmined.pygrid.plugins.plugin_utils.observer import node_token

# The output that tells what is being waited for.
FOLLOWED = {"ANSIBLE_STDOUT_CALLBACK": "openmined.pygrid.progress", "PYGRID_PROGRESS_SECONDS": "2"}
STEPS = re.compile(r"\d+ s, waiting for .*\((stages: |starting; |\d+ of \d+ packages)")
NODES = ("net", "alice", "bob", "alice-w1", "bob-w1")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGrid]:
    """A deployed grid, in the order a promise is tested: check mode, converge, converge again, check mode again."""
    root = tmp_path_factory.mktemp("g")
    token = root / "observer"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    grid = LocalGrid(root, first_port=17000, variables={"pygrid_observer_token_file": str(token)})
    try:
        fresh = grid.play("deploy", "--check", "--diff")
        assert fresh.returncode == 0, fresh.output
        assert not grid.home.exists(), "check mode made something"
        first = grid.play("deploy", environment=FOLLOWED)
        assert first.returncode == 0, first.output
        assert STEPS.search(first.output), first.output
        assert re.search(r"deploy is done: 5 hosts, \d+ changed$", first.output, re.MULTILINE), first.output
        yield grid
    finally:
        grid.remove()


def test_second_deploy_and_check_mode_change_nothing(grid: LocalGrid) -> None:
    again = grid.deploy()
    assert again.changed == 0, again.output
    check = grid.deploy("--check", "--diff")
    assert check.changed == 0, check.output


def test_nodes_say_who_they_are(grid: LocalGrid) -> None:
    kinds = {name: grid.get(name, "/api/v2/metadata")["server_type"] for name in grid.serving}
    assert kinds == {"net": "gateway", "alice": "datasite", "bob": "datasite"}
    assert [grid.get(name, "/api/v2/metadata")["name"] for name in grid.serving] == list(grid.serving)


def test_a_running_node_does_not_go_through_the_link_to_its_release(grid: LocalGrid) -> None:
    """What it imports later has to be of the release that it was started with, wherever the link points by then."""
    for name in NODES:
        interpreter = Path(f"/proc/{grid.pid_of(name)}/cmdline").read_bytes().split(b"\0")[0].decode()
        assert interpreter.startswith(f"{grid.home}/releases/"), name


def test_network_lists_both_domains_as_active(grid: LocalGrid) -> None:
    assert grid.client("peers", "net") == {"alice": "ACTIVE", "bob": "ACTIVE"}


def test_the_inventory_asks_the_grid_who_belongs_to_it(grid: LocalGrid, tmp_path: Path) -> None:
    source = write_source(tmp_path / "zz.yml", "grid", network=grid.url("net"), token_file=str(grid.root / "observer"))
    found = list_inventory(grid.write_inventory(), source, environment={})
    told = {node["name"]: node for node in found.hosts["alice"]["pygrid_seen"]["nodes"]}
    assert {name: node["kind"] for name, node in told.items()} == {
        "net": "network", "alice": "domain", "bob": "domain", "alice-w1": "worker", "bob-w1": "worker",
    }  # fmt: skip
    assert (told["alice"]["status"], told["alice"]["url"]) == ("ACTIVE", grid.url("alice"))
    assert (told["bob-w1"]["status"], told["bob-w1"]["domain"]) == ("idle", "bob")
    assert "pygrid_unmanaged" not in found.groups
    alone = list_inventory(source, environment={})
    assert alone.groups == {"pygrid_unmanaged": sorted(NODES)}
    # Bob's Worker is a node without a machine, and carol's machine has no node.
    document = grid.inventory()
    del document["pygrid"]["children"]["pygrid_worker"]["hosts"]["bob-w1"]
    spare = {"pygrid_domain_port": grid.first_port + 20, "pygrid_domain_queue_port": grid.first_port + 21}
    document["pygrid"]["children"]["pygrid_domain"]["hosts"]["carol"] = spare
    (tmp_path / "hosts.json").write_text(json.dumps(document))
    status = run_playbook(
        ["ansible-playbook", "-i", str(tmp_path), "playbooks/status.yml"], CHECKOUT, os.environ, timeout_seconds=120
    )
    assert status.returncode == 0, status.output
    assert re.search(r"^ *bob-w1 +worker .*not in the inventory", status.output, re.MULTILINE), status.output
    assert "the inventory has no machine for it" in status.output
    assert "carol: the Network knows no Domain of this name" in status.output


def test_nobody_else_is_told_who_belongs_to_the_grid(grid: LocalGrid, tmp_path: Path) -> None:
    token = (grid.root / "observer").read_text()

    def ask(shown: str) -> tuple[int, dict[str, Any]]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", grid.ports["alice"], timeout=10)) as connection:
            connection.request("GET", "/internal/members", headers={"Authorization": shown})
            answer = connection.getresponse()
            return answer.status, json.load(answer)

    for wrong in ("", "Bearer", f"Bearer {token}", f"Bearer {node_token(token, 'domain', 'bob')}"):
        assert ask(wrong) == (401, {"error": "this needs the observer's token"})
    status, document = ask(f"Bearer {node_token(token, 'domain', 'alice')}")
    assert (status, [member["name"] for member in document["members"]]) == (200, ["alice-w1"])
    other = tmp_path / "other"
    other.touch(mode=0o600)
    other.write_text(secrets.token_hex(32))
    source = write_source(tmp_path / "zz.yml", "grid", network=grid.url("net"), token_file=str(other))
    assert "it has another token" in " ".join(list_inventory(source, environment={}).errors.split())
    other.chmod(0o644)
    assert "others may read" in " ".join(list_inventory(source, environment={}).errors.split())


def test_each_domain_has_its_worker(grid: LocalGrid) -> None:
    for domain in ("alice", "bob"):
        assert grid.ready(domain)["workers"] == {"attached": 1, "names": [f"{domain}-w1"]}


def test_nothing_listens_beyond_loopback(grid: LocalGrid) -> None:
    """Every listening socket of the grid's processes, from the kernel's table."""
    inodes = set()
    for pid in grid.processes():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    listening = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            address, port = fields[1].split(":")
            listening.add((int(port, 16), address))
    expected = {(grid.ports[name], "0100007F") for name in (*NODES, "alice queue", "bob queue")}
    for_other_nodes = {(grid.ports[name], "0200007F") for name in ("net", "alice", "bob")}
    assert expected | for_other_nodes <= listening
    assert {address for _port, address in listening} == {"0100007F", "0200007F"}
    ipv6 = [line for line in Path("/proc/net/tcp6").read_text().splitlines()[1:] if line.split()[9] in inodes]
    assert ipv6 == []


def test_only_the_account_itself_can_read_the_grid(grid: LocalGrid) -> None:
    assert stat.S_IMODE(grid.home.stat().st_mode) == 0o700
    for name in NODES:
        assert stat.S_IMODE(grid.node_file(name, "").stat().st_mode) == 0o700
        for file in ("identity.json", "settings.json", "run/control.sock"):
            assert stat.S_IMODE(grid.node_file(name, file).stat().st_mode) == 0o600, file


def test_secrets_stand_in_the_identity_and_nowhere_else(grid: LocalGrid) -> None:
    """Every secret by its value: in no log, setting, argument list, environment or output of a verbose run."""
    token = (grid.root / "observer").read_text()
    known = {token: "the observer's token"}
    known |= {node_token(token, "domain", name): f"the observer's token for {name}" for name in ("alice", "bob")}
    for name in NODES:
        for key, value in grid.identity(name).items():
            if key in ("private_key", "root_password", "queue_secret_key"):
                known[value] = f"{key} of {name}"
    assert len(known) == 3 + 2 + 3 + 3 + 1 + 1, "observer: 3, net: 2, a Domain: 3, a Worker: 1"
    verbose = grid.deploy("-vvv")
    places = {"output of a deploy with -vvv": verbose.output}
    for file in grid.home.rglob("*"):
        if file.is_file() and "releases" not in file.parts and file.suffix in (".log", ".json", ".ini", ".conf"):
            places[str(file)] = "" if file.name == "identity.json" else file.read_text(errors="replace")
    for pid, command in grid.processes().items():
        places[f"arguments of {pid}"] = command
        places[f"environment of {pid}"] = Path(f"/proc/{pid}/environ").read_text(errors="replace")
    leaks = [f"{what} in {place}" for place, text in places.items() for value, what in known.items() if value in text]
    assert leaks == []


def test_status_tells_versions_jobs_and_tasks(grid: LocalGrid, tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    run = grid.play("status", "-e", f"pygrid_status_file={file}")
    assert run.returncode == 0, run.output
    rows = {row["node"]: row for row in json.loads(file.read_text())}
    assert set(rows) == set(NODES)
    assert {row["version"] for row in rows.values()} == {"0.9.5"}
    assert {row["health"] for row in rows.values()} == {"ready"}
    assert rows["alice-w1"]["doing"] == "idle"
    assert run.changed == 0
    assert {name: row["drift"] for name, row in rows.items()} == {name: [] for name in NODES}
    assert "last change: deploy 0.9.5 by " in run.output


def test_status_tells_what_a_deploy_would_change(grid: LocalGrid, tmp_path: Path) -> None:
    """The same as a deploy in check mode does; and that a run is at work, or another was cut off."""
    file = tmp_path / "status.json"
    grid.node_file("bob-w1", "settings.json").write_text("{")
    changed = ("-e", "pygrid_network_auto_approve_domains=true")
    lease = {"holder": "elsewhere:boot:1:1", "who": "anna@ops", "verb": "restore", "seconds": 600}
    hold_lease(Home(grid.home), **lease)
    run = grid.play("status", "-e", f"pygrid_status_file={file}", *changed)
    assert run.returncode == 0, run.output
    drift = {row["node"]: row["drift"] for row in json.loads(file.read_text())}
    assert {name for name in NODES if drift[name]} == {"net", "bob-w1"}
    assert drift["net"] == ["settings", "state"]
    assert "under way: restore 0.9.5 by anna@ops" in run.output
    refused = grid.play("deploy", *changed)
    assert refused.returncode != 0
    assert "net: restore by anna@ops has been at work here since" in refused.output
    check = grid.play("deploy", "--check", *changed)
    assert check.recap == {name: int(bool(drift[name])) for name in NODES}, check.output
    mended = grid.deploy("-e", "pygrid_take_over=true")
    assert mended.recap == {**dict.fromkeys(NODES, 0), "bob-w1": 1}
    lines = (grid.home / "log" / "changes.jsonl").read_text().splitlines()
    ends = [entry for entry in map(json.loads, lines) if entry["event"] == "ended"]
    assert [(end["verb"], end["result"]) for end in ends[-2:]] == [("restore", "cut off or failed"), ("deploy", "done")]
    assert ends[-1]["changes"] == {"bob-w1": drift["bob-w1"]}


def test_passwords_are_shown_only_when_asked_for(grid: LocalGrid) -> None:
    password = grid.identity("alice")["root_password"]
    refused = grid.play("credentials")
    assert refused.returncode != 0
    assert password not in refused.output
    assert "pygrid_show_credentials=true" in refused.output
    shown = grid.play("credentials", "-e", "pygrid_show_credentials=true")
    assert shown.returncode == 0, shown.output
    assert password in shown.output


@pytest.mark.thorough
def test_killed_processes_come_back_with_their_data_and_jobs(grid: LocalGrid) -> None:
    """kill -9 of every node process, with a job running and another queued; then of everything at once, then deploy."""
    grid.client("seed", "alice")
    running = grid.client("submit", "alice", 8)["job"]
    end = time.monotonic() + 60
    while grid.ready("alice-w1")["state"] != "busy":
        assert time.monotonic() < end, "the job was never started"
        time.sleep(0.2)
    queued = grid.client("submit", "alice", 0)["job"]
    before = grid.client("fingerprint", "alice")
    pids = {name: grid.pid_of(name) for name in NODES}
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    for name, pid in pids.items():
        grid.wait_ready(name, not_pid=pid)
    for job in (running, queued):
        assert grid.client("result", "alice", job, 90) == {"status": "completed", "value": 45.0}
    after = grid.client("fingerprint", "alice")
    assert {**after, "jobs": None} == {**before, "jobs": None}
    assert set(after["jobs"]) == set(before["jobs"])

    for pid in grid.processes():
        os.kill(pid, signal.SIGKILL)
    grid.deploy()
    assert grid.client("fingerprint", "alice") == after
    assert grid.deploy().changed == 0


@pytest.mark.thorough
def test_killed_supervisor_leaves_no_orphans_and_deploy_heals(grid: LocalGrid) -> None:
    """Nodes stop with their supervisor: an orphan would hold its port against the next start."""
    pid = int((grid.home / "supervisor" / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while grid.processes():
        assert time.monotonic() < end, f"left over: {grid.processes()}"
        time.sleep(0.2)
    grid.deploy()
    assert grid.deploy().changed == 0


@pytest.mark.thorough
def test_what_was_damaged_by_hand_is_mended(grid: LocalGrid) -> None:
    """A lost link, a cut settings file, an emptied allow-list, an identity that others may read."""
    pid = grid.pid_of("net")
    grid.node_file("alice", "current").unlink()
    grid.node_file("bob", "settings.json").write_text("{")
    grid.node_file("bob", "workers.json").write_text("{}")
    grid.node_file("net", "identity.json").chmod(0o644)
    mended = grid.deploy()
    assert mended.recap == {"net": 1, "alice": 1, "bob": 1, "alice-w1": 0, "bob-w1": 0}
    assert grid.pid_of("net") == pid, "permissions are no reason to restart"
    assert stat.S_IMODE(grid.node_file("net", "identity.json").stat().st_mode) == 0o600
    assert grid.deploy().changed == 0


@pytest.mark.thorough
def test_kept_data_brings_the_same_nodes_back(grid: LocalGrid) -> None:
    identities = {name: grid.identity(name) for name in NODES}
    before = grid.client("fingerprint", "alice")
    check = grid.play("remove", "--check")
    assert check.returncode == 0, check.output
    assert check.changed >= len(NODES)
    assert len(grid.processes()) >= len(NODES)
    removed = grid.play("remove")
    assert removed.returncode == 0, removed.output
    assert removed.recap == check.recap, "check mode did not tell the truth"
    assert grid.processes() == {}
    assert sorted(entry.name for entry in grid.home.iterdir() if not entry.name.startswith(".")) == ["log", "nodes"]
    assert grid.play("remove").changed == 0
    grid.deploy()
    assert {name: grid.identity(name) for name in NODES} == identities
    assert grid.client("fingerprint", "alice") == before
    assert grid.client("peers", "net") == {"alice": "ACTIVE", "bob": "ACTIVE"}


def test_a_worker_more_then_the_idle_one_goes(grid: LocalGrid) -> None:
    """Nobody else restarts, no job is lost, the busy Worker stays though it is the newer one, and deploy agrees."""
    before = {name: grid.pid_of(name) for name in NODES}
    more = grid.play("scale", "-e", '{"pygrid_domain_workers": {"alice": 2}}')
    assert more.returncode == 0, more.output
    assert {name: grid.pid_of(name) for name in NODES} == before
    assert grid.ready("alice")["workers"]["names"] == ["alice-w1", "alice-w2"]
    if not grid.client("fingerprint", "alice")["datasets"]:
        grid.client("seed", "alice")
    # The former one is away meanwhile, so that the new one gets the job.
    Supervisor(open_home(str(grid.home), "user")).stop("alice-w1", 30)
    job = grid.client("submit", "alice", 60)["job"]
    grid.deploy("--limit", "alice-w1")
    assert (grid.ready("alice-w1")["state"], grid.ready("alice-w2")["state"]) == ("idle", "busy")
    fewer = ("scale", "-e", '{"pygrid_domain_workers": {"alice": 1}}')
    less = grid.play(*fewer)
    assert less.returncode == 0, less.output
    assert {grid.pid_of(name) for name in NODES if name != "alice-w1"} == {
        pid for name, pid in before.items() if name != "alice-w1"
    }
    assert grid.ready("alice")["workers"]["names"] == ["alice-w2"]
    assert not grid.node_file("alice-w1", "").exists()
    kept = yaml.safe_load(grid.scale_file.read_text())
    assert kept == {
        "pygrid": {"children": {"pygrid_worker": {"hosts": {"alice-w2": {
            "pygrid_worker_domain": "alice", "pygrid_worker_port": grid.ports["alice-w2"],
        }}}}},
        "pygrid_spare": {"hosts": {"alice-w1": {}}},
    }  # fmt: skip
    assert grid.play(*fewer).changed == 0
    assert grid.deploy().changed == 0
    assert grid.client("result", "alice", job, 150) == {"status": "completed", "value": 45.0}


def test_another_release_and_back(grid: LocalGrid) -> None:
    """All steps of an upgrade, gates included; test_upgrade.py and the scenario upgrade change the version, too."""
    other = ("-e", '{"pygrid_worker_packages": []}')
    (worker,) = grid.ready("alice")["workers"]["names"]
    nodes = ("alice", worker, "bob", "bob-w1", "net")
    releases = {name: grid.ready(name)["release"] for name in nodes}
    known = grid.client("fingerprint", "alice")
    there = grid.play("upgrade", *other)
    assert there.returncode == 0, there.output
    assert f"Upgraded to syft 0.9.5: {', '.join(nodes)}." in there.output
    assert {grid.ready(name)["release"] for name in nodes}.isdisjoint(releases.values())
    assert grid.play("upgrade", *other).changed == 0
    back = grid.play("rollback")
    assert back.returncode == 0, back.output
    assert {name: grid.wait_ready(name)["release"] for name in nodes} == releases
    assert grid.client("fingerprint", "alice") == known
    assert "nothing to go back to" in " ".join(grid.play("rollback").output.split())


def test_a_backup_and_back(grid: LocalGrid) -> None:
    """test_backup.py does more of it, and the scenario disaster does it on servers."""
    place = ("-e", json.dumps({"pygrid_backup_repository": str(grid.root / "backups"), "pygrid_backup_schedule": ""}))
    (worker,) = grid.ready("alice")["workers"]["names"]
    words = (*place, "--limit", f"alice,{worker}")
    assert "keep a copy" in grid.must_play("backup", *words).output
    known = grid.client("fingerprint", "alice")
    job = grid.client("submit", "alice", 0)["job"]
    assert grid.client("result", "alice", job, 60)["status"] == "completed"
    refused = grid.play("restore", *words)
    assert refused.returncode != 0
    assert "pygrid_restore_overwrite=true" in refused.output
    grid.must_play("restore", *words, "-e", "pygrid_restore_overwrite=true")
    assert grid.client("fingerprint", "alice") == known


def test_removal_with_data_asks_and_then_leaves_nothing(grid: LocalGrid) -> None:
    refused = grid.play("remove", "-e", "pygrid_remove_data=true")
    assert refused.returncode != 0
    assert "pygrid_confirm=true" in refused.output
    assert len(grid.processes()) >= len(NODES)
    removed = grid.play("remove", "-e", "pygrid_remove_data=true", "-e", "pygrid_confirm=true")
    assert removed.returncode == 0, removed.output
    assert grid.processes() == {}
    assert not grid.home.exists()
