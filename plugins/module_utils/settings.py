# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the variables of a node to the file its runtime reads."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.paths import SYSTEM_CONFIGURATION, Home, NodePaths

SCHEMA = 1
# What the nodes of a host trust: the system's authorities and that of the grid (role certificates).
TRUST = SYSTEM_CONFIGURATION / "trust.pem"


def full_settings(home: Home, name: str, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Add to ``settings`` (what the inventory decides) the paths of the host; returns what settings.json holds.

    In scope user a Worker shares the SQLite file and the blobs of its Domain. In scope system nodes share no files.
    """
    node = home.node(name)
    full: dict[str, Any] = {
        **settings,
        "schema": SCHEMA,
        "kind": kind,
        "name": name,
        "identity_file": str(node.identity),
        "node_directory": str(node.state),
    }
    if kind != "worker":
        full["trial_file"] = str(node.trial)
    if kind == "domain":
        full["queue"] = {**settings["queue"], "workers_file": str(node.workers)}
    if home.scope == "system":
        full.update(_system_settings(node, kind, settings))
        full.pop("client_certificate", None)  # became the path of a file
    elif kind == "worker":
        domain = home.node(settings["domain"]["name"])
        full["blob_directory"] = str(domain.data / "blobs")
        full["database_url"] = f"sqlite:///{domain.database}"
    return full


def _system_settings(node: NodePaths, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The paths of scope system; ``database_tls`` is there when the node's database is PostgreSQL."""
    full: dict[str, Any] = {"run_directory": str(node.run), "trust_file": str(TRUST)}
    if "database_tls" in settings:
        full["database_url_file"] = str(node.database_url)
    if kind == "worker":
        full["blob_directory"] = str(node.data / "blobs")
    if (settings.get("blobs") or {}).get("kind") == "s3":
        full["blobs"] = {**settings["blobs"], "credentials_file": str(node.object_store)}
    if settings.get("client_certificate"):
        full["client_certificate_file"] = str(node.client_certificate)
    return full


def digest(text: str | None) -> str | None:
    """The digest that the running node reports for the settings it started with."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
