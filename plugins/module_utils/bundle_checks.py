# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a bundle fits this host, before anything is changed. Standard library only, Python 3.8+."""

from __future__ import annotations

from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import (
    distribution_key,
    find_python,
    why_no_packages,
    why_no_release,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.release_files import platform_tag
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import normal_packages


def check_bundle(
    bundle: dict[str, Any] | None,
    host: dict[str, Any],
    wanted: dict[str, Any],
    source: dict[str, str],
    packages: list[str],
) -> list[str]:
    """One sentence for everything that the host lacks and the bundle has not.

    bundle: what ``openmined.pygrid.bundle_archive`` found out about it, None without one. host and wanted: as
    ``openmined.pygrid.node_info`` returns them. source and packages: what the release is made of.
    """
    if not bundle:
        return []
    platform = platform_tag()
    problems = [why_no_packages(bundle, distribution_key(host["os"]), platform, host["missing_packages"])]
    tag = wanted.get("tag")
    if tag and not wanted["staged"]:
        need = {"version": source["version"], "lock_sha256": source["lock_sha256"]}
        need.update(packages=normal_packages(packages), tag=tag, platform=platform)
        problems.append(why_no_release(bundle, need))
        if not wanted["python"] and not find_python(bundle, tag, platform):
            problems.append(f"it has no CPython for {platform} ({tag})")
    remedy = "make it anew with playbooks/bundle.yml"
    return [f"the bundle {bundle['file']} does not fit: {problem}; {remedy}" for problem in problems if problem]
