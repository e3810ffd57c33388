# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules of Google Compute Engine have in common, for their documentation."""

from __future__ import annotations


class ModuleDocFragment:
    """Where, and as whom."""

    DOCUMENTATION = r"""
options:
  project:
    description: The project.
    type: str
    required: true
notes:
  - Credentials are the application default ones, as Google's own tools find them.
requirements:
  - google-auth and requests in the Python that runs the module
"""
