# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Regenerate the lock files of releases and of the supervisor, and the list of files a node imports.

    python3 requirements/lock.py [--locks] [--imports]     both without an option

Needs uv, and CPython 3.10, 3.11 and 3.12 on PATH.

Locks hold for every supported Python on every platform. The list of imported files is one for all versions and
Pythons; a file that a release has not is passed over, one that is missing is compiled by whoever imports it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = Path(__file__).resolve().parents[1] / "roles" / "node" / "files"
LOCKS = FILES / "locks"
VERSIONS = ("0.9.5", "0.9.3", "0.9.2")  # 0.9.4 was never published
PYTHONS = ("3.11", "3.10", "3.12")
# sniffio: kr8s, which syft imports, needs it and does not say so.
NODE_REQUIREMENTS = ("sniffio", "prometheus-client")
HEADER = "# Made by requirements/lock.py; do not edit.\n"


def uv(*arguments: str) -> str:
    """Run uv beside this interpreter or on PATH and return its output."""
    beside = Path(sys.executable).parent / "uv"
    program = str(beside) if beside.exists() else shutil.which("uv")
    if program is None:
        sys.exit(f"uv is missing: {sys.executable} -m pip install uv")
    return subprocess.run([program, *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout


def lock(requirements: list[str], target: Path, folder: Path) -> None:
    """Resolve requirements for all supported Pythons, with hashes."""
    source = folder / "requirements.in"
    source.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    result = folder / target.name
    if target.exists():  # versions that are pinned stay, so that a new syft version moves nothing else
        result.write_text(target.read_text(encoding="utf-8"), encoding="utf-8")
    options = ("--universal", "--python-version", "3.10", "--generate-hashes", "--no-header", "--no-annotate")
    uv("pip", "compile", "--quiet", *options, str(source), "--output-file", str(result))
    target.write_text(HEADER + result.read_text(encoding="utf-8").removeprefix(HEADER), encoding="utf-8")


def imports(version: str, python: str, folder: Path) -> list[str]:
    """Return the files a node of this version imports, in order."""
    environment = folder / f"{version}-{python}"
    interpreter = environment / "bin" / "python"
    uv("venv", "--quiet", "--python", python, str(environment))
    locked = str(LOCKS / f"syft-{version}.txt")
    uv("pip", "install", "--quiet", "--python", str(interpreter), "--require-hashes", "-r", locked)
    site_packages = environment / "lib" / f"python{python}" / "site-packages"
    shutil.copytree(FILES / "pygrid_node", site_packages / "pygrid_node")
    command = [str(interpreter), "-I", "-Wignore", str(FILES / "staging" / "verify.py"), version, "--list"]
    variables = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=variables).stdout.splitlines()


def main() -> None:
    """Regenerate what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locks", action="store_true", help="only the lock files")
    parser.add_argument("--imports", action="store_true", help="only the list of imported files")
    arguments = parser.parse_args()
    everything = arguments.locks == arguments.imports
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if everything or arguments.locks:
            for version in VERSIONS:
                lock([f"syft=={version}", *NODE_REQUIREMENTS], LOCKS / f"syft-{version}.txt", folder)
            lock(["supervisor"], LOCKS / "supervisor.txt", folder)
        if everything or arguments.imports:
            found: dict[str, None] = {}
            for version in VERSIONS:
                for python in PYTHONS:
                    found.update(dict.fromkeys(imports(version, python, folder)))
            (LOCKS / "imports.txt").write_text("".join(f"{name}\n" for name in found), encoding="utf-8")


if __name__ == "__main__":
    main()
