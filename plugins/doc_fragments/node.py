# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that every module about one node has."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the modules of openmined.pygrid."""

    DOCUMENTATION = r"""
options:
  name:
    description: Name of the node, unique in its grid.
    type: str
    required: true
  home:
    description:
      - Folder on the host below which everything of the grid lies.
      - When empty, C(/opt/pygrid) in scope V(system), else the folder C(pygrid) in the account's XDG data home.
    type: str
    default: ""
  scope:
    description:
      - V(system) needs root. systemd keeps the node running under an account of its own.
      - V(user) needs no root. Everything lies in O(home) and supervisor keeps the node running.
    type: str
    choices: [user, system]
    default: user
requirements:
  - Linux with Python 3.8 or later for the module itself; a release needs Python 3.10, 3.11 or 3.12
author:
  - OpenMined and contributors (@OpenMined)
"""
