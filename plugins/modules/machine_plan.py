#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of openmined.pygrid.machine_plan, which is an action on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_plan
short_description: Say which machines of a grid in a cloud are missing
version_added: 0.1.0
description:
  - Compares the machines that a grid is to have with those that an inventory plugin has found by their tags.
  - Says as well who may connect to which port of which kind of node, from what the firewalls of the machines know, for
    the grid as it is going to be.
  - Fails with everything that speaks against the plan at once. Runs on the controller; no host and no cloud is asked.
extends_documentation_fragment:
  - openmined.pygrid.attributes.info
options:
  grid:
    description: Value of the tag C(pygrid_grid).
    type: str
    required: true
  machines:
    description: The machines that the grid is to have, as in the variable C(pygrid_machines).
    type: list
    elements: dict
    required: true
  zones:
    description: Zones for machines that name none; they are spread over them.
    type: list
    elements: str
    default: []
  workers:
    description: Number of Workers by the name of their Domain; it wins over the counts of machines.
    type: dict
    default: {}
  administrators:
    description: CIDRs that may connect by SSH.
    type: list
    elements: str
    default: []
  only_workers:
    description: Plan nothing but Workers of the Domains in O(workers), and none that finds a spare machine.
    type: bool
    default: false
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Plan a Network and a Domain
  openmined.pygrid.machine_plan:
    grid: heart
    machines:
      - {role: network, size: t3.small}
      - {role: domain, name: alice, size: t3.large}
    zones: [eu-west-1a]
  register: plan
"""

RETURN = r"""
new:
  description: Machines to make, each with host, role, domain, size, zones, disk, data_disk, spot, public and tags.
  returned: success
  type: list
  elements: dict
present:
  description: Machines that are there, each with host, role, domain and facts.
  returned: success
  type: list
  elements: dict
other_size:
  description: The wanted size of machines that have another one, by host.
  returned: success
  type: dict
resizes:
  description: The same machines in the order in which they are changed, each with host, id, former and wanted.
  returned: success
  type: list
  elements: dict
data:
  description: Size in GB of the volume of each machine that is to have one, by host.
  returned: success
  type: dict
addresses:
  description: Hosts that are to have a public address which stays theirs when their machine is another one.
  returned: success
  type: list
  elements: str
more:
  description: A sentence for each Domain with more Workers than wanted.
  returned: success
  type: list
  elements: str
attempts:
  description: Numbers from 0 on, one for each zone that a machine may be tried in.
  returned: success
  type: list
  elements: int
rules:
  description: By kind of node a list of rules, each with port, kinds, cidrs and why.
  returned: success
  type: dict
scale_file:
  description: The file of inventory in which what begins and ends is kept; "" where the inventory is no file.
  returned: success
  type: str
text:
  description: The plan for people.
  returned: success
  type: str
"""
