#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.azure_machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: azure_machine
short_description: Let a virtual machine of Azure run or not
version_added: 0.1.0
description:
  - Starts a virtual machine, takes it from the hardware that it runs on, or says that it is what an image is made of.
extends_documentation_fragment:
  - openmined.pygrid.azure
  - openmined.pygrid.attributes
options:
  id:
    description: Id of the machine, from C(/subscriptions/) on.
    type: str
    required: true
  state:
    description:
      - What it is to be. Only one that is V(deallocated) can get any size, and costs nothing but its disks.
      - One that is V(generalized) is deallocated and can be nothing any more but the source of an image.
    type: str
    choices: [running, deallocated, generalized]
    required: true
"""

EXAMPLES = r"""
- name: Switch it off
  openmined.pygrid.azure_machine:
    id: "{{ group }}/providers/Microsoft.Compute/virtualMachines/mine"
    state: deallocated
"""

RETURN = r"""
generation:
  description: Generation of its firmware, V(V1) or V(V2).
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.azure import ARGUMENTS, Azure
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "id": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["running", "deallocated", "generalized"], "required": True},
        },
        supports_check_mode=True,
    )
    machine, wanted = module.params["id"], module.params["state"]
    try:
        azure = Azure(module.params["endpoint"])
        state = azure.state(machine)
        deeds = _deeds(state["power"], state["generalized"], wanted)
        for deed in [] if module.check_mode else deeds:
            azure.act(machine, deed)
    except PygridError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(deeds), generation=state["generation"])


def _deeds(power: str, is_generalized: bool, wanted: str) -> list[str]:
    """What a machine has to do to be what is wanted."""
    if wanted == "running":
        return [] if power == "running" else ["start"]
    deeds = [] if power == "deallocated" else ["deallocate"]
    return deeds + (["generalize"] if wanted == "generalized" and not is_generalized else [])


if __name__ == "__main__":
    main()
