# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface is written down once: argument_specs, with defaults that are the roles' defaults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.inventory.manager import IGNORED

from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import beside_inventory

CHECKOUT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parents[1].name for path in CHECKOUT.glob("roles/*/meta/argument_specs.yml"))


def options(role: str) -> dict:
    specs = yaml.safe_load((CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    return {name: option for spec in specs.values() for name, option in (spec.get("options") or {}).items()}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_the_documented_ones(role: str) -> None:
    defaults = yaml.safe_load((CHECKOUT / "roles" / role / "defaults" / "main.yml").read_text()) or {}
    documented = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert defaults == documented


def test_each_variable_is_documented_in_one_place() -> None:
    names = [name for role in ROLES for name in options(role)]
    assert sorted(names) == sorted(set(names))


def test_every_variable_that_is_used_is_documented() -> None:
    known = {name for role in ROLES for name in options(role)}
    groups = {"pygrid_network", "pygrid_domain", "pygrid_worker", "pygrid_spare"}
    groups |= {"pygrid_scale", "pygrid_scale_staying", "pygrid_resize_order"}  # of a run
    groups |= {"pygrid_rollout", "pygrid_rollout_failed", "pygrid_made", "pygrid_image_plan", "pygrid_resize_machines"}
    groups |= {"pygrid_foreign"}  # what is no node
    groups |= {"pygrid_grid", "pygrid_role", "pygrid_name", "pygrid_public", "pygrid_data_of"}  # tags in a cloud
    groups |= {"pygrid_address_of", "pygrid_image_of", "pygrid_image_base", "pygrid_image_made", "pygrid_resizing"}
    used = set()
    for folder in ("roles", "playbooks", "inventories"):
        for file in (CHECKOUT / folder).rglob("*.yml"):
            used |= set(re.findall(r"(?<![\w.])pygrid_[a-z0-9_]+", file.read_text()))
    assert used - known - groups - {"pygrid_node"} == set()


def test_what_is_kept_beside_an_inventory_is_no_part_of_it() -> None:
    """Ansible reads every file of a folder that it takes for hosts: a password would become the name of one."""
    kept = beside_inventory()
    assert kept.keys() == {
        name
        for role in ROLES
        for name, option in options(role).items()
        if "inventory_dir" in str(option.get("default"))
    }
    assert {"pygrid_pki_directory", "pygrid_backup_password_file"} <= kept.keys()
    assert [name for name, path in kept.items() if not IGNORED.search(path.partition("/")[0].encode())] == []


def test_reference_is_up_to_date() -> None:
    subprocess.run([sys.executable, CHECKOUT / "docs" / "reference.py", "--check"], check=True)


def test_switches_are_read_as_words_too() -> None:
    """With ``-e name=false`` a switch is the word "false", which Jinja takes for true."""
    switches = {name for role in ROLES for name, option in options(role).items() if option["type"] == "bool"}
    before, as_switch = r"(?:when:|- not|\bif|\bor|\band|\() (?:not )?", r"(?: *\| *default\(\w+\))? *\| *bool"
    conditions = re.compile(rf"{before}({'|'.join(switches)})\b(?!{as_switch})")
    for folder in ("roles", "playbooks"):
        for file in (CHECKOUT / folder).rglob("*.yml"):
            for line in file.read_text().splitlines():
                assert line.lstrip().startswith("#") or not conditions.search(line), f"{file}: {line}"


def test_plays_leave_out_machines_to_spare() -> None:
    """A machine to spare may be in the group of all nodes, a Worker that is one now in that of Workers."""
    for file in (CHECKOUT / "playbooks").glob("*.yml"):
        for play in yaml.safe_load(file.read_text()):
            hosts = str(play.get("hosts", ""))
            if re.fullmatch(r"pygrid(_worker)?(:.*)?", hosts):
                assert ":!~(pygrid_spare|ungrouped)$" in hosts, f"{file}: {hosts}"
