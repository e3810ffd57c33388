#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.lease."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Be the only run that changes the nodes of a host
version_added: 0.1.0
description:
  - Takes a lease on a host, or gives it back. While a run has it, others are refused and told who has it.
  - A run takes it again to make it last longer. It ends by itself when its time is over, so that a run that was cut off
    locks nobody out for ever.
  - From a run of the same controller that does not live any more it is taken at once. Only another controller waits.
  - It is a note for other runs and no change of the host, so RV(ignore:changed) is always false.
extends_documentation_fragment:
  - openmined.pygrid.attributes
options:
  home:
    description:
      - Folder on the host below which everything of the grid lies.
      - When empty, C(/opt/pygrid) in scope V(system), else the folder C(pygrid) in the account's XDG data home.
    type: str
    default: ""
  scope:
    description: V(system) or V(user), as for M(openmined.pygrid.node).
    type: str
    choices: [user, system]
    default: user
  state:
    description: Take it (or make it last longer), or give it back.
    type: str
    choices: [held, released]
    default: held
  verb:
    description: What the run does, for those who are refused; required for V(held).
    type: str
  seconds:
    description: How long it lasts from now unless it is taken again or given back.
    type: int
    default: 900
  take_over:
    description: Take it from whoever has it. For a run that is known to be dead.
    type: bool
    default: false
  run:
    description: Name of the run, made by the action on the controller. Do not set it.
    type: str
  who:
    description: The run for people, made by the action on the controller. Do not set it.
    type: str
  instead_of:
    description: The run that is known to be dead, found by the action on the controller. Do not set it.
    type: str
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Be the only one who changes this host
  openmined.pygrid.lease:
    verb: upgrade

- name: Let others
  openmined.pygrid.lease:
    state: released
"""

RETURN = r"""
held_by:
  description: The run that has the lease, when this one was refused.
  returned: on failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.lease import (
    HeldError,
    current_lease,
    give_lease_back,
    hold_lease,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import open_home


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "str", "default": ""},
            "scope": {"type": "str", "choices": ["user", "system"], "default": "user"},
            "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
            "verb": {"type": "str"},
            "seconds": {"type": "int", "default": 900},
            "take_over": {"type": "bool", "default": False},
            "run": {"type": "str"},
            "who": {"type": "str"},
            "instead_of": {"type": "str"},
        },
        required_if=[("state", "held", ("verb",))],
        supports_check_mode=True,
    )
    given = module.params
    home = open_home(given["home"], given["scope"])
    over = "*" if given["take_over"] else given["instead_of"]
    try:
        if given["state"] == "released":
            if not module.check_mode:
                give_lease_back(home, given["run"])
        elif module.check_mode:
            present = current_lease(home)
            if present and present.holder != given["run"] and over not in ("*", present.holder):
                raise HeldError(present)
        else:
            hold_lease(home, given["run"], given["who"], given["verb"], given["seconds"], over)
    except HeldError as error:
        module.fail_json(msg=str(error), held_by=error.lease.holder)
    except (PygridError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
