#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of openmined.pygrid.scale_file, which is an action on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scale_file
short_description: Keep what was decided of a grid in its inventory
version_added: 0.1.0
description:
  - Edits the one file of inventory that the playbooks C(scale) and C(resize) write. It is replaced as a whole, so that
    a reader sees the old or the new one, and goes when it would hold nothing.
  - Runs on the controller; no host is contacted.
extends_documentation_fragment:
  - openmined.pygrid.attributes
options:
  path:
    description: The file.
    type: path
    required: true
  begin:
    description: Steps of M(openmined.pygrid.scale_plan) that are begun now.
    type: list
    elements: dict
    default: []
  variables:
    description: With O(begin), the variables of new Workers.
    type: dict
    default: {}
  end:
    description: Steps that are done.
    type: list
    elements: dict
    default: []
  without_machine:
    description: With O(end), Workers whose machine was removed with them, so that they are not kept as spare ones.
    type: list
    elements: str
    default: []
  undo:
    description: Steps that were begun by this run and are not done after all; it must not have changed anything yet.
    type: list
    elements: dict
    default: []
  merge:
    description: Variables that win over all others of the inventory from now on, by inventory name.
    type: dict
    default: {}
  keep:
    description: The same, and no others than these are kept for the node any more.
    type: dict
    default: {}
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Note what begins
  openmined.pygrid.scale_file:
    path: "{{ plan.file }}"
    begin: "{{ plan.steps }}"
    variables: "{{ plan.variables }}"
"""

RETURN = r""" # """
