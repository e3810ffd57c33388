# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grid under test, and who owns its Domains."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

sys.path.insert(0, os.environ["MOLECULE_PROJECT_DIRECTORY"])

from tests.support.cloud_grid import CloudGrid

SCENARIO = os.environ["MOLECULE_SCENARIO_NAME"]


@pytest.fixture(scope="session")
def grid() -> Iterator[CloudGrid]:
    kind = import_module(f"tests.support.{SCENARIO.removeprefix('cloud_')}_grid")
    with kind.Grid(SCENARIO).watched() as grid:
        yield grid


@pytest.fixture(scope="session")
def owner(grid: CloudGrid, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with the root accounts of the Domains; made when the grid is there."""
    folder = tmp_path_factory.mktemp("owner")
    return {domain: grid.identity(domain, folder) for domain in ("alice", "bob")}
