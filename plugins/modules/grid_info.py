#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of openmined.pygrid.grid_info, which is an action on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: grid_info
short_description: Check the inventory and return the grid it describes
version_added: 0.1.0
description:
  - Reads the groups C(pygrid_network), C(pygrid_domain) and C(pygrid_worker) and the variables C(pygrid_*) of all
    hosts, those outside C(--limit) included, and relates the nodes to one another.
  - Fails with every problem of every host at once - unknown variables, wrong types, unsupported versions, clashing
    names and ports, Workers without a Domain, URLs that the other side cannot reach.
  - Runs on the controller only; no host is contacted.
  - Hosts of the group C(pygrid_spare) are no nodes, whatever other groups they are in.
options:
  without:
    description: Inventory names of nodes that are left out, as if they stood in C(pygrid_spare).
    type: list
    elements: str
    default: []
  scaled:
    description: Variables by inventory name that win over those of the inventory, C(pygrid_scaled) included.
    type: dict
    default: {}
  warn:
    description: Warn of what works, but not as one may expect.
    type: bool
    default: true
extends_documentation_fragment:
  - openmined.pygrid.attributes.info
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Check the inventory
  openmined.pygrid.grid_info:
  register: grid_info
  run_once: true
"""

RETURN = r"""
grid:
  description: The grid.
  returned: success
  type: dict
  contains:
    nodes:
      description:
        - The nodes by inventory name, each with host, kind, name, home, location, address, ports, url, stop_seconds,
          root_email, settings, release_source, and for a Domain queue_url and workers, for a Worker domain.
      type: dict
    network:
      description: Inventory name of the Network, null when the inventory has none.
      type: str
    network_url:
      description: URL of the Network, null when the grid has none.
      type: str
    spare:
      description: The hosts of C(pygrid_spare) by inventory name, each with location, and for a Worker domain and port.
      type: dict
"""
