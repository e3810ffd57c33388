#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.firewall."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Let a machine talk to exactly those that its grid needs
version_added: 0.2.0
description:
  - Keeps a table C(inet pygrid) of nftables, its file C(/etc/pygrid/firewall.nft) and the unit
    C(pygrid-firewall.service) that loads it at boot. Rules of others, in other tables, are neither read nor touched.
  - Ports of the grid accept exactly the sources named. Other ports are left alone unless O(rules.deny_others) is true.
  - Accounts of Workers can send to exactly what is named, and the nodes' own ports on loopback answer exactly the
    accounts named.
  - Where firewalld or ufw runs it is told in addition which ports to open, in a policy C(pygrid) of its own or in rules
    with the comment C(pygrid).
  - The live rules are compared with the wanted ones, so rules that were changed or flushed by hand come back.
  - Names of hosts are resolved on the machine when the module runs; one that does not resolve is refused. Accounts
    that are not there yet are left out, with a warning.
extends_documentation_fragment:
  - openmined.pygrid.attributes
options:
  state:
    description: V(absent) removes everything that this module made, and nothing else.
    type: str
    choices: [present, absent]
    default: present
  kind:
    description:
      - Which firewall is told to open ports. V(auto) is firewalld or ufw where that is active, else nftables.
      - V(nftables) opens nothing elsewhere. V(none) is the same as O(state=absent).
    type: str
    choices: [auto, nftables, firewalld, ufw, none]
    default: auto
  rules:
    description: What has to be able to talk to what, as P(openmined.pygrid.firewall_rules#filter) makes it.
    type: dict
    default: {}
    suboptions:
      incoming:
        description: Ports that other machines use. A port with several entries accepts the sources of all of them.
        type: list
        elements: dict
        suboptions:
          port:
            description: The port, TCP.
            type: int
            required: true
          sources:
            description: Addresses, CIDRs or names that may connect; nobody when empty.
            type: list
            elements: str
            required: true
          why:
            description: One sentence; it becomes the rule's comment.
            type: str
            required: true
      local:
        description: Ports on this machine that only some of its accounts may connect to.
        type: list
        elements: dict
        suboptions:
          address:
            description: Address that is listened on.
            type: str
            required: true
          port:
            description: The port, TCP.
            type: int
            required: true
          accounts:
            description: The accounts that may connect.
            type: list
            elements: str
            required: true
          name:
            description: Name of the counter of what was refused.
            type: str
            required: true
      egress:
        description: Accounts that may send to nothing but what is named.
        type: list
        elements: dict
        suboptions:
          account:
            description: The account.
            type: str
            required: true
          name:
            description: Name of the counter of what was refused.
            type: str
            required: true
          to:
            description: Services it may use.
            type: list
            elements: dict
            required: true
            suboptions:
              address:
                description: Address or name of the service.
                type: str
                required: true
              port:
                description: Its port, TCP.
                type: int
                required: true
              why:
                description: One sentence; it becomes the rule's comment.
                type: str
                required: true
          networks:
            description: Networks it may reach on any port. They do not open services of this machine.
            type: list
            elements: str
            default: []
          everywhere:
            description: It may reach everything that is not on this machine.
            type: bool
            default: false
          answers:
            description: Where the account itself listens, and so has to be able to answer.
            type: list
            elements: dict
            default: []
            suboptions:
              address:
                description: Address that is listened on.
                type: str
                required: true
              port:
                description: The port, TCP.
                type: int
                required: true
      deny_others:
        description:
          - Close all other ports of the machine, too. SSH, established connections, DHCP and the ICMP that networks
            need stay open.
        type: bool
        default: false
  ssh_ports:
    description:
      - Ports of SSH that O(rules.deny_others) leaves open, beside those of the current session, of sshd's configuration
        and of what sshd listens on.
    type: list
    elements: int
    default: []
requirements:
  - root, nftables, systemd
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Let in data scientists, and the Workers of one machine to the queue
  openmined.pygrid.firewall:
    rules:
      incoming:
        - {port: 443, sources: [0.0.0.0/0, "::/0"], why: data scientists use alice}
        - {port: 5500, sources: [workers.example], why: Workers take jobs of alice}

- name: Remove the rules
  openmined.pygrid.firewall:
    state: absent
"""

RETURN = r"""
kind:
  description: The firewall that ports are opened in, V(none) when there is none any more.
  returned: always
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_names import (
    addresses_of,
    name_servers,
    names_in_hosts_file,
    uid_of,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_openings import Firewalld, Ufw
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_rules import Numbers, Rules, render
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_ssh import ssh_ports
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_table import Difference, Table

PLACE = {"address": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}
WHY = {"type": "str", "required": True}
NAME = {"type": "str", "required": True}
RULES = {
    "incoming": {
        "type": "list",
        "elements": "dict",
        "options": {
            "port": {"type": "int", "required": True},
            "sources": {"type": "list", "elements": "str", "required": True},
            "why": WHY,
        },
    },
    "local": {
        "type": "list",
        "elements": "dict",
        "options": {
            **PLACE,
            "accounts": {"type": "list", "elements": "str", "required": True},
            "name": NAME,
        },
    },
    "egress": {
        "type": "list",
        "elements": "dict",
        "options": {
            "account": {"type": "str", "required": True},
            "name": NAME,
            "to": {"type": "list", "elements": "dict", "required": True, "options": {**PLACE, "why": WHY}},
            "networks": {"type": "list", "elements": "str", "default": []},
            "everywhere": {"type": "bool", "default": False},
            "answers": {"type": "list", "elements": "dict", "default": [], "options": PLACE},
        },
    },
    "deny_others": {"type": "bool", "default": False},
}


def choose(kind: str) -> str:
    """The firewall that opens ports on this machine."""
    if kind in ("auto", "firewalld") and Firewalld.is_active():
        return "firewalld"
    if kind in ("auto", "ufw") and Ufw.is_active():
        return "ufw"
    if kind in ("firewalld", "ufw"):
        raise PygridError(
            f"pygrid_firewall is {kind}, but {kind} is not active on this machine;"
            " start it or set pygrid_firewall to auto"
        )
    return "nftables" if kind == "auto" else kind


def wanted_rules(parameters: dict[str, Any]) -> tuple[Rules, list[str]]:
    """The rules in addresses and numbers, and the accounts that have none; a PygridError names what is wrong."""
    numbers = Numbers(addresses_of, uid_of, names_in_hosts_file(), name_servers())
    wanted = parameters["rules"]
    rules = numbers.rules(wanted, ssh_ports(parameters["ssh_ports"]) if wanted.get("deny_others") else [])
    problems = list(numbers.problems)
    if rules.ssh_ports == ():
        problems.append(
            "pygrid_firewall_deny_others is true, but no port of SSH was found that would have to stay open;"
            " set ansible_port"
        )
    if problems:
        raise PygridError("; ".join(problems))
    return rules, list(dict.fromkeys(numbers.missing_accounts))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "kind": {
                "type": "str",
                "choices": ["auto", "nftables", "firewalld", "ufw", "none"],
                "default": "auto",
            },
            "rules": {"type": "dict", "default": {}, "options": RULES},
            "ssh_ports": {"type": "list", "elements": "int", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        kind = choose(module.params["kind"]) if module.params["state"] == "present" else "none"
        rules, missing = wanted_rules(module.params) if kind != "none" else (None, [])
        openings = rules.openings if rules else None
        parts = [
            Table(render(rules) if rules else None),
            Firewalld(openings if kind == "firewalld" else None),
            Ufw(openings if kind == "ufw" else None),
        ]
        differences: list[Difference] = []
        for part in parts:
            different = part.differences(module.check_mode)
            differences += different
            if different and not module.check_mode:
                part.apply()
    except PygridError as error:
        module.fail_json(msg=f"firewall: {error}")
    # before the first deploy a dry run finds none of them yet
    if missing and not module.check_mode:
        module.warn(
            f"no account {', '.join(missing)} on this machine: the rules for it come with the deploy that makes it"
        )
    diff = [
        {"before_header": one.name, "after_header": one.name, "before": one.before, "after": one.after}
        for one in differences
    ]
    module.exit_json(changed=bool(differences), kind=kind, diff=diff)


if __name__ == "__main__":
    main()
