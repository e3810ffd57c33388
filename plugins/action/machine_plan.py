# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of openmined.pygrid.machine_plan: runs on the controller and asks neither a cloud nor a host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.openmined.pygrid.plugins.plugin_utils import machine_plan
from ansible_collections.openmined.pygrid.plugins.plugin_utils.access import access
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import find_problems
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_reader import Problems, nodes_and_spare, read_grid
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machine_plan import Entry, Plan, Present
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import FAILED, GROUPS
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale import as_numbers
from ansible_collections.openmined.pygrid.plugins.plugin_utils.scale_file import place_of


class ActionModule(ActionBase):
    """Make the plan, or fail with everything that speaks against it."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan, and who may connect to which kind of node when it is carried out."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        given = self._task.args
        failed = [f"not all machines could be seen: {told}" for told in task_vars.get(FAILED) or []]
        entries = [_entry(values) for values in given["machines"]]
        numbers = as_numbers(given.get("workers"))
        wrong = [*failed, *machine_plan.problems(given["grid"], entries), *_no_numbers(numbers)]
        if wrong:
            return _refusal(result, wrong)
        hosts, spare = nodes_and_spare(task_vars["groups"])
        present = list(_present([*hosts, *spare], task_vars["hostvars"]))
        workers = {name: int(number) for name, number in numbers.items()}
        only_workers = boolean(given.get("only_workers", False))
        if only_workers:
            entries = machine_plan.only_workers(entries, list(workers))
        free = len(_free(spare, hosts, task_vars["hostvars"])) if only_workers else 0
        plan = machine_plan.make_plan(given["grid"], entries, given.get("zones") or [], workers, present, free)
        rules, problems = self._rules(task_vars["hostvars"], hosts, spare, plan)
        if problems:
            return _refusal(result, [f"{host}: {problem}" for host, problem in dict.fromkeys(problems)])
        return {
            **result,
            "changed": False,
            **plan.as_data(),
            "attempts": list(range(max((len(new.zones) for new in plan.new), default=0))),
            "rules": rules,
            "resizes": machine_plan.resizes(plan),
            "scale_file": str(place_of("", task_vars.get("ansible_inventory_sources") or []) or ""),
            "text": machine_plan.plan_text(plan),
        }

    def _rules(
        self, hostvars: Any, hosts: Sequence[str], spare: Sequence[str], plan: Plan
    ) -> tuple[dict[str, Any], Problems]:
        """Rules of the grid as it is to be, and what is wrong with that grid.

        The inventory that is changed here is a copy: an action runs in a child of the process that a person started.
        """
        inventory = hostvars._inventory
        to_come = {new.host: (GROUPS[new.role], new.domain) for new in plan.new if new.role != "spare"}
        workers = {domain for group, domain in to_come.values() if group == GROUPS["worker"]}
        workers |= {machine.domain for machine in plan.present if machine.role == "worker"}
        domains = [host for host, (group, _domain) in to_come.items() if group == GROUPS["domain"]]
        domains += [machine.host for machine in plan.present if machine.role == "domain"]
        # So that the rules stay as they are when Workers come and go, each Domain has one here.
        to_come |= {f"{domain}-w0": (GROUPS["worker"], domain) for domain in domains if domain not in workers}
        for host, (group, domain) in to_come.items():
            for name in ("pygrid", group):
                if name not in inventory.groups:
                    inventory._inventory.add_group(name)
            inventory._inventory.add_child("pygrid", group)
            inventory.add_host(host, group)
            inventory._inventory.set_variable(host, "ansible_host", host)
            if domain:
                inventory._inventory.set_variable(host, "pygrid_worker_domain", domain)
        inventory.reconcile_inventory()
        problems: Problems = []
        grid = read_grid(hostvars, [*hosts, *to_come], spare, problems)
        if not problems:
            problems += find_problems(grid)
        if problems:
            return {}, problems
        administrators = self._task.args.get("administrators") or []
        return access(grid.as_data(), {host: hostvars[host] for host in grid.nodes}, administrators), []


def _no_numbers(numbers: Mapping[str, Any]) -> Iterator[str]:
    for name, number in numbers.items():
        if not str(number).isdecimal():
            yield f"pygrid_domain_workers: {name} is to have {number!r} Workers, which is no number"


def _free(spare: Sequence[str], hosts: Sequence[str], hostvars: Any) -> list[str]:
    """Spare machines that carry no node."""
    taken = {str(hostvars[host].get("ansible_host", host)) for host in hosts}
    return [host for host in spare if str(hostvars[host].get("ansible_host", host)) not in taken]


def _refusal(result: dict[str, Any], problems: Sequence[str]) -> dict[str, Any]:
    return {**result, "failed": True, "msg": "\n  ".join(["Nothing was changed.", *problems])}


def _entry(values: Mapping[str, Any]) -> Entry:
    """An entry without what was left out, which argument_specs gives as None."""
    return Entry(**{name: value for name, value in values.items() if value is not None})


def _present(hosts: Sequence[str], hostvars: Any) -> Iterator[Present]:
    """Those of the hosts that a cloud has told of; others are not ours to make."""
    roles = {group: role for role, group in GROUPS.items()}
    for host in hosts:
        facts = hostvars[host].get("pygrid_machine")
        if facts:
            kinds = [roles[group] for group in hostvars[host]["group_names"] if group in roles]
            yield Present(host, kinds[0], hostvars[host].get("pygrid_worker_domain", ""), dict(facts))
