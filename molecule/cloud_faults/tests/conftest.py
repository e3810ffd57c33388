# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets tests use what tests/ has."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.environ["MOLECULE_PROJECT_DIRECTORY"])
