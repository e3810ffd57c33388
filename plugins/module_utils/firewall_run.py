# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the programs that a firewall is made of."""

from __future__ import annotations

import os
import shutil
import subprocess

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

# sudo's and Ansible's PATH may lack the folders of administrators' programs.
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
TIMEOUT_SECONDS = 60


def has(program: str) -> bool:
    return shutil.which(program, path=SYSTEM_PATH) is not None


def run(argv: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in the C locale, its output in English; the caller looks at its exit code."""
    environment = {**os.environ, "PATH": SYSTEM_PATH, "LC_ALL": "C"}
    try:
        return subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, env=environment
        )
    except FileNotFoundError:
        raise PygridError(f"{argv[0]} is not installed on this machine; install the package it is in") from None
    except subprocess.TimeoutExpired:
        raise PygridError(f"{' '.join(argv)} did not end within {TIMEOUT_SECONDS} s") from None


def checked(argv: list[str], text: str | None = None) -> str:
    """The output of a program that has to succeed."""
    result = run(argv, text)
    if result.returncode:
        said = (result.stderr.strip() or result.stdout.strip() or f"exit code {result.returncode}").splitlines()
        raise PygridError(f"{' '.join(argv)} failed: {' '.join(line.strip() for line in said)}")
    return result.stdout


def output_of(argv: list[str]) -> str:
    """The output of a program, empty when it failed or is not there."""
    try:
        result = run(argv)
    except PygridError:
        return ""
    return "" if result.returncode else result.stdout
