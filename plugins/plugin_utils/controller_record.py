# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of what was done from this controller: where it lies, and by which version of the collection."""

from __future__ import annotations

import json
import os
from pathlib import Path

import yaml

COLLECTION = Path(__file__).resolve().parents[2]


def record_path(given: str) -> Path | None:
    """The file that ``pygrid_record_file`` means; None for no record."""
    if given == "none":
        return None
    if given:
        return Path(os.path.expandvars(given)).expanduser()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "pygrid" / "changes.jsonl"


def collection_version() -> str:
    """Version of this collection, installed or in a checkout."""
    manifest = COLLECTION / "MANIFEST.json"
    if manifest.exists():
        return json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
    return str(yaml.safe_load((COLLECTION / "galaxy.yml").read_text(encoding="utf-8"))["version"])
