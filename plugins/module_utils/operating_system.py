# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which operating system a host runs, which of its packages the host lacks, and which of its services it runs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

FAMILIES = {"debian": "debian", "ubuntu": "debian", "rhel": "redhat", "fedora": "redhat", "centos": "redhat"}
RELEASE_FILES = (Path("/etc/os-release"), Path("/usr/lib/os-release"))


def describe(text: str | None = None) -> dict[str, str]:
    """``id``, ``version_id`` and ``family`` (``debian``, ``redhat`` or empty) as os-release tells them.

    ``text``: content of an os-release file instead of this host's own.
    """
    if text is None:
        text = next((path.read_text(encoding="utf-8") for path in RELEASE_FILES if path.exists()), "")
    values = {}
    for line in text.splitlines():
        name, _equals, value = line.partition("=")
        values[name.strip()] = " ".join(shlex.split(value, comments=True))
    candidates = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    family = next((FAMILIES[name] for name in candidates if name in FAMILIES), "")
    return {"id": values.get("ID", ""), "version_id": values.get("VERSION_ID", ""), "family": family}


def missing_packages(family: str, wanted: list[str]) -> list[str]:
    """Those of ``wanted`` that the distribution's own database does not list as installed."""
    if not wanted:
        return []
    if family == "debian":
        # A package that was removed but not purged is listed as well, so its state counts.
        command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *wanted]
        installed = [line.split()[0] for line in _lines(command) if line.endswith(" installed")]
    else:
        installed = _lines(["rpm", "--query", "--queryformat", "%{NAME}\\n", *wanted])
    return [name for name in wanted if name not in installed]


def running_services(pattern: str) -> list[str]:
    """Units of systemd that match, run, and are started with the host."""
    listed = _lines(["systemctl", "list-units", "--plain", "--no-legend", "--type=service", "--state=active", pattern])
    active = [line.split()[0] for line in listed if line.strip()]
    states = _lines(["systemctl", "is-enabled", *active]) if active else []
    return [unit for unit, state in zip(active, states) if state == "enabled"]


def _lines(command: list[str]) -> list[str]:
    program = shutil.which(command[0])
    if program is None:
        return []
    result = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return result.stdout.splitlines()
