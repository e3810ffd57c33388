# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules stand to check mode and diff, in Ansible's own terms."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of the modules of openmined.pygrid."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and say what would change, without changing it.
    support: full
  diff_mode:
    description: Returns what changed (or would change) in check mode.
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and say what would change, without changing it.
    support: full
    details: It never changes anything.
  diff_mode:
    description: Returns what changed (or would change) in check mode.
    support: N/A
    details: It never changes anything.
"""
