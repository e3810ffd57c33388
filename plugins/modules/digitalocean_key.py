#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.digitalocean_key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: digitalocean_key
short_description: Have an SSH key in an account of DigitalOcean
version_added: 0.1.0
description:
  - An account has each key once. One that is there under another name is used as it is;
    M(community.digitalocean.digital_ocean_sshkey) would give it another name.
extends_documentation_fragment:
  - openmined.pygrid.attributes
  - openmined.pygrid.digitalocean
attributes:
  diff_mode:
    support: none
options:
  name:
    description: Name of the key when it is made.
    type: str
    required: true
  public_key:
    description: The key, without a comment. Needed to have it.
    type: str
  state:
    description: Whether it is there. A key of another name is never removed.
    type: str
    choices: [present, absent]
    default: present
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Have the key
  openmined.pygrid.digitalocean_key:
    name: pygrid-heart
    public_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6X
  register: key
"""

RETURN = r"""
id:
  description: The cloud's id of the key; "" where check mode would make it.
  returned: state is present
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.digitalocean import ARGUMENTS, Account, run


def have(account: Account, name: str, public_key: str, check: bool) -> dict[str, Any]:
    """Have the key, under whatever name."""
    for key in account.all(account.client.ssh_keys.list, "ssh_keys"):
        if key["public_key"].split()[:2] == public_key.split()[:2]:
            return {"changed": False, "id": str(key["id"])}
    if check:
        return {"changed": True, "id": ""}
    made = account.ask(account.client.ssh_keys.create, body={"name": name, "public_key": public_key})
    return {"changed": True, "id": str(made["ssh_key"]["id"])}


def remove(account: Account, name: str, check: bool) -> dict[str, Any]:
    """Have no key of this name."""
    found = [key for key in account.all(account.client.ssh_keys.list, "ssh_keys") if key["name"] == name]
    for key in [] if check else found:
        account.ask(account.client.ssh_keys.delete, str(key["id"]))
    return {"changed": bool(found)}


def main() -> None:
    """Run the module."""
    arguments = {
        "name": {"type": "str", "required": True},
        "public_key": {"type": "str", "no_log": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    module = AnsibleModule(
        argument_spec={**ARGUMENTS, **arguments},
        required_if=[("state", "present", ["public_key"])],
        supports_check_mode=True,
    )
    name, check = module.params["name"], module.check_mode
    if module.params["state"] == "present":
        run(module, lambda account: have(account, name, module.params["public_key"], check))
    run(module, lambda account: remove(account, name, check))


if __name__ == "__main__":
    main()
