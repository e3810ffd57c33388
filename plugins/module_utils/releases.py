# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release is called, where it lies and how to tell that it is complete. Standard library only, Python 3.8+."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

SCHEMA = 1
STAGING_PREFIX = ".staging-"
MANIFEST = "manifest.json"
DIGEST_LENGTH = 12
_RELEASE_NAME = re.compile(r"^[0-9][0-9A-Za-z.]*-[0-9a-f]{12}$")


def normal_packages(packages: list | None) -> list:
    """Return extra requirements sorted and once each, so that their order never makes a new release."""
    return sorted({str(package).strip() for package in packages or [] if str(package).strip()})


def release_digest(version: str, lock_sha256: str, runtime_sha256: str, packages: list | None, python_tag: str) -> str:
    """Return the sha256 (hex) of everything a release is made of.

    python_tag is the minor version of CPython as in wheel names, for example cp311.
    """
    content = {
        "schema": SCHEMA,
        "version": version,
        "lock": lock_sha256,
        "runtime": runtime_sha256,
        "packages": normal_packages(packages),
        "python": python_tag,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def release_name(version: str, lock_sha256: str, runtime_sha256: str, packages: list | None, python_tag: str) -> str:
    """Return the folder name of a release below <home>/releases."""
    digest = release_digest(version, lock_sha256, runtime_sha256, packages, python_tag)
    return f"{version}-{digest[:DIGEST_LENGTH]}"


def releases_folder(home: str | os.PathLike) -> Path:
    """Return the folder that holds all releases of a grid folder."""
    return Path(home) / "releases"


def is_release_name(name: str) -> bool:
    """Tell whether a folder name has the form of a release (staging leftovers have not)."""
    return bool(_RELEASE_NAME.match(name))


def version_of(name: str | None) -> str | None:
    """Return the version of syft in the name of a release: 0.9.5-0123456789ab; None for none."""
    return name.partition("-")[0] if name else None


def read_manifest(home: str | os.PathLike, name: str) -> dict | None:
    """Return the manifest of a staged release, or None when it is missing, unreadable or belongs to another release."""
    try:
        manifest = json.loads((releases_folder(home) / name / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or manifest.get("name") != name:
        return None
    return manifest


def is_staged(home: str | os.PathLike, name: str) -> bool:
    """Tell whether a release is complete: its manifest is written last, and its interpreter still starts from there."""
    if not is_release_name(name) or read_manifest(home, name) is None:
        return False
    # The link dangles when the operating system's Python was replaced: such a release must be staged again.
    return os.access(str(releases_folder(home) / name / "env" / "bin" / "python"), os.X_OK)


def staged_releases(home: str | os.PathLike) -> list:
    """Return the names of all complete releases, newest last."""
    found = []
    try:
        entries = sorted(os.scandir(releases_folder(home)), key=lambda entry: entry.name)
    except OSError:
        return []
    for entry in entries:
        manifest = read_manifest(home, entry.name) if is_release_name(entry.name) else None
        if manifest is not None:
            found.append((manifest.get("staged_at", 0), entry.name))
    return [name for _staged_at, name in sorted(found)]


def active_release(node_directory: str | os.PathLike) -> str | None:
    """Return the name of the release a node's `current` link points at, or None."""
    try:
        return Path(os.readlink(Path(node_directory) / "current")).name
    except OSError:
        return None


def releases_in_use(nodes: str | os.PathLike) -> dict:
    """Return {release name: [names of the nodes below the folder `nodes` that run with it, or may go back to it]}."""
    used: dict = {}
    try:
        names = sorted(entry.name for entry in os.scandir(nodes))
    except OSError:
        return used
    for node in names:
        name = active_release(Path(nodes) / node)
        for release in {name, *_named_by_former(Path(nodes) / node)}:
            if release:
                used.setdefault(release, []).append(node)
    return used


def _named_by_former(node: Path) -> list:
    """What going back needs (see module_utils.former)."""
    found = []
    for name in ("former-on-trial.json", "former.json"):
        try:
            former = json.loads((node / name).read_text(encoding="utf-8"))
            found += [former["release"], former["upgraded_to"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
