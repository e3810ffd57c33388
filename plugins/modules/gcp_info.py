#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.gcp_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_info
short_description: Find everything of a grid on Google Compute Engine
version_added: 0.1.0
description:
  - Lists what a grid has in all zones of a region, and what it has in no region.
  - Instances, disks and images are found by their label C(pygrid_grid). Other things have a description instead that
    begins with C(pygrid_grid=) and the grid's name.
  - C(google.cloud) has a module for each kind of thing, which asks one zone, and finds nothing by a description.
extends_documentation_fragment:
  - openmined.pygrid.attributes.info
  - openmined.pygrid.gcp
options:
  region:
    description: The region.
    type: str
    required: true
  grid:
    description: Name of the grid.
    type: str
    required: true
  kinds:
    description: Kinds of things to look for.
    type: list
    elements: str
    choices: [instances, disks, addresses, routers, firewalls, subnetworks, networks, images]
    default: [instances, disks, addresses, routers, firewalls, subnetworks, networks, images]
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Look for the machines of a grid
  openmined.pygrid.gcp_info:
    project: heart-study
    region: europe-west4
    grid: heart
    kinds: [instances]
  register: found
"""

RETURN = r"""
things:
  description: By kind the things that were found, each as Google's API tells of it.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.gcp import google

KINDS = ["instances", "disks", "addresses", "routers", "firewalls", "subnetworks", "networks", "images"]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "grid": {"type": "str", "required": True},
            "kinds": {"type": "list", "elements": "str", "choices": KINDS, "default": KINDS},
        },
        supports_check_mode=True,
    )
    things = {}
    with google(module) as compute:
        region, grid = module.params["region"], module.params["grid"]
        things = {kind: list(compute.things(kind, region, grid)) for kind in module.params["kinds"]}
    module.exit_json(changed=False, things=things)


if __name__ == "__main__":
    main()
