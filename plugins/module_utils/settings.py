# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the variables of a node to the file its runtime reads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.files import to_json
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home

SCHEMA = 1


def full_settings(home: str | Path, name: str, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Add to ``settings`` (what the inventory decides) the paths of the host; returns what settings.json holds.

    A Worker that is told no database of its own shares the SQLite file and the blobs of its Domain on the same host.
    """
    node = Home(Path(home)).node(name)
    full: dict[str, Any] = {
        **settings,
        "schema": SCHEMA,
        "kind": kind,
        "name": name,
        "identity_file": str(node.identity),
        "node_directory": str(node.root),
    }
    if kind == "domain":
        full["queue"] = {**settings["queue"], "workers_file": str(node.workers)}
    if kind == "worker":
        domain = Home(Path(home)).node(settings["domain"]["name"])
        full.setdefault("blob_directory", str(domain.data / "blobs"))
        if not settings.get("database_url_file"):
            full.setdefault("database_url", f"sqlite:///{domain.database}")
    return full


def settings_text(home: str | Path, name: str, kind: str, settings: dict[str, Any]) -> str:
    return to_json(full_settings(home, name, kind, settings))


def digest(text: str | None) -> str | None:
    """The digest that the running node reports for the settings it started with."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
