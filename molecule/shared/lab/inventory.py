#!/usr/bin/env python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory script: how the hosts of this scenario are reached, as hosts of its lab or (by choice) as containers.

PYGRID_LAB names another lab than the scenario's; PYGRID_TEST_DRIVER=docker chooses containers.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.lab.lab import Lab


def containers(scenario: str) -> dict[str, dict[str, Any]]:
    """The platforms of the scenario, under the names that docker_create.yml gives them."""
    import yaml

    platforms = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    return {
        platform["name"]: {
            "ansible_connection": "community.docker.docker",
            "ansible_host": f"pygrid-{scenario}-{platform['name']}",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        for platform in platforms
    }


def main() -> None:
    """Print what Ansible asks an inventory script for."""
    if os.environ.get("PYGRID_TEST_DRIVER") == "docker":
        hosts = containers(os.environ["MOLECULE_SCENARIO_NAME"])
    else:
        hosts = Lab(os.environ.get("PYGRID_LAB") or os.environ["MOLECULE_SCENARIO_NAME"]).variables()
    print(json.dumps({"_meta": {"hostvars": hosts}, "all": {"hosts": list(hosts)}}))


main()
