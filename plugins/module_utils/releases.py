# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release is called, where it lies and how to tell that it is complete. Standard library only, Python 3.8+."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SCHEMA = 1
SUPPORTED_PYTHONS = ((3, 10), (3, 11), (3, 12))
STAGING_PREFIX = ".staging-"
MANIFEST = "manifest.json"
DIGEST_LENGTH = 12
_RELEASE_NAME = re.compile(r"^[0-9][0-9A-Za-z.]*-[0-9a-f]{12}$")
# A shim or a virtual environment answers with the interpreter behind it, which outlives both.
_ASK_PYTHON = (
    "import sys; print('%d.%d.%d' % sys.version_info[:3]); print(sys.implementation.name); "
    "print(getattr(sys, '_base_executable', None) or sys.executable)"
)


class ReleaseError(Exception):
    """A reason a person can act upon; its text is shown as it is."""


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


def python_tag(version: str | tuple | None = None) -> str:
    """Return cp311 for 3.11.x; without an argument for the interpreter that runs this."""
    if version is None:
        version = sys.version_info[:2]
    parts = version.split(".") if isinstance(version, str) else version
    return f"cp{int(parts[0])}{int(parts[1])}"


def releases_folder(home: str | os.PathLike) -> Path:
    """Return the folder that holds all releases of a grid folder."""
    return Path(home) / "releases"


def is_release_name(name: str) -> bool:
    """Tell whether a folder name has the form of a release (staging leftovers have not)."""
    return bool(_RELEASE_NAME.match(name))


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


def releases_in_use(home: str | os.PathLike) -> dict:
    """Return {release name: [names of the nodes whose current link points at it]}."""
    used: dict = {}
    try:
        nodes = sorted(entry.name for entry in os.scandir(Path(home) / "nodes"))
    except OSError:
        return used
    for node in nodes:
        name = active_release(Path(home) / "nodes" / node)
        if name:
            used.setdefault(name, []).append(node)
    return used


def inspect_python(python: str = "python3") -> dict:
    """Return {path, version, tag} of an interpreter on this host, given by path or by name.

    Raises ReleaseError when it is missing, is no CPython or has a version for which syft has no wheels.
    """
    path = shutil.which(os.path.expanduser(python))  # noqa: PTH111 - a plain name must stay one
    if path is None:
        raise ReleaseError(f"no Python called '{python}' on this host{_other_pythons()}")
    try:
        asked = subprocess.run(
            [path, "-I", "-S", "-c", _ASK_PYTHON], capture_output=True, text=True, timeout=60, check=False
        )
        version, implementation, executable = asked.stdout.splitlines()
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"{path} did not answer within 60 seconds{_other_pythons()}") from None
    except OSError as error:
        raise ReleaseError(f"{path} does not run: {error.strerror}{_other_pythons()}") from error
    except ValueError:
        raise ReleaseError(f"{path} is no working Python (exit code {asked.returncode}){_other_pythons()}") from None
    supported = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHONS)
    if implementation != "cpython" or tuple(int(part) for part in version.split(".")[:2]) not in SUPPORTED_PYTHONS:
        raise ReleaseError(f"{path} is {implementation} {version}; supported is CPython {supported}{_other_pythons()}")
    return {"path": executable, "version": version, "tag": python_tag(version)}


def _other_pythons() -> str:
    found = [shutil.which(f"python{major}.{minor}") for major, minor in reversed(SUPPORTED_PYTHONS)]
    usable = [path for path in found if path]
    if usable:
        return f"; set pygrid_python to one that is there: {', '.join(usable)}"
    return "; install one of them and name it by pygrid_python"
