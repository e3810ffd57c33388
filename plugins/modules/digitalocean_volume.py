#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.digitalocean_volume."""

from __future__ import annotations

DOCUMENTATION = r"""
module: digitalocean_volume
short_description: Have a volume with tags at a Droplet of DigitalOcean
version_added: 0.1.0
description:
  - Makes the volume with its tags at once, which M(community.digitalocean.digital_ocean_block_storage) cannot, and
    makes sure that it is at the Droplet in the end.
extends_documentation_fragment:
  - openmined.pygrid.attributes
  - openmined.pygrid.digitalocean
attributes:
  diff_mode:
    support: none
options:
  name:
    description: Its name, which is unique in a region.
    type: str
    required: true
  region:
    description: The region that it is in.
    type: str
    required: true
  size:
    description: Its size, GB. A larger one that is there stays as it is, a smaller one grows. Needed to have it.
    type: int
  tags:
    description: Its tags.
    type: list
    elements: str
    default: []
  droplet:
    description: Id of the Droplet that has it; it is taken from any other one. Needed to have it.
    type: int
  state:
    description: Whether it is there.
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
- name: Have the volume of the data of alice
  openmined.pygrid.digitalocean_volume:
    name: pygrid-heart-alice-data
    region: fra1
    size: 20
    tags: ["pygrid_grid:heart", "pygrid_data_of:alice"]
    droplet: 3164444
"""

RETURN = r"""
volume:
  description: The volume as the API tells of it; without an id where check mode would make it.
  returned: state is present
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.digitalocean import ARGUMENTS, Account, run


def volume_called(account: Account, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The volume, if it is there."""
    found = account.all(account.client.volumes.list, "volumes", name=wanted["name"], region=wanted["region"])
    return found[0] if found else None


def change(account: Account, volume: dict[str, Any], wanted: dict[str, Any], **body: Any) -> None:
    """Do something to a volume, and wait until it is done."""
    answer = account.ask(
        account.client.volume_actions.post_by_id, volume["id"], body={**body, "region": wanted["region"]}
    )
    account.wait(answer["action"], wanted["timeout_seconds"])


def have(account: Account, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the volume at its Droplet."""
    volume = volume_called(account, wanted)
    tags = [tag for tag in wanted["tags"] if not volume or tag not in volume["tags"]]
    others = [droplet for droplet in (volume or {}).get("droplet_ids") or [] if droplet != wanted["droplet"]]
    is_away = not volume or wanted["droplet"] not in volume["droplet_ids"]
    is_small = volume is not None and volume["size_gigabytes"] < wanted["size"]
    changed = bool(tags or others or is_away or is_small)
    if check or (volume and not changed):
        return {"changed": changed, "volume": volume or {"name": wanted["name"]}}
    if volume is None:
        body = {"name": wanted["name"], "region": wanted["region"], "size_gigabytes": wanted["size"], "tags": tags}
        volume, tags = account.ask(account.client.volumes.create, body=body)["volume"], []
    for tag in tags:
        account.tag(tag, "volume", volume["id"])
    for droplet in others:
        change(account, volume, wanted, type="detach", droplet_id=droplet)
    if is_small:
        change(account, volume, wanted, type="resize", size_gigabytes=wanted["size"])
    if is_away:
        change(account, volume, wanted, type="attach", droplet_id=wanted["droplet"])
    return {"changed": True, "volume": volume_called(account, wanted)}


def remove(account: Account, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have no such volume."""
    volume = volume_called(account, wanted)
    if volume and not check:
        for droplet in volume["droplet_ids"] or []:
            change(account, volume, wanted, type="detach", droplet_id=droplet)
        account.ask(account.client.volumes.delete, volume["id"])
    return {"changed": volume is not None}


def main() -> None:
    """Run the module."""
    arguments = {
        "name": {"type": "str", "required": True},
        "region": {"type": "str", "required": True},
        "size": {"type": "int"},
        "tags": {"type": "list", "elements": "str", "default": []},
        "droplet": {"type": "int"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "timeout_seconds": {"type": "int", "default": 300},
    }
    module = AnsibleModule(
        argument_spec={**ARGUMENTS, **arguments},
        required_if=[("state", "present", ["size", "droplet"])],
        supports_check_mode=True,
    )
    deed = have if module.params["state"] == "present" else remove
    run(module, lambda account: deed(account, module.params, module.check_mode))


if __name__ == "__main__":
    main()
