# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every inventory plugin of a cloud does: ask, choose, cache, and put hosts into the inventory.

A plugin of a cloud derives from CloudInventory and says what its cloud needs: ``places``, ``list_machines``,
``explain`` (docs/inventories.md shows how one is written).
"""

from __future__ import annotations

import hashlib
import importlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.in_parallel import Limits, PassingError, ask_all
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import (
    FACTS,
    FAILED,
    Choice,
    Found,
    Machine,
    find_hosts,
    host_variables,
)

# What the options below change is only what is made of the machines, so that a cache serves all of them.
OF_NO_MATTER = frozenset({
    "addresses", "cache", "cache_connection", "cache_plugin", "cache_prefix", "cache_timeout", "compose", "grids",
    "groups", "hostnames", "keyed_groups", "leading_separator", "limit_seconds", "partial", "plugin", "strict",
    "threads", "use_extra_vars",
})  # fmt: skip


class CloudInventory(BaseInventoryPlugin, Constructable, Cacheable):
    """Base of the inventory plugins; see the methods without a body for what a cloud has to say."""

    #: The cloud's name, as people say it.
    CLOUD: ClassVar[str]
    #: What has to be importable, each with the package on PyPI that brings it.
    NEEDS: ClassVar[tuple[tuple[str, str], ...]]

    @abstractmethod
    def places(self) -> Iterable[str]:
        """What is asked side by side: regions, projects, subscriptions.

        Raises:
            PygridError: they cannot be worked out.
        """

    @abstractmethod
    def list_machines(self, place: str) -> Iterable[Machine]:
        """All machines of one place that have a tag ``pygrid_grid``, all pages of them. Called in a thread of its own.

        Whatever it raises is given to ``explain``.
        """

    @abstractmethod
    def explain(self, error: Exception, place: str) -> PygridError:
        """An exception of the SDK as something that a person can act on; a PassingError if it is worth another try."""

    def connection(self, machine: Machine) -> dict[str, Any]:
        """Variables that say how Ansible reaches a machine, where that is not SSH to its address."""
        return {}

    def verify_file(self, path: str) -> bool:
        """Whether it may be a file of ours: any YAML file (which plugin it is for stands inside)."""
        return super().verify_file(path) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory with the hosts of the cloud, or raise AnsibleParserError and leave a mark."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            found = find_hosts(self._machines(cache), self._choice())
            self._refuse(found)
        except PygridError as error:
            sentence = f"{self.CLOUD} ({path}): {error}"
            failed = [*(inventory.groups["all"].vars.get(FAILED) or []), sentence]
            inventory.set_variable("all", FAILED, failed)
            raise AnsibleParserError(sentence) from error
        self._publish(found)

    def seconds(self) -> int:
        """How long one call may wait for an answer, so that there is time for another try."""
        return max(5, int(self.get_option("limit_seconds")) // 3)

    def _choice(self) -> Choice:
        return Choice(*(self.get_option(name) for name in ("grids", "filters", "hostnames", "addresses")))

    def _refuse(self, found: Found) -> None:
        problems = found.conflicts if self._is_partial() else [*found.conflicts, *found.problems]
        if problems:
            remedy = "" if found.conflicts else "\n  partial: warn leaves them out"
            raise PygridError("\n  ".join(["no hosts were made of its machines", *problems]) + remedy)
        for problem in found.problems:
            self.display.warning(f"{self.CLOUD}: left out, {problem}")

    def _is_partial(self) -> bool:
        return self.get_option("partial") == "warn"

    def _machines(self, cache: bool) -> list[Machine]:
        if not self.get_option("cache"):
            return self._ask()
        self.load_cache_plugin()
        key = self._key()
        if cache and key in self._cache:
            return [Machine(**facts) for facts in json.loads(self._cache[key])]
        machines = self._ask()
        # As one text: cache plugins that keep JSON files spend most of their time on nested values otherwise.
        self._cache[key] = json.dumps([vars(machine) for machine in machines])
        return machines

    def _key(self) -> str:
        """Machines that somebody with other options (another account, for one) found are not ours."""
        options = {name: value for name, value in self.get_options().items() if name not in OF_NO_MATTER}
        text = json.dumps(options, sort_keys=True, default=str)
        return f"{self.NAME.rpartition('.')[2]}_{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _ask(self) -> list[Machine]:
        self._import()
        self._check_filters()
        limits = Limits(self.get_option("limit_seconds"), self.get_option("threads"))
        answers = ask_all(self._explained("", lambda _place: list(self.places())), self._list, limits, self._tell)
        problems = [f"{place}: {reason}" for place, reason in answers.failed.items()]
        if problems and not (self._is_partial() and answers.good):
            raise PygridError("\n  ".join(["not all of it could be listed", *problems]))
        for problem in problems:
            self.display.warning(f"{self.CLOUD}: left out, {problem}")
        # Some clouds have one list for all of their regions.
        regions = self.get_option("regions")
        found = (machine for machines in answers.good.values() for machine in machines)
        return [machine for machine in found if not regions or machine.region in regions]

    def _list(self, place: str) -> list[Machine]:
        return self._explained(place, lambda place: list(self.list_machines(place)))

    def _explained(self, place: str, call: Callable[[str], Any]) -> Any:
        try:
            return call(place)
        except PygridError:
            raise
        except Exception as error:  # SDKs promise no common class
            raise self.explain(error, place) from error

    def _tell(self, sentence: str) -> None:
        self.display.v(f"{self.CLOUD}: {sentence}")

    def _import(self) -> None:
        missing = []
        for module, package in self.NEEDS:
            try:
                importlib.import_module(module)
            except ImportError:
                missing.append(package)
        if missing:
            raise PygridError(
                f"the Python that runs Ansible has no {' and no '.join(missing)}; install it there:"
                f" python -m pip install {' '.join(missing)}"
            )

    def _check_filters(self) -> None:
        wrong = [name for name in self.get_option("filters") if name not in FACTS and not name.startswith("tag:")]
        if wrong:
            raise PygridError(f"filters: {', '.join(wrong)} is none of {', '.join(FACTS)} and tag:NAME")

    def _publish(self, found: Found) -> None:
        inventory = self.inventory
        inventory.add_group("pygrid")
        for host, group, variables in host_variables(found):
            if group not in inventory.groups:
                inventory.add_group(group)
                # A machine to spare is none of the grid's nodes, though it is one of its groups.
                inventory.add_child("pygrid", group)
            inventory.add_host(host, group=group)
            # Not by the inventory's own set_variable: it copies each value to mark every string in it with its origin,
            # which takes longer than all the rest. Ours are copies already, and marked as what they are.
            for name, value in {**variables, **self.connection(found.hosts[host].machine)}.items():
                inventory.hosts[host].set_variable(name, value)
        self._construct(found)

    def _construct(self, found: Found) -> None:
        """What people ask for with Jinja, for those who ask for it: it takes more time than all the rest."""
        compose, groups, keyed_groups = (self.get_option(name) for name in ("compose", "groups", "keyed_groups"))
        if not (compose or groups or keyed_groups):
            return
        strict = self.get_option("strict")
        for host in found.hosts:
            variables = self.inventory.get_host(host).get_vars()
            self._set_composite_vars(compose, variables, host, strict)
            self._add_host_to_composed_groups(groups, variables, host, strict)
            self._add_host_to_keyed_groups(keyed_groups, variables, host, strict)


__all__ = ["CloudInventory", "Machine", "PassingError"]
