#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.allow_list."""

from __future__ import annotations

DOCUMENTATION = r"""
module: allow_list
short_description: Let single Workers into a Domain's queue, or lock them out
version_added: 0.1.0
description:
  - Changes entries of a Domain's allow-list while it runs. The Domain itself, its settings and its other Workers are
    not touched; M(openmined.pygrid.node) writes the whole list.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes
options:
  present:
    description: Public keys of Workers that are let in, by the Worker's name.
    type: dict
    default: {}
  absent:
    description: Names of Workers that are locked out. A job that one of them runs is taken from it.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Let alice-w2 in
  openmined.pygrid.allow_list:
    name: alice
    present: {alice-w2: "yGJ^w5<cBTI(TSq5K[@.DRZvsVLEm7?#m-ZKE9dB"}
"""

RETURN = r""" # """

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.allow_list import edit
from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import open_home


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "present": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    home = open_home(given["home"], given["scope"])
    try:
        before, after = edit(home, given["name"], given["present"], given["absent"], module.check_mode)
    except PygridError as error:
        module.fail_json(msg=str(error))
    result: dict[str, Any] = {"changed": before != after}
    if module._diff:
        result["diff"] = {"before": before, "after": after}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
