#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.digitalocean_image."""

from __future__ import annotations

DOCUMENTATION = r"""
module: digitalocean_image
short_description: Have an image of a Droplet of DigitalOcean, with tags
version_added: 0.1.0
description:
  - Takes a snapshot and tags it, which M(community.digitalocean.digital_ocean_snapshot) cannot. An image that is there
    under its name, from a run that was killed, is only tagged.
extends_documentation_fragment:
  - openmined.pygrid.attributes
  - openmined.pygrid.digitalocean
attributes:
  diff_mode:
    support: none
options:
  name:
    description: Its name.
    type: str
    required: true
  droplet:
    description: Id of the Droplet, which should be off.
    type: int
    required: true
  tags:
    description: Its tags.
    type: list
    elements: str
    default: []
  timeout_seconds:
    description: How long it may take.
    type: int
    default: 3600
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Keep it as an image
  openmined.pygrid.digitalocean_image:
    name: pygrid-heart-20261123
    droplet: 3164444
    tags: ["pygrid_grid:heart"]
  register: image
"""

RETURN = r"""
id:
  description: The image's id; "" where check mode would make it.
  returned: success
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.digitalocean import ARGUMENTS, Account, run
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError


def image_called(account: Account, name: str) -> dict[str, Any] | None:
    """The image, if it is there."""
    found = account.all(account.client.images.list, "images", private=True)
    return next((image for image in found if image["name"] == name), None)


def have(account: Account, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the image with its tags."""
    image = image_called(account, wanted["name"])
    tags = [tag for tag in wanted["tags"] if not image or tag not in image["tags"]]
    changed = image is None or bool(tags)
    if check or not changed:
        return {"changed": changed, "id": str(image["id"]) if image else ""}
    if image is None:
        body = {"type": "snapshot", "name": wanted["name"]}
        answer = account.ask(account.client.droplet_actions.post, wanted["droplet"], body=body)
        account.wait(answer["action"], wanted["timeout_seconds"])
        image = image_called(account, wanted["name"])
    if image is None:
        raise PygridError(f"DigitalOcean made the image {wanted['name']} and does not list it")
    for tag in tags:
        account.tag(tag, "image", str(image["id"]))
    return {"changed": True, "id": str(image["id"])}


def main() -> None:
    """Run the module."""
    arguments = {
        "name": {"type": "str", "required": True},
        "droplet": {"type": "int", "required": True},
        "tags": {"type": "list", "elements": "str", "default": []},
        "timeout_seconds": {"type": "int", "default": 3600},
    }
    module = AnsibleModule(argument_spec={**ARGUMENTS, **arguments}, supports_check_mode=True)
    run(module, lambda account: have(account, module.params, module.check_mode))


if __name__ == "__main__":
    main()
