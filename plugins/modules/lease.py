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
  - Whoever takes it stands in the record of changes from then on, on the host and on the controller, and how the run
    ended does once the lease is given back. Of a run that did not come so far, the next one notes that.
  - In check mode nothing is taken and nothing recorded.
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
    description:
      - What the run does, for those who are refused and for the record; required for V(held).
      - Without it V(released) leaves the record alone.
    type: str
  seconds:
    description: How long it lasts from now unless it is taken again or given back.
    type: int
    default: 900
  take_over:
    description: Take it from whoever has it. For a run that is known to be dead.
    type: bool
    default: false
  create:
    description: Make the folder of the grid where there is none; without it nothing is taken there.
    type: bool
    default: true
  wanted:
    description: Which version the nodes are to have, for the record.
    type: str
    default: ""
  nodes:
    description: All nodes that the run is about, each with the release that it has, for the record of the controller.
    type: dict
    default: {}
  result:
    description: How the run ended, for V(released).
    type: str
    choices: [done, failed, refused]
    default: done
  reason:
    description: Why it ended so.
    type: str
    default: ""
  changes:
    description: What was changed of each node, as far as it is known. Without it that is not known.
    type: dict
  record_file:
    description:
      - Record on the controller. When empty, C(pygrid/changes.jsonl) in the XDG state home, usually
        C(~/.local/state/pygrid/changes.jsonl); V(none) keeps none.
    type: str
    default: ""
  run:
    description: Name of the run, made by the action on the controller. Do not set it.
    type: str
  who:
    description: The run for people, made by the action on the controller. Do not set it.
    type: str
  instead_of:
    description: The run that is known to be dead, found by the action on the controller. Do not set it.
    type: str
  facts:
    description: What the record tells of this run, made by the action on the controller. Do not set it.
    type: dict
    default: {}
  ends:
    description: How former runs ended, found by the action on the controller. Do not set it.
    type: list
    elements: dict
    default: []
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Be the only one who changes this host
  openmined.pygrid.lease:
    verb: upgrade

- name: Let others
  openmined.pygrid.lease:
    verb: upgrade
    state: released
"""

RETURN = r"""
held_by:
  description: The run that has the lease, when this one was refused.
  returned: on failure
  type: str
record_file:
  description: The record on the controller, empty when none is kept.
  returned: always
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.lease import (
    HeldError,
    current_lease,
    give_lease_back,
    hold_lease,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, open_home


def release(home: Home, given: dict[str, Any]) -> None:
    """Give the lease back; what changed of which node is told on its own host only."""
    changes = given["changes"]
    if changes is not None:
        changes = {name: what for name, what in changes.items() if name in home.node_names()}
    facts = {"message": given["reason"], "changes": changes, **given["facts"]}
    give_lease_back(home, given["run"], given["verb"] or "", given["result"], **facts)


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
            "create": {"type": "bool", "default": True},
            "wanted": {"type": "str", "default": ""},
            "nodes": {"type": "dict", "default": {}},
            "result": {"type": "str", "choices": ["done", "failed", "refused"], "default": "done"},
            "reason": {"type": "str", "default": ""},
            "changes": {"type": "dict"},
            "record_file": {"type": "str", "default": ""},
            "run": {"type": "str"},
            "who": {"type": "str"},
            "instead_of": {"type": "str"},
            "facts": {"type": "dict", "default": {}},
            "ends": {"type": "list", "elements": "dict", "default": []},
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
                release(home, given)
        elif module.check_mode:
            present = current_lease(home)
            if present and present.holder != given["run"] and over not in ("*", present.holder):
                raise HeldError(present)
        elif given["create"] or home.root.is_dir():
            hold_lease(
                home,
                given["run"],
                given["who"],
                given["verb"],
                given["seconds"],
                over,
                given["facts"],
                given["ends"],
            )
    except HeldError as error:
        module.fail_json(msg=str(error), held_by=error.lease.holder)
    except (PygridError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
