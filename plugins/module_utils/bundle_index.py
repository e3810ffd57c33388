# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle holds, and whether that is what a host needs. Standard library only, Python 3.8+."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SCHEMA = 1
INDEX = "bundle.json"
# Names of processors as Python says them, and as Debian does.
DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def sha256_of(path: Path) -> str:
    """Checksum (hex) of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_index(text: bytes) -> dict[str, Any]:
    """The parsed list of contents; ValueError when it is none, or one of another generation of the collection."""
    index = json.loads(text)
    if not isinstance(index, dict) or index.get("schema") != SCHEMA:
        raise ValueError(f"its list of contents is not of schema {SCHEMA}")
    return index


def distribution_key(system: dict[str, str]) -> str:
    """Which packages fit an operating system: ``debian-12``, ``ubuntu-22.04``, ``el-9`` for RHEL and its relatives.

    ``system``: as ``operating_system.describe`` returns it.
    """
    if system["family"] == "redhat" and system["id"] != "fedora":
        return f"el-{system['version_id'].split('.')[0]}"
    return f"{system['id']}-{system['version_id']}"


def find_release(index: dict[str, Any], need: dict[str, Any]) -> dict[str, Any] | None:
    """The entry of the release that ``need`` (version, lock_sha256, packages, tag, platform) describes."""
    return next((entry for entry in index["releases"] if all(entry[key] == need[key] for key in need)), None)


def find_python(index: dict[str, Any], tag: str, platform: str) -> dict[str, Any] | None:
    """The CPython that the bundle carries for hosts whose own does not fit."""
    return next((entry for entry in index["pythons"] if (entry["tag"], entry["platform"]) == (tag, platform)), None)


def find_distribution(index: dict[str, Any], key: str, platform: str) -> dict[str, Any] | None:
    """The entry of the packages for an operating system on a processor."""
    entries = index["distributions"]
    return next((entry for entry in entries if (entry["name"], entry["platform"]) == (key, platform)), None)


def find_uv(index: dict[str, Any], platform: str) -> str | None:
    """Path inside the bundle of a uv for the platform."""
    return next((entry["path"] for entry in index["uv"] if entry["platform"] == platform), None)


def summary(index: dict[str, Any]) -> dict[str, Any]:
    """What has to be known of a bundle to tell whether it fits a host: all but the files."""
    releases = [{key: value for key, value in entry.items() if key != "wheels"} for entry in index["releases"]]
    return {**{key: index[key] for key in ("uv", "pythons", "distributions")}, "releases": releases}


def why_no_release(index: dict[str, Any], need: dict[str, Any]) -> str | None:
    """A sentence when the bundle has nothing from which the release can be made, else None."""
    if find_release(index, need):
        return None
    fitting = index["releases"]
    checks = (
        ("platform", "for {}", "the host is {}"),
        ("tag", "for Python {}", "the host has {}"),
        ("version", "with syft {}", "pygrid_version is {}"),
        ("lock_sha256", "from the lock file {}", "this collection's (or pygrid_lock_file) is {}"),
        ("packages", "with the packages {}", "pygrid_worker_packages is {}"),
    )
    for key, has, needs in checks:
        matching = [entry for entry in fitting if entry[key] == need[key]]
        if not matching:
            held = " and ".join(sorted({_short(entry[key]) for entry in fitting})) or "nothing"
            return f"its releases are {has.format(held)}, {needs.format(_short(need[key]))}"
        fitting = matching
    return None


def why_no_packages(index: dict[str, Any], key: str, platform: str, missing: list[str]) -> str | None:
    """A sentence when the bundle lacks packages of the distribution that the host is missing, else None."""
    if not missing:
        return None
    entry = find_distribution(index, key, platform)
    names = ", ".join(missing)
    if entry is None:
        held = [f"{entry['name']} on {entry['platform']}" for entry in index["distributions"]]
        return (
            f"its packages are for {' and '.join(held) or 'no distribution'}, "
            f"the host is {key} on {platform} and lacks {names}"
        )
    absent = [name for name in missing if name not in entry["contents"]]
    return f"it has no {', '.join(absent)} for {key}" if absent else None


def _short(value: Any) -> str:
    """A value of a release for a sentence; of a checksum only as much as tells two of them apart."""
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return value[:12] if len(value) == 64 else value
