# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that talk to Azure have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules for Azure."""

    DOCUMENTATION = r"""
options:
  endpoint:
    description:
      - Address of Azure's Resource Manager. Without it the one that E(AZURE_RESOURCE_MANAGER_URL) names.
    type: str
    default: https://management.azure.com
notes:
  - Credentials are found as the Azure SDK finds them, in the environment, of this machine, or of C(az login).
requirements:
  - azure-identity and azure-mgmt-core in the Python that runs the module
author:
  - OpenMined and contributors (@OpenMined)
"""
