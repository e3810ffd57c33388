# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab decides before it touches the machine; what it does to the machine is tried by `make scenario S=lab`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from lab import base, recipe, relay
from lab import lab as labs
from lab.groups import hierarchies
from lab.host import Host
from lab.machine import CHECKOUT, LabError, run
from lab.network import enter
from lab.prepare import images


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder without labs."""
    monkeypatch.setattr(labs, "CACHE", tmp_path)
    return tmp_path


@pytest.fixture
def lab(cache: Path) -> labs.Lab:
    """A lab that knows three hosts, none of them made."""
    made = labs.Lab("three")
    made.prepare()
    for name in ("net", "alice", "far"):
        made.add({"name": name})
    made.hosts["far"].behind = "alice"
    made.save()
    return made


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "a b", "-a", "a" * 42, ".."])
def test_names_that_cannot_be_namespaces_are_refused(cache: Path, lab: labs.Lab, name: str) -> None:
    with pytest.raises(LabError, match="cannot be called"):
        labs.Lab(name)
    with pytest.raises(LabError, match="cannot be called"):
        lab.add({"name": name})


def test_state_survives_the_process(lab: labs.Lab) -> None:
    again = labs.Lab("three")
    assert again.hosts == lab.hosts
    assert again.subnet == lab.subnet
    assert again.variables() == lab.variables()


def test_labs_side_by_side_have_networks_of_their_own(lab: labs.Lab) -> None:
    other = labs.Lab("other")
    other.prepare()
    assert other.subnet != lab.subnet
    assert other.prefix != lab.prefix


def test_addresses_are_reused_only_when_free(lab: labs.Lab) -> None:
    numbers = [host.number for host in lab.hosts.values()]
    assert len(set(numbers)) == 3
    freed = lab.hosts.pop("alice").number
    assert lab.add({"name": "new"}).number == freed


def test_secrets_of_a_lab_are_roots_alone(lab: labs.Lab) -> None:
    assert lab.folder.stat().st_mode & 0o077 == 0
    assert lab.key.stat().st_mode & 0o077 == 0
    assert lab.password_file.stat().st_mode & 0o077 == 0
    assert len(lab.password_file.read_text()) >= 20


def settings_of_ssh(lab: labs.Lab, name: str) -> dict[str, str]:
    """What ssh itself makes of the configuration for one host."""
    told = run("ssh", "-G", "-F", lab.folder / "ssh_config", name)
    return dict(line.split(" ", 1) for line in told.splitlines() if " " in line)


@pytest.mark.parametrize("by", ["name", "address"])
def test_ssh_goes_through_the_lab_and_checks_host_keys(lab: labs.Lab, by: str) -> None:
    address = lab.variables()["net"]["ansible_host"]
    settings = settings_of_ssh(lab, "net" if by == "name" else address)
    assert settings["hostname"] == address
    assert settings["stricthostkeychecking"] == "true"
    assert settings["userknownhostsfile"] == str(lab.folder / "known_hosts")
    assert str(lab.network.namespace) in settings["proxycommand"]
    assert "proxyjump" not in settings


def test_ssh_to_a_hidden_host_goes_through_its_neighbour(lab: labs.Lab) -> None:
    settings = settings_of_ssh(lab, "far")
    assert settings["proxyjump"] == "root@alice"
    assert settings_of_ssh(lab, "alice")["identityfile"] == str(lab.key)


def test_an_unknown_host_is_named_with_those_there_are(lab: labs.Lab) -> None:
    with pytest.raises(LabError, match=r"no host 'bob'; it has net, alice, far"):
        lab.machine("bob")


def test_an_unknown_suite_is_named_with_those_there_are() -> None:
    with pytest.raises(LabError, match=r"no base 'sarge'; there are bookworm"):
        base.ensure("sarge")


def test_a_failed_command_says_what_it_said() -> None:
    with pytest.raises(LabError, match=r"ended with 3: no cable"):
        run("sh", "-c", "echo no cable >&2; exit 3")
    with pytest.raises(LabError, match="cannot run"):
        run("/nowhere/at-all")


@pytest.mark.parametrize(
    "text",
    [
        "---\n# what\n_host_packages:\n  base:\n    - nftables\n    - python3-x # why\n"
        "  database: [postgresql, haproxy]\nother:\n  - no\n",
        "_host_packages: [nftables, python3-x, postgresql, haproxy]\n",
        "_host_packages:\n- nftables\n- python3-x\n\n# between\n- postgresql\n- haproxy\n",
    ],
)
def test_packages_are_read_as_yaml_reads_them(text: str) -> None:
    """The lab has no YAML library; a real one says what is right."""
    document = yaml.safe_load(text)["_host_packages"]
    parts = document.values() if isinstance(document, dict) else [document]
    assert sorted(base.listed_packages(text)) == sorted(name for part in parts for name in part)


def test_the_packages_of_the_roles_are_kept_warm() -> None:
    document = yaml.safe_load((CHECKOUT / base.PACKAGE_LISTS[0]).read_text())["_host_packages"]
    assert {name for part in document.values() for name in part} <= set(base.warm_packages())


def test_a_base_is_made_again_when_what_it_is_made_from_changes() -> None:
    assert base.digest(["a"]) == base.digest(["a"])
    assert base.digest(["a"]) != base.digest(["b"])


def test_a_mirror_that_is_given_goes_before_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYGRID_LAB_MIRROR_DEBIAN", "http://mirror.example/debian")
    assert [(source.uri, source.release) for source in recipe.package_sources("trixie")] == [
        ("http://mirror.example/debian", "trixie"),
        ("http://mirror.example/debian", "trixie-updates"),
    ]


def test_scenarios_say_whether_their_hosts_are_a_labs() -> None:
    assert images(CHECKOUT / "molecule" / "lab") == {Host.image}
    assert images(CHECKOUT / "molecule" / "default") == set()


def test_relay_carries_bytes_both_ways_until_each_side_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            connection, _address = server.accept()
            with connection:
                while block := connection.recv(1 << 16):
                    connection.sendall(block)

        threading.Thread(target=echo, daemon=True).start()
        sent = bytes(range(256)) * 4096
        port = str(server.getsockname()[1])
        command = [sys.executable, "-IS", relay.__file__, "127.0.0.1", port]
        done = subprocess.run(command, input=sent, capture_output=True, timeout=30, check=True)
    assert done.stdout == sent


def test_relay_says_what_it_cannot_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = str(closed.getsockname()[1])
    command = [sys.executable, "-IS", relay.__file__, "127.0.0.1", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"cannot reach 127.0.0.1 port {port}" in done.stderr


def test_control_groups_of_this_machine_are_found() -> None:
    found = hierarchies()
    assert all((folder / "cgroup.procs").exists() for folder in found)


def test_the_command_line_prints_an_inventory_that_ansible_reads(lab: labs.Lab, tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"all": {"hosts": lab.variables()}}))
    told = json.loads(run("ansible-inventory", "-i", file, "--list"))
    assert told["_meta"]["hostvars"]["net"]["ansible_host"] == lab.network.address(lab.hosts["net"].number)


def test_a_command_enters_its_group_before_it_runs() -> None:
    words = enter(labs.Lab("x").network.group, "true")
    assert words[-1] == "true"
    assert all(f"{hierarchy}/" in " ".join(words) for hierarchy in hierarchies())
