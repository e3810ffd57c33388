# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grid under test, and who owns its Domains."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, os.environ["MOLECULE_PROJECT_DIRECTORY"])

from tests.support.cloud_grid import CloudGrid

MACHINES = [
    {"role": "network", "size": "t3.medium"},
    {"role": "domain", "name": "alice", "size": "t3.large", "data_disk": 30},
    {"role": "domain", "name": "bob", "size": "t3.large"},
    {"role": "worker", "domain": "alice", "size": "t3.medium"},
    {"role": "worker", "domain": "bob", "size": "t3.medium"},
]


@pytest.fixture(scope="session")
def grid() -> CloudGrid:
    return CloudGrid(os.environ["MOLECULE_SCENARIO_NAME"], MACHINES)


@pytest.fixture(scope="session")
def owner(grid: CloudGrid, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with the root accounts of the Domains; made when the grid is there."""
    folder = tmp_path_factory.mktemp("owner")
    return {domain: grid.identity(domain, folder) for domain in ("alice", "bob")}
