# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.scale_plan: runs on the controller and sends nothing to any host."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.plugin_utils import scale, scale_file
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale import Plan, Step, Wanted
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale_file import COMING, GOING, JOINING, LEAVING
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import beside_inventory

# How a machine is reached and what it has; a Worker that is placed on it takes these from the host that stands for it.
CONNECTION = (
    "ansible_become", "ansible_connection", "ansible_docker_", "ansible_host", "ansible_paramiko_",
    "ansible_password", "ansible_pipelining", "ansible_port", "ansible_private_key_file",
    "ansible_python_interpreter", "ansible_remote_tmp", "ansible_scp_", "ansible_sftp_", "ansible_shell_",
    "ansible_ssh_", "ansible_sudo_", "ansible_timeout", "ansible_user",
)  # fmt: skip
MACHINE = (
    "pygrid_address", "pygrid_bundle", "pygrid_firewall", "pygrid_home", "pygrid_listen_address",
    "pygrid_managed_python", "pygrid_no_proxy", "pygrid_package_cache", "pygrid_package_index",
    "pygrid_pki_directory", "pygrid_proxy", "pygrid_python",
)  # fmt: skip


class ActionModule(ActionBase):
    """Make the plan, or fail with everything that speaks against it."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan; with ``ask`` only whom one has to ask before."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        given, hostvars = self._task.args, task_vars["hostvars"]
        grid = given["grid"]
        machines: dict[str, list[str]] = {}
        for machine in given.get("machines") or []:
            machines.setdefault(machine["domain"], []).append(machine["host"])
        wanted = Wanted(scale.as_numbers(given.get("workers")), scale.as_list(given.get("joined")), machines)
        sources = task_vars.get("ansible_inventory_sources") or []
        place = scale_file.place_of(given.get("file") or "", sources)
        problems = [*scale.problems(grid, wanted), *_file_problems(place, sources)]
        if problems or place is None:
            return {**result, "failed": True, "msg": "\n  ".join(["Nothing was changed.", *problems])}
        record = scale_file.read(place)
        if given.get("ask"):
            return {**result, "changed": False, "file": str(place), "ask": scale.to_ask(grid, record, wanted)}
        states = {host: hostvars[host]["__node_state"] for host in grid["nodes"] if "__node_state" in hostvars[host]}
        plan = scale.make_plan(grid, record, wanted, states)
        new = [(step, hostvars[step.carrier], _inherited(step.host, hostvars)) for step in plan.steps if step.new]
        secrets = [sentence for facts in new for sentence in _secret_problems(*facts)]
        if secrets:
            return {**result, "failed": True, "msg": "\n  ".join(["Nothing was changed.", *secrets])}
        return {
            **result,
            "changed": False,
            "file": str(place),
            "steps": [asdict(step) for step in plan.steps],
            "notes": plan.notes,
            "coming": plan.hosts(COMING),
            "going": plan.hosts(GOING),
            "joining": plan.hosts(JOINING),
            "leaving": plan.hosts(LEAVING),
            "settling": list(dict.fromkeys(_settling(grid, plan))),
            "variables": {facts[0].host: _variables(*facts, place) for facts in new},
            "text": scale.plan_text(grid, plan),
        }


def _file_problems(place: Path | None, sources: Iterable[str]) -> Iterator[str]:
    """What is decided has to be found by the next run, or that would undo it."""
    if place is None:
        yield "the inventory is no file; say with pygrid_scale_file where what is decided here is to be kept"
    elif not place.parent.is_dir() or not os.access(place.parent, os.W_OK):
        yield f"what is decided here is kept in {place}, and {place.parent} is no folder that this account may write to"
    elif not scale_file.is_read(place, sources):
        yield (
            f"what is decided here is kept in {place}, which is no part of this run's inventory; give the folder"
            f" (-i {place.parent}), or that file too, though it need not be there yet (-i {place})"
        )


def _settling(grid: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    """Who else has to know: the Domain, and on each machine concerned somebody who sees to what its nodes share."""
    going = set(plan.hosts(GOING))
    for step in plan.steps:
        yield step.domain
        if step.what in (JOINING, LEAVING):
            yield from filter(None, [grid["network"]])
            continue
        database = grid["nodes"][step.domain]["database"] or {}
        yield from filter(None, [database.get("on")])
        neighbours = (grid["hosts"].get(step.location) or {}).get("nodes") or []
        if step.what == GOING and grid["scope"] == "system":
            yield from [host for host in neighbours if host not in going][:1]


def _inherited(host: str, hostvars: Any) -> Mapping[str, Any]:
    """The variables that a new Worker gets from its groups, wherever those have them from.

    The inventory that is changed here is a copy: an action runs in a child of the process that a person started.
    """
    hostvars._inventory.add_host(host, "pygrid_worker")
    hostvars._inventory.reconcile_inventory()
    return hostvars[host]


def _variables(step: Step, carrier: Mapping[str, Any], inherited: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The variables that a new Worker needs of its own: how its machine is reached, but for secrets."""
    found: dict[str, Any] = {"pygrid_worker_domain": step.domain, "pygrid_worker_port": step.port}
    if "ansible_host" not in carrier and carrier.get("ansible_connection") != "local":
        found["ansible_host"] = step.carrier
    for name in sorted(name for name in carrier if name.startswith(CONNECTION + MACHINE) and "pass" not in name):
        if name not in inherited or inherited[name] != carrier[name]:
            found[name] = carrier[name]
    folder = carrier.get("inventory_dir")
    if folder and Path(folder) != place.parent:  # it would look beside its own file
        found |= {name: f"{folder}/{path}" for name, path in beside_inventory().items() if name not in carrier}
    return found


def _secret_problems(step: Step, carrier: Mapping[str, Any], inherited: Mapping[str, Any]) -> Iterator[str]:
    for name in carrier:
        if name.startswith(CONNECTION) and "pass" in name and name not in inherited:
            yield (
                f"{name} is needed to reach {step.location} and stands with {step.carrier} alone; give it to a group,"
                f" pygrid for example, so that {step.host} has it too: secrets are not copied"
            )
