#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.digitalocean_power."""

from __future__ import annotations

DOCUMENTATION = r"""
module: digitalocean_power
short_description: Have a Droplet of DigitalOcean running or stopped, with a size
version_added: 0.1.0
description:
  - A Droplet is asked to shut down before its power is cut, which M(community.digitalocean.digital_ocean_droplet) does
    at once.
  - Its disk keeps its size, so that a former size can be given back to it.
extends_documentation_fragment:
  - openmined.pygrid.attributes
  - openmined.pygrid.digitalocean
attributes:
  diff_mode:
    support: none
options:
  id:
    description: Its id.
    type: int
    required: true
  state:
    description: What it is to be in the end.
    type: str
    choices: [running, stopped]
    required: true
  size:
    description: The size that it is to have. When empty, the one that it has. To change it, it is stopped.
    type: str
    default: ""
  shutdown_seconds:
    description: How long it may take to shut down until its power is cut.
    type: int
    default: 120
  timeout_seconds:
    description: How long each change may take.
    type: int
    default: 900
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Make it larger
  openmined.pygrid.digitalocean_power:
    id: 3164444
    size: s-4vcpu-8gb
    state: running
"""

RETURN = r"""
droplet:
  description: The Droplet as the API tells of it.
  returned: success
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.digitalocean import ARGUMENTS, Account, run, wait_until
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError


def act(account: Account, wanted: dict[str, Any], **body: Any) -> None:
    """Do something to the Droplet, and wait until it is done."""
    answer = account.ask(account.client.droplet_actions.post, wanted["id"], body=body)
    account.wait(answer["action"], wanted["timeout_seconds"])


def droplet_of(account: Account, wanted: dict[str, Any]) -> dict[str, Any]:
    """The Droplet as it is now."""
    return dict(account.ask(account.client.droplets.get, wanted["id"])["droplet"])


def stop(account: Account, wanted: dict[str, Any]) -> None:
    """Shut the Droplet down; cut its power when it does not."""

    def is_off() -> bool:
        return bool(droplet_of(account, wanted)["status"] == "off")

    try:
        act(account, {**wanted, "timeout_seconds": wanted["shutdown_seconds"]}, type="shutdown")
        wait_until(is_off, wanted["shutdown_seconds"], "shutting down")
    except PygridError:
        if not is_off():
            act(account, wanted, type="power_off")


def have(account: Account, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the Droplet as it is wanted."""
    droplet = droplet_of(account, wanted)
    size = wanted["size"] or droplet["size_slug"]
    runs = droplet["status"] != "off"
    to_resize = droplet["size_slug"] != size
    changed = to_resize or runs != (wanted["state"] == "running")
    if check or not changed:
        return {"changed": changed, "droplet": droplet}
    if runs and (to_resize or wanted["state"] == "stopped"):
        stop(account, wanted)
    if to_resize:
        act(account, wanted, type="resize", disk=False, size=size)
    if wanted["state"] == "running":
        act(account, wanted, type="power_on")
    return {"changed": True, "droplet": droplet_of(account, wanted)}


def main() -> None:
    """Run the module."""
    arguments = {
        "id": {"type": "int", "required": True},
        "state": {"type": "str", "choices": ["running", "stopped"], "required": True},
        "size": {"type": "str", "default": ""},
        "shutdown_seconds": {"type": "int", "default": 120},
        "timeout_seconds": {"type": "int", "default": 900},
    }
    module = AnsibleModule(argument_spec={**ARGUMENTS, **arguments}, supports_check_mode=True)
    run(module, lambda account: have(account, module.params, module.check_mode))


if __name__ == "__main__":
    main()
