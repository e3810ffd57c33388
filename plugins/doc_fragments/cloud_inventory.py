# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that every inventory plugin of a cloud has."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the inventory plugins of openmined.pygrid."""

    DOCUMENTATION = r"""
options:
  grids:
    description:
      - Values of the tag C(pygrid_grid) of the machines that are wanted.
      - When empty, the only grid that is there; more than one is an error.
    type: list
    elements: str
    default: []
  regions:
    description:
      - Where to look, in the cloud's words. When empty, everywhere that the account may use.
    type: list
    elements: str
    default: []
  filters:
    description:
      - Only machines of which all of this is true; a list means any of its values.
      - Names are V(id), V(name), V(region), V(zone), V(state), V(type), V(image), and C(tag:NAME) for tags.
    type: dict
    default: {}
  hostnames:
    description:
      - What a machine may be called in the inventory; the first that it has, and that is a name, is taken.
      - V(node) is its tag C(pygrid_name), V(name) and V(id) are those of the cloud.
    type: list
    elements: str
    choices: [node, name, id]
    default: [node, name, id]
  addresses:
    description:
      - How Ansible and the other nodes reach a machine; the first kind of address that it has is taken.
    type: list
    elements: str
    choices: [private, public, private_name, public_name]
    default: [private, public]
  partial:
    description:
      - What to do when some of the machines cannot be listed or made hosts.
      - V(fail) makes no hosts at all, and playbooks of this collection refuse to run.
      - V(warn) says what is missing and goes on with the others.
    type: str
    choices: [fail, warn]
    default: fail
  limit_seconds:
    description: How long all of the cloud's answers may take together, with every try that failed before.
    type: int
    default: 60
  threads:
    description: How many places are asked at the same time.
    type: int
    default: 32
author:
  - OpenMined and contributors (@OpenMined)
"""
