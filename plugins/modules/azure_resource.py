#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.azure_resource."""

from __future__ import annotations

DOCUMENTATION = r"""
module: azure_resource
short_description: Have things in Azure, or have them no more
version_added: 0.1.0
description:
  - Makes things of Azure, and changes those that are not as they are to be. Of what is not spoken of, nothing is
    changed; nor are parts of lists that others have added, except to the rules of a network security group.
  - It knows virtual machines, disks, images, virtual networks, network interfaces, network and application security
    groups, public addresses, NAT gateways and resource groups.
  - A resource group is only removed when nothing is in it.
extends_documentation_fragment:
  - openmined.pygrid.azure
  - openmined.pygrid.attributes
options:
  resources:
    description: The things that are to be there, in this order; those of one type that follow each other at once.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Id of the thing, from C(/subscriptions/) on.
        type: str
        required: true
      body:
        description: What it is to be, in the words of Azure's REST API. What is null is not to be there.
        type: dict
        default: {}
      keep:
        description: Whether it stays as it is when it is there.
        type: bool
        default: false
  ids:
    description: Ids of things that are not to be there, in the order of their removal; those of one type go at once.
    type: list
    elements: str
    default: []
  state:
    description: Whether O(resources) are to be there, or O(ids) are not to.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Have an address
  openmined.pygrid.azure_resource:
    resources:
      - id: "{{ group }}/providers/Microsoft.Network/publicIPAddresses/mine"
        body:
          location: westeurope
          sku: {name: Standard}
          properties: {publicIPAllocationMethod: Static}
"""

RETURN = r"""
resources:
  description: The things as Azure tells of them.
  returned: when they are to be there, and not in check mode
  type: list
  elements: dict
instance_ids:
  description: The ids that Azure gave to those that are virtual machines.
  returned: when they are to be there, and not in check mode
  type: list
  elements: str
changes:
  description: Ids of the things that were (in check mode would be) made, changed or removed.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.azure import ARGUMENTS, Azure, contains
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError


def main() -> None:
    """Run the module."""
    resource = {
        "id": {"type": "str", "required": True},
        "body": {"type": "dict", "default": {}},
        "keep": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "resources": {"type": "list", "elements": "dict", "default": [], "options": resource},
            "ids": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        azure = Azure(module.params["endpoint"])
        if module.params["state"] == "present":
            result = _have(azure, module.params["resources"], module.check_mode)
        else:
            result = _remove(azure, module.params["ids"], module.check_mode)
    except PygridError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(result["changes"]), **result)


def _have(azure: Azure, resources: list[dict[str, Any]], check_mode: bool) -> dict[str, Any]:
    for one in resources:
        tags = one["body"].get("tags")
        if tags:
            # Of a tag Azure takes nothing but text.
            one["body"]["tags"] = {name: value if value is None else str(value) for name, value in tags.items()}
    there = {one["id"]: azure.settled(one["id"]) for one in resources}
    changing = [
        (one["id"], there[one["id"]], one["body"])
        for one in resources
        if there[one["id"]] is None or not (one["keep"] or contains(there[one["id"]], one["body"]))
    ]
    changes = [identity for identity, _have, _wanted in changing]
    if check_mode:
        return {"changes": changes}
    azure.have(changing)
    found = [azure.find(one["id"]) if one["id"] in changes else there[one["id"]] for one in resources]
    ids = [one["properties"]["vmId"] for one in found if one and "vmId" in one.get("properties", {})]
    return {"changes": changes, "resources": found, "instance_ids": ids}


def _remove(azure: Azure, ids: list[str], check_mode: bool) -> dict[str, Any]:
    there = [identity for identity in ids if azure.find(identity) is not None]
    if not check_mode:
        azure.remove(there)
    return {"changes": there}


if __name__ == "__main__":
    main()
