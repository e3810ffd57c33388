# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grid under test as its lab shows it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, os.environ["MOLECULE_PROJECT_DIRECTORY"])

from tests.support.intranet import Intranet

CHECKOUT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])


@pytest.fixture(scope="session")
def grid() -> Intranet:
    return Intranet(os.environ["MOLECULE_SCENARIO_NAME"], CHECKOUT / ".cache" / "lab" / "pki-intranet" / "ca.pem")
