#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.digitalocean_address."""

from __future__ import annotations

DOCUMENTATION = r"""
module: digitalocean_address
short_description: Have a reserved IP that stays that of a node on DigitalOcean
version_added: 0.1.0
description:
  - A reserved IP has neither a name nor tags. So each is in a project of its own, by whose name it is found again, and
    is reserved there from its first moment on.
extends_documentation_fragment:
  - openmined.pygrid.attributes
  - openmined.pygrid.digitalocean
attributes:
  diff_mode:
    support: none
options:
  name:
    description: Name of the project, which is unique in the account.
    type: str
    required: true
  description:
    description: What the project says of itself.
    type: str
    default: ""
  region:
    description: The region that it is in. Needed to have it.
    type: str
  droplet:
    description: Id of the Droplet that has it; it is taken from any other one. Needed to have it.
    type: int
  state:
    description: Whether it is there. V(absent) gives back all addresses of the project, and removes the project.
    type: str
    choices: [present, absent]
    default: present
  timeout_seconds:
    description: How long a change may take.
    type: int
    default: 300
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Have the address of the Network
  openmined.pygrid.digitalocean_address:
    name: pygrid-heart-net
    region: fra1
    droplet: 3164444
  register: address
"""

RETURN = r"""
address:
  description: The address; "" where check mode would reserve one.
  returned: state is present
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.digitalocean import ARGUMENTS, Account, run, wait_until


def project_called(account: Account, name: str) -> dict[str, Any] | None:
    """The project, if it is there."""
    found = account.all(account.client.projects.list, "projects")
    return next((project for project in found if project["name"] == name), None)


def addresses_of(account: Account, project: dict[str, Any] | None, region: str = "") -> list[dict[str, Any]]:
    """The reserved IPs of a project, in this region."""
    if project is None:
        return []
    found = account.all(account.client.reserved_ips.list, "reserved_ips")
    ours = [address for address in found if address.get("project_id") == project["id"]]
    return [address for address in ours if region in ("", address["region"]["slug"])]


def have(account: Account, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have an address at the Droplet."""
    project = project_called(account, wanted["name"])
    address = next(iter(addresses_of(account, project, wanted["region"])), None)
    is_there = bool(address) and (address["droplet"] or {}).get("id") == wanted["droplet"]
    if is_there or check:
        return {"changed": not is_there, "address": address["ip"] if address else ""}
    if project is None:
        body = {"name": wanted["name"], "purpose": "Other: an address of a PyGrid node", "environment": "Production"}
        body["description"] = wanted["description"]
        project = account.ask(account.client.projects.create, body=body)["project"]
    if address is None:
        body = {"region": wanted["region"], "project_id": project["id"]}
        address = account.ask(account.client.reserved_ips.create, body=body)["reserved_ip"]
        wait_until(
            lambda: not is_locked(account, address["ip"]), wanted["timeout_seconds"], f"reserving {address['ip']}"
        )
    body = {"type": "assign", "droplet_id": wanted["droplet"]}
    answer = account.ask(account.client.reserved_ips_actions.post, address["ip"], body=body)
    account.wait(answer["action"], wanted["timeout_seconds"])
    return {"changed": True, "address": address["ip"]}


def is_locked(account: Account, address: str) -> bool:
    """Whether something is being done to an address."""
    return bool(account.ask(account.client.reserved_ips.get, address)["reserved_ip"].get("locked"))


def remove(account: Account, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have no such addresses, and no project."""
    project = project_called(account, wanted["name"])
    if project and not check:
        for address in addresses_of(account, project):
            account.ask(account.client.reserved_ips.delete, address["ip"])
        seconds = wanted["timeout_seconds"]
        wait_until(lambda: not addresses_of(account, project), seconds, "giving an address back")
        account.ask(account.client.projects.delete, project["id"])
    return {"changed": project is not None}


def main() -> None:
    """Run the module."""
    arguments = {
        "name": {"type": "str", "required": True},
        "description": {"type": "str", "default": ""},
        "region": {"type": "str"},
        "droplet": {"type": "int"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "timeout_seconds": {"type": "int", "default": 300},
    }
    module = AnsibleModule(
        argument_spec={**ARGUMENTS, **arguments},
        required_if=[("state", "present", ["region", "droplet"])],
        supports_check_mode=True,
    )
    deed = have if module.params["state"] == "present" else remove
    run(module, lambda account: deed(account, module.params, module.check_mode))


if __name__ == "__main__":
    main()
