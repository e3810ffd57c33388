#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.reachability."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reachability
short_description: Try whether the machines of a grid reach each other, before anything is installed
version_added: 0.2.0
description:
  - With O(listen) it listens on those of the ports that nothing uses yet, and returns at once. A process of its own
    answers visitors until all that are expected have come or O(seconds) are over; then nothing is left of it.
  - With O(connect) it connects to others and tells apart what can become of that.
  - A visitor shows a random token and is told from where it was seen to come, and whether the firewall of the grid will
    let that in. Nothing else is sent, and ports that something uses already are only connected to.
  - It changes nothing, so it does the same in check mode.
extends_documentation_fragment:
  - openmined.pygrid.attributes.info
options:
  listen:
    description: Ports to listen on.
    type: list
    elements: dict
    suboptions:
      port:
        description: The port, TCP.
        type: int
        required: true
      sources:
        description: Addresses, CIDRs or names that the firewall of the grid will let in.
        type: list
        elements: str
        required: true
      expected:
        description: How many visitors will come.
        type: int
        required: true
  connect:
    description: Where to connect to.
    type: list
    elements: dict
    suboptions:
      address:
        description: Address or name.
        type: str
        required: true
      port:
        description: The port, TCP.
        type: int
        required: true
      token:
        description: Token of the listener there; without it a connection is enough.
        type: str
  end:
    description: Token of the listener on this machine that is to end now, because some of its visitors will not come.
    type: str
  firewall:
    description:
      - The firewall that a deploy manages on this machine, see O(openmined.pygrid.firewall#module:kind).
      - For O(listen). What it refuses now, a deploy will open.
    type: str
    choices: [auto, nftables, firewalld, ufw, none]
    default: none
  seconds:
    description: How long to listen at most.
    type: int
    default: 30
  timeout_seconds:
    description: How long one connection may take.
    type: float
    default: 3
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Wait for a visitor
  openmined.pygrid.reachability:
    listen:
      - {port: 5500, sources: [10.0.0.0/8], expected: 1}
  register: listener

- name: Visit
  openmined.pygrid.reachability:
    connect:
      - {address: alice.example, port: 5500, token: "{{ hostvars.alice.listener.token }}"}
  delegate_to: worker
"""

RETURN = r"""
token:
  description: What visitors have to show.
  returned: with O(listen)
  type: str
listening:
  description: The ports that are listened on.
  returned: with O(listen)
  type: list
  elements: int
in_use:
  description: Who uses the other ports, by port.
  returned: with O(listen)
  type: dict
opens:
  description: The firewall that runs on this machine and that a deploy tells to open ports; empty when there is none.
  returned: with O(listen)
  type: str
problems:
  description: One sentence for each source that does not resolve.
  returned: with O(listen)
  type: list
  elements: str
visits:
  description:
    - One entry for each of O(connect), in its order, with C(address), C(port), C(result), C(detail), C(seen_from) and
      C(let_in).
    - C(result) is V(ok), V(open) (something answers, nothing was asked), V(other) (another program answers), V(refused)
      (nothing listens), V(rejected) (a firewall says no), V(filtered) (no answer), V(no route) or V(no address).
  returned: with O(connect)
  type: list
  elements: dict
"""

import secrets
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
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_rules import Numbers
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_table import Table
from ansible_collections.openmined.pygrid.plugins.module_utils.reachability_listener import (
    TOKEN_BYTES,
    Port,
    end,
    in_background,
    listen,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.reachability_visitor import visit_all


def opened_by_a_deploy(firewall: str) -> str:
    """Name of what runs on this machine, may refuse visitors now, and will be told by a deploy to let them in."""
    if firewall in ("auto", "firewalld") and Firewalld.is_active():
        return "firewalld"
    if firewall in ("auto", "ufw") and Ufw.is_active():
        return "ufw"
    if firewall != "none" and Table.is_there():
        return "the rules of an earlier deploy"
    return ""


def wait_for_visitors(parameters: dict[str, Any]) -> dict[str, Any]:
    """Start listening; returns what visitors have to know."""
    numbers = Numbers(addresses_of, uid_of, names_in_hosts_file(), name_servers())
    ports = [
        Port(entry["port"], numbers.networks(entry["sources"], f"port {entry['port']}"), entry["expected"])
        for entry in parameters["listen"]
    ]
    in_use = listen(ports)
    token = secrets.token_hex(TOKEN_BYTES)
    listening = [port.number for port in ports if port.server]
    if listening:
        in_background(ports, token, parameters["seconds"])
    return {
        "token": token,
        "listening": listening,
        "in_use": {str(port): holder for port, holder in in_use.items()},
        "opens": opened_by_a_deploy(parameters["firewall"]),
        "problems": numbers.problems,
    }


def main() -> None:
    """Run the module."""
    place = {"port": {"type": "int", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "listen": {
                "type": "list",
                "elements": "dict",
                "options": {
                    **place,
                    "sources": {"type": "list", "elements": "str", "required": True},
                    "expected": {"type": "int", "required": True},
                },
            },
            "connect": {
                "type": "list",
                "elements": "dict",
                "options": {
                    **place,
                    "address": {"type": "str", "required": True},
                    # not a secret: it proves for a few seconds that a listener is the one that was started
                    "token": {"type": "str", "no_log": False},
                },
            },
            "end": {"type": "str"},
            "firewall": {
                "type": "str",
                "choices": ["auto", "nftables", "firewalld", "ufw", "none"],
                "default": "none",
            },
            "seconds": {"type": "int", "default": 30},
            "timeout_seconds": {"type": "float", "default": 3},
        },
        required_one_of=[("listen", "connect", "end")],
        mutually_exclusive=[("listen", "connect", "end")],
        supports_check_mode=True,
    )
    try:
        if module.params["listen"] is not None:
            module.exit_json(changed=False, **wait_for_visitors(module.params))
        if module.params["end"]:
            end(module.params["end"])
            module.exit_json(changed=False)
        visits = visit_all(module.params["connect"], module.params["timeout_seconds"])
        module.exit_json(changed=False, visits=visits)
    except PygridError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
