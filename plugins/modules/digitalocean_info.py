#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.digitalocean_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: digitalocean_info
short_description: List what an account of DigitalOcean has
version_added: 0.1.0
description:
  - Lists things of the kinds that are asked for, all pages of each.
extends_documentation_fragment:
  - openmined.pygrid.attributes.info
  - openmined.pygrid.digitalocean
options:
  kinds:
    description: What is listed. Images are those of the account alone.
    type: list
    elements: str
    choices: [address, firewall, image, key, machine, network, project, tag, volume]
    default: []
  image:
    description: Slug or id of one image, which may be DigitalOcean's own, to look for as well.
    type: str
    default: ""
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Look for volumes
  openmined.pygrid.digitalocean_info:
    kinds: [volume]
  register: there
"""

RETURN = r"""
found:
  description: By kind, lists of things as the API tells of them; V(base) has the O(image), or nothing.
  returned: success
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.digitalocean import (
    ARGUMENTS,
    Account,
    NotThereError,
    run,
)

# Of each kind the operations of the SDK, the word of its answers, and what else is asked.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "address": ("reserved_ips", "reserved_ips", {}),
    "firewall": ("firewalls", "firewalls", {}),
    "image": ("images", "images", {"private": True}),
    "key": ("ssh_keys", "ssh_keys", {}),
    "machine": ("droplets", "droplets", {}),
    "network": ("vpcs", "vpcs", {}),
    "project": ("projects", "projects", {}),
    "tag": ("tags", "tags", {}),
    "volume": ("volumes", "volumes", {}),
}


def look(account: Account, kinds: list[str], image: str) -> dict[str, Any]:
    """List things of these kinds."""
    found = {}
    for kind in kinds:
        operations, word, more = KINDS[kind]
        found[kind] = account.all(getattr(account.client, operations).list, word, **more)
    if image:
        try:
            found["base"] = [account.ask(account.client.images.get, image)["image"]]
        except NotThereError:
            found["base"] = []
    return {"changed": False, "found": found}


def main() -> None:
    """Run the module."""
    arguments = {
        "kinds": {"type": "list", "elements": "str", "choices": sorted(KINDS), "default": []},
        "image": {"type": "str", "default": ""},
    }
    module = AnsibleModule(argument_spec={**ARGUMENTS, **arguments}, supports_check_mode=True)
    run(module, lambda account: look(account, module.params["kinds"], module.params["image"]))


if __name__ == "__main__":
    main()
