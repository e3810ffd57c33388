#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.azure_resource_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: azure_resource_info
short_description: What there is in Azure
version_added: 0.1.0
description:
  - Lists things of a subscription by their types and tags, and images that machines can be made from.
extends_documentation_fragment:
  - openmined.pygrid.azure
  - openmined.pygrid.attributes.info
options:
  subscription:
    description: Id of the subscription.
    type: str
    required: true
  types:
    description: Types of things, like V(Microsoft.Compute/virtualMachines) and V(Microsoft.Resources/resourceGroups).
    type: list
    elements: str
    default: []
  tags:
    description: Tags that they have to have.
    type: dict
    default: {}
  untagged_prefix:
    description: What the id of a thing begins with that counts without these tags, in any case of letters.
    type: str
    default: ""
  image:
    description:
      - An image that is looked for, by its id or as C(publisher:offer:sku:version). When the last word is V(latest),
        the newest version is returned.
    type: str
    default: ""
  location:
    description: Where an image is looked for.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Look for machines of a grid
  openmined.pygrid.azure_resource_info:
    subscription: 11111111-2222-3333-4444-555555555555
    types: [Microsoft.Compute/virtualMachines]
    tags: {pygrid_grid: heart}
"""

RETURN = r"""
resources:
  description:
    - The things as Azure tells of them, each with its C(type), and a resource group with C(contents), the ids of what
      is in it.
  returned: success
  type: list
  elements: dict
images:
  description: The image with its C(id), or none.
  returned: success
  type: list
  elements: dict
"""

from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.azure import ARGUMENTS, GROUP, MACHINE, VERSIONS, Azure
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "subscription": {"type": "str", "required": True},
            "types": {"type": "list", "elements": "str", "default": []},
            "tags": {"type": "dict", "default": {}},
            "untagged_prefix": {"type": "str", "default": ""},
            "image": {"type": "str", "default": ""},
            "location": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    if not wanted["subscription"]:
        module.fail_json(msg="subscription is empty; set AZURE_SUBSCRIPTION_ID")
    unknown = [kind for kind in wanted["types"] if kind not in VERSIONS]
    if unknown:
        module.fail_json(msg=f"types: {', '.join(unknown)} is none of {', '.join(VERSIONS)}")
    try:
        azure = Azure(wanted["endpoint"])
        resources = [
            one
            for kind in wanted["types"]
            for one in azure.all_of(wanted["subscription"], kind)
            if _is_wanted(one, wanted["tags"], wanted["untagged_prefix"].lower())
        ]
        for one in resources:
            if one["type"] == GROUP:
                one["contents"] = azure.contents(one["id"])
        images = list(_images(azure, wanted))
    except PygridError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, resources=resources, images=images)


def _is_wanted(one: dict[str, Any], tags: dict[str, str], prefix: str) -> bool:
    has = one.get("tags") or {}
    is_tagged = all(has.get(name) == value for name, value in tags.items())
    return is_tagged or (bool(prefix) and one["id"].lower().startswith(prefix))


def _images(azure: Azure, wanted: dict[str, Any]) -> Iterator[dict[str, str]]:
    words = wanted["image"].split(":")
    if len(words) == 4:
        publisher, offer, sku, version = words
        place = f"/subscriptions/{wanted['subscription']}/providers/Microsoft.Compute/locations/{wanted['location']}"
        path = f"{place}/publishers/{publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions"
        versions = {one["name"]: one for one in azure.listed(path, VERSIONS[MACHINE])}
        newest = max(versions, key=_number, default="")
        found = newest if version == "latest" else version
        if found in versions:
            yield {"id": ":".join([publisher, offer, sku, found])}
    elif wanted["image"] and azure.find(wanted["image"]):
        yield {"id": wanted["image"]}


def _number(version: str) -> list[int]:
    return [int(word) if word.isdigit() else 0 for word in version.split(".")]


if __name__ == "__main__":
    main()
