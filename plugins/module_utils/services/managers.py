# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which service manager is meant by its name; one file for each lies beside this one."""

from __future__ import annotations

from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import ServiceManager
from ansible_collections.openmined.pygrid.plugins.module_utils.services.supervisor import Supervisor

MANAGERS = {"supervisor": Supervisor}


def manager_for(name: str, home: Home) -> ServiceManager:
    return MANAGERS[name](home)
