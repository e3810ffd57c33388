# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the Python on a host from which a release is made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Requires-Python of syft 0.9 is >=3.10; its pins have no wheels for 3.13 and later (measured).
SUPPORTED = ((3, 10), (3, 11), (3, 12))
SUPPORTED_TEXT = "3.10, 3.11 or 3.12"
SUPPORTED_VERSIONS = tuple(f"{major}.{minor}" for major, minor in SUPPORTED)
CANDIDATES = ("python3.12", "python3.11", "python3.10", "python3")


@dataclass(frozen=True)
class Interpreter:
    """One Python on the host. ``tag`` is its minor version as a release's name sees it, say ``cp311``."""

    path: str
    version: tuple[int, int, int]
    implementation: str = "cpython"

    @property
    def tag(self) -> str:
        return f"cp{self.version[0]}{self.version[1]}"

    @property
    def text(self) -> str:
        return ".".join(str(part) for part in self.version)

    @property
    def is_supported(self) -> bool:
        return self.implementation == "cpython" and self.version[:2] in SUPPORTED

    def as_data(self) -> dict[str, str]:
        return {"path": self.path, "version": self.text, "tag": self.tag}


def inspect(path: str) -> Interpreter | None:
    """Ask the interpreter ``path`` (a name is looked up in PATH) for its version; None when it cannot run.

    A shim or a virtual environment answers with the interpreter behind it, which outlives both.
    """
    found = shutil.which(Path(path).expanduser())
    if found is None:
        return None
    program = (
        "import sys; print(getattr(sys, '_base_executable', None) or sys.executable, sys.implementation.name,"
        " *sys.version_info[:3], sep='\\n')"
    )
    try:
        # -I: neither the folder we are in nor the caller's environment may change the answer
        output = subprocess.run(
            [found, "-I", "-c", program], capture_output=True, text=True, timeout=20, check=True
        ).stdout.split("\n")
        return Interpreter(output[0], (int(output[2]), int(output[3]), int(output[4])), output[1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def own() -> Interpreter:
    """The interpreter that runs this module, without the virtual environment it may be in."""
    executable = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(executable, sys.version_info[:3], sys.implementation.name)


def managed(folder: Path, version: str) -> Interpreter:
    """The CPython ``version`` (``3.11``) that uv brought to ``folder``; without a path until it is there."""
    for path in sorted(folder.glob(f"cpython-{version}.*/bin/python{version}")):
        interpreter = inspect(str(path))
        if interpreter is not None and interpreter.is_supported:
            return interpreter
    major, minor = map(int, version.split("."))
    return Interpreter("", (major, minor, 0))


def managed_folder(home: Path) -> Path:
    """Where uv puts the Pythons that it brings to a host."""
    return home / "tools" / "pythons"


def find(
    requested: str | None, managed_version: str = "", home: Path | None = None
) -> tuple[Interpreter | None, str | None]:
    """The Python for a release, and what is wrong with it (None when nothing is).

    ``requested`` is the variable ``pygrid_python``. Without it the Python that runs Ansible's modules is taken when
    it is supported, since asking it costs nothing, else the first supported one in PATH.
    ``managed_version`` is ``pygrid_managed_python``: the one that uv brings to the folder ``home`` is taken then.
    """
    if managed_version and home is not None:
        if requested:
            return None, "pygrid_python and pygrid_managed_python are both set; remove one of them"
        return managed(managed_folder(home), managed_version), None
    if requested:
        interpreter = inspect(requested)
        if interpreter is None:
            return None, f"pygrid_python is {requested}, which is no Python that can be run here{_usable()}"
        if interpreter.is_supported:
            return interpreter, None
        return interpreter, (
            f"pygrid_python is {requested}, {interpreter.implementation} {interpreter.text};"
            f" syft runs on CPython {SUPPORTED_TEXT}{_usable()}"
        )
    interpreter = own()
    if interpreter.is_supported:
        return interpreter, None
    seen = {interpreter.path: interpreter.text}
    for candidate in CANDIDATES:
        other = inspect(candidate)
        if other is not None and other.is_supported:
            return other, None
        if other is not None:
            seen[other.path] = other.text
    found = ", ".join(f"{version} ({path})" for path, version in seen.items())
    return None, (
        f"no Python {SUPPORTED_TEXT} was found, only {found}; install one and, if it is not in PATH,"
        " set pygrid_python to its path, or let uv bring one: pygrid_managed_python=3.11"
    )


def _usable() -> str:
    """The remedy: what is there, or that something has to be installed."""
    found = [path for path in map(shutil.which, CANDIDATES) if path]
    if found:
        return f"; in PATH are {', '.join(found)}"
    return f"; install CPython {SUPPORTED_TEXT} and name it by pygrid_python"
