# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules for DigitalOcean have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of modules that talk to DigitalOcean."""

    DOCUMENTATION = r"""
options:
  token:
    description:
      - A token. It belongs into the environment (E(DIGITALOCEAN_TOKEN), E(DIGITALOCEAN_ACCESS_TOKEN) or
        E(DO_API_TOKEN)), not into a file.
    type: str
  endpoint:
    description: Address of the API; E(DIGITALOCEAN_API_URL) may name it.
    type: str
    default: https://api.digitalocean.com
requirements:
  - pydo in the Python that runs Ansible
"""
