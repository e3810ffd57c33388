# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of RHEL 9 and its relatives with all that they need. Not tested: no such system could be had."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import distribution_key
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.operating_system import describe
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Workshop, run


@dataclass(frozen=True)
class Rpm:
    """One package of a distribution."""

    name: str
    version: str
    licence: str
    file: Path


def fetch(workshop: Workshop, distribution: str, machine: str, names: list[str]) -> tuple[list[Rpm], list[Path]]:
    """The packages and everything they depend on, and the files of a repository around them."""
    own = describe()
    if distribution_key(own) != distribution:
        raise PygridError(
            f"the packages of {distribution} cannot be fetched on {own['id']} {own['version_id']}; "
            "make the bundle there"
        )
    folder = workshop.folder(f"dnf/{distribution}-{machine}")
    command = ["dnf", "download", "--quiet", "--resolve", "--alldeps", f"--forcearch={machine}", f"--destdir={folder}"]
    run([*command, *names], f"cannot download the packages of {distribution} (needs dnf-plugins-core)")
    shutil.rmtree(folder / "repodata", ignore_errors=True)
    run(["createrepo_c", "--quiet", str(folder)], "cannot make a repository of them (needs createrepo_c)")
    query = ["rpm", "--query", "--package", "--nosignature"]
    query += ["--queryformat", "%{NAME}\\t%{VERSION}-%{RELEASE}\\t%{LICENSE}"]
    rpms = []
    for file in sorted(folder.glob("*.rpm")):
        name, version, licence = run([*query, str(file)], f"cannot read {file.name}").split("\t")
        rpms.append(Rpm(name, version, licence, file))
    return rpms, sorted((folder / "repodata").iterdir())
