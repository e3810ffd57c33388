# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of what was done from this controller: where it lies."""

from __future__ import annotations

import os
from pathlib import Path


def record_path(given: str) -> Path | None:
    """The file that ``pygrid_record_file`` means; None for no record."""
    if given == "none":
        return None
    if given:
        return Path(os.path.expandvars(given)).expanduser()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "pygrid" / "changes.jsonl"
