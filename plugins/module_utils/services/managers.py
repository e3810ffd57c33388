# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which service manager keeps the nodes of a home running; one file for each lies beside this one."""

from __future__ import annotations

from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import ServiceManager
from ansible_collections.openmined.pygrid.plugins.module_utils.services.supervisor import Supervisor
from ansible_collections.openmined.pygrid.plugins.module_utils.services.systemd import Systemd


def manager_for(home: Home) -> ServiceManager:
    """Supervisor in scope user, systemd in scope system."""
    return Systemd(home) if home.scope == "system" else Supervisor(home)
