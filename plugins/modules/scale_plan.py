#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of openmined.pygrid.scale_plan, which is an action on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scale_plan
short_description: Say which Workers have to come and to go, and where to
version_added: 0.1.0
description:
  - Compares the numbers of Workers that Domains are to have with those that the grid gives them. What a former run has
    begun and not ended is part of the plan.
  - New Workers are placed on machines with few Workers, on spare ones first. Of too many, the idle ones go first.
  - Fails with everything that speaks against the plan at once. Runs on the controller; no host is contacted.
extends_documentation_fragment:
  - openmined.pygrid.attributes.info
options:
  grid:
    description: The grid of M(openmined.pygrid.grid_info).
    type: dict
    required: true
  workers:
    description: Number of Workers by the inventory name of their Domain. Domains that are not named keep theirs.
    type: dict
    default: {}
  joined:
    description: The Domains that are to belong to the Network; all keep to what they do when this is omitted.
    type: list
    elements: str
  file:
    description: Where what is decided is kept; when empty, C(pygrid-scale.yml) beside the inventory.
    type: str
    default: ""
  machines:
    description: Machines that a cloud would make for Workers, as M(openmined.pygrid.machine_plan) says; for check mode.
    type: list
    elements: dict
    default: []
  ask:
    description: Only return the Workers whose state has to be known for a plan.
    type: bool
    default: false
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Plan three Workers for alice
  openmined.pygrid.scale_plan:
    grid: "{{ grid_info.grid }}"
    workers: {alice: 3}
  register: plan
"""

RETURN = r"""
file:
  description: Where what is decided is kept.
  returned: success
  type: str
ask:
  description: Inventory names of the Workers to read first.
  returned: with O(ask)
  type: list
  elements: str
steps:
  description:
    - What is to be done, each with host, what (coming, going, joining, leaving), domain, location, new and begun.
  returned: without O(ask)
  type: list
  elements: dict
variables:
  description: The variables of new Workers by their inventory names.
  returned: without O(ask)
  type: dict
settling:
  description: Who else has to do with it - Domains, the Network, and a node of each machine whose services change.
  returned: without O(ask)
  type: list
  elements: str
text:
  description: The plan for people.
  returned: without O(ask)
  type: str
"""
