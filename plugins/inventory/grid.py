# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a grid as the grid itself knows them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: grid
short_description: The nodes of a grid as the grid itself knows them
version_added: 0.1.0
description:
  - Asks a running Network for its Domains, and each of those for its Workers, and writes what they say into the
    variable C(pygrid_seen) of all hosts. C(playbooks/status.yml) shows then which nodes have no machine in the
    inventory, and which machines have no node that the grid knows.
  - Nodes that no other source of the inventory has become hosts of the group C(pygrid_unmanaged), which is not a part
    of C(pygrid), so that no playbook changes them. Give the file a name that comes last in its folder.
  - Nodes answer when C(pygrid_observer_token_file) was set when they were deployed.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [openmined.pygrid.grid]
  network:
    description: URL of the Network.
    type: str
    required: true
  token_file:
    description:
      - The file of C(pygrid_observer_token_file). Each node is shown a token of its own that is derived from it.
    type: path
    required: true
    env:
      - name: PYGRID_OBSERVER_TOKEN_FILE
  ca_file:
    description: Certificate of the authority that the nodes' certificates are of; the system's ones by default.
    type: path
  client_certificate:
    description: Certificate to show to a Network that asks for one, with its key in O(client_key).
    type: path
  client_key:
    description: Key of O(client_certificate).
    type: path
  partial:
    description:
      - What to do when the Network or a Domain does not answer.
      - V(warn) says so and takes what the others say. It is the default, so that a grid can be mended while a part of
        it is down.
      - V(fail) makes playbooks of this collection refuse to run.
    type: str
    choices: [warn, fail]
    default: warn
  limit_seconds:
    description: How long all answers may take together.
    type: int
    default: 20
  threads:
    description: How many Domains are asked at the same time.
    type: int
    default: 32
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
# inventories/hospital/zz_grid.yml
plugin: openmined.pygrid.grid
network: https://pygrid.hospital.example
token_file: ~/.config/pygrid/observer
ca_file: ~/pygrid/inventories/hospital/.pygrid/pki/current/grid-ca.pem
"""

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.errors import AnsibleParserError
from ansible.module_utils.urls import open_url
from ansible.plugins.inventory import BaseInventoryPlugin

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import is_loopback
from ansible_collections.openmined.pygrid.plugins.plugin_utils.in_parallel import Limits, PassingError, ask_all
from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import FAILED
from ansible_collections.openmined.pygrid.plugins.plugin_utils.observer import node_token, read_token
from ansible_collections.openmined.pygrid.plugins.plugin_utils.seen import SEEN, UNMANAGED, Member, read_members

PATH = "/internal/members"
MOST_BYTES = 16 << 20
REMEDIES = {
    401: "it has another token; deploy it with pygrid_observer_token_file",
    404: "it answers nobody; deploy it with pygrid_observer_token_file",
}


class InventoryModule(BaseInventoryPlugin):
    """Asks the Network, then all of its Domains at once."""

    NAME = "openmined.pygrid.grid"

    def verify_file(self, path: str) -> bool:
        """Whether it may be a file of ours: any YAML file (which plugin it is for stands inside)."""
        return super().verify_file(path) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Note what the nodes say; with ``partial: fail``, raise AnsibleParserError when one says nothing."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self._answered: list[str] = []
        try:
            self._token = read_token(self.get_option("token_file"))
            members, silent = self._members()
        except PygridError as error:
            members, silent = [], [str(error)]
        if silent:
            told = f"the grid ({path}): " + "\n  ".join(silent)
            if self.get_option("partial") == "fail":
                inventory.set_variable("all", FAILED, [*(inventory.groups["all"].vars.get(FAILED) or []), told])
                raise AnsibleParserError(told)
            self.display.warning(told)
        self._publish(members)

    def _members(self) -> tuple[list[Member], list[str]]:
        """All nodes that were told of, and a sentence for each node that did not answer. Notes which Domains did."""
        network = self.get_option("network").rstrip("/")
        limits = Limits(self.get_option("limit_seconds"), self.get_option("threads"))
        first = ask_all([network], lambda url: self._ask(url, "network", ""), limits, self._tell)
        if network in first.failed:
            return [], [f"the Network at {network}: {first.failed[network]}"]
        found = [first.good[network].asked, *first.good[network].members]
        domains = {member.name: member for member in found if member.kind == "domain"}
        answers = ask_all(domains, lambda name: self._ask(domains[name].url, "domain", name), limits, self._tell)
        self._answered = list(answers.good)
        for name, answer in answers.good.items():
            found += [member.of(name) for member in answer.members if member.kind == "worker"]
        return found, [f"the Domain {name} at {domains[name].url}: {why}" for name, why in answers.failed.items()]

    def _ask(self, url: str, kind: str, name: str) -> Any:
        """What one node says. A token is never sent where others could read it."""
        if urlsplit(url).scheme != "https" and not is_loopback(url):
            raise PygridError("it is not asked without TLS; its URL has to begin with https")
        try:
            with open_url(
                f"{url}{PATH}",
                headers={"Authorization": f"Bearer {node_token(self._token, kind, name)}"},
                timeout=max(2, self.get_option("limit_seconds") // 2),
                ca_path=self.get_option("ca_file"),
                client_cert=self.get_option("client_certificate"),
                client_key=self.get_option("client_key"),
                follow_redirects="no",
                use_proxy=False,
                http_agent="openmined.pygrid",
            ) as answer:
                text = answer.read(MOST_BYTES)
        except HTTPError as error:
            remedy = REMEDIES.get(error.code)
            raise (PassingError if error.code in (429, 502, 503, 504) else PygridError)(
                f"{error}; {remedy}" if remedy else str(error)
            ) from error
        except HTTPException as error:
            raise PassingError(f"the answer breaks off: {type(error).__name__}") from error
        except OSError as error:  # names, connections, certificates
            raise PygridError(str(getattr(error, "reason", error))) from error
        try:
            return read_members(json.loads(text), url, kind)
        except (ValueError, RecursionError):
            raise PygridError("what answers there is no node of ours") from None

    def _tell(self, sentence: str) -> None:
        self.display.v(f"the grid: {sentence}")

    def _publish(self, members: list[Member]) -> None:
        inventory = self.inventory
        known = {host.get_vars().get("pygrid_name") or name for name, host in inventory.hosts.items()}
        seen = {"nodes": [member.as_variable() for member in members], "answered": self._answered}
        inventory.set_variable("all", SEEN, seen)
        for member in members:
            if member.name not in known:
                inventory.add_group(UNMANAGED)
                inventory.add_host(member.name, group=UNMANAGED)
                if member.url:
                    inventory.set_variable(member.name, "ansible_host", urlsplit(member.url).hostname)
