# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the runtime importable as it is on a host: as the package pygrid_node, without the collection around it."""

from __future__ import annotations

import sys
from pathlib import Path

RUNTIME = Path(__file__).parents[3] / "roles" / "node" / "files"
if str(RUNTIME) not in sys.path:
    sys.path.insert(0, str(RUNTIME))
