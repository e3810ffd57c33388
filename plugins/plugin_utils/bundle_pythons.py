# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uv for the hosts, and CPython for those whose own does not fit."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import sha256_of
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.release_files import platform_tag
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Target, Workshop
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_wheels import Pin, WheelStore
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import find_uv, uv_version

with contextlib.suppress(ImportError):  # part of ansible-core, but ansible-test imports plugins without it
    from packaging.requirements import Requirement


def uv_for(workshop: Workshop, store: WheelStore, target: Target) -> Path:
    """The controller's own uv, or for another platform the same version from the package index."""
    if target.platform == platform_tag():
        return find_uv()
    version = uv_version()
    program = workshop.folder("tools") / f"uv-{version}-{target.platform}"
    if not program.exists():
        pin = Pin(Requirement(f"uv=={version}"), ())
        wheel = store.fetch([pin], target, f"uv for {target.platform}")[pin]
        with zipfile.ZipFile(wheel) as content:
            inside = next(name for name in content.namelist() if name.endswith(".data/scripts/uv"))
            partial = program.with_suffix(".partial")
            partial.write_bytes(content.read(inside))
            partial.replace(program)
    return program


def python_for(workshop: Workshop, target: Target) -> tuple[Path, dict[str, Any]]:
    """The archive of a CPython for the target, checked by uv against its own list, and its entry in the bundle."""
    downloads = workshop.folder("pythons") / f"{target.tag}-{target.platform}"
    record = downloads / "entry.json"
    if record.exists():
        entry = json.loads(record.read_text(encoding="utf-8"))
        archive = downloads / entry["name"]
        if archive.exists() and sha256_of(archive) == entry["sha256"]:
            return archive, entry
    shutil.rmtree(downloads, ignore_errors=True)
    workshop.say(f"CPython {target.python} for {target.platform}")
    complaint = (
        f"cannot download CPython {target.python} for {target.platform}; "
        "is the network reachable (HTTPS_PROXY, UV_PYTHON_INSTALL_MIRROR)?"
    )
    with tempfile.TemporaryDirectory(dir=workshop.folder("work")) as folder:
        kept = Path(folder) / "kept"
        installed = Path(folder) / "installed"
        workshop.uv(
            "python", "install", "--quiet", "--no-bin", "--install-dir", str(installed),
            f"cpython-{target.python}-linux-{target.machine}-gnu",
            complaint=complaint, UV_PYTHON_CACHE_DIR=str(kept), UV_PYTHON_DOWNLOADS="manual",
        )  # fmt: skip
        archive = next((path for path in kept.iterdir() if path.is_file()), None)
        version = next((path.name.split("-")[1] for path in installed.glob("cpython-*.*.*-linux-*")), None)
        if archive is None or version is None:
            raise PygridError(f"{complaint} uv kept nothing of it")
        entry = {
            "name": archive.name.partition("-")[2],
            "version": version,
            "tag": target.tag,
            "platform": target.platform,
            "sha256": sha256_of(archive),
        }
        downloads.mkdir()
        shutil.move(archive, downloads / entry["name"])
        record.write_text(json.dumps(entry), encoding="utf-8")
    return downloads / entry["name"], entry
