# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that make a bundle, run so that a person learns what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import sha256_of
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.release_stage import trust
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import find_uv
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import ROLES

PIP_LOCK = ROLES / "bundle" / "files" / "pip.txt"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """What a bundle is made for: a Python (``3.11``) on a platform (``linux-x86_64``)."""

    python: str
    platform: str

    @property
    def tag(self) -> str:
        return f"cp{self.python.replace('.', '')}"

    @property
    def machine(self) -> str:
        return self.platform.partition("-")[2]

    @property
    def text(self) -> str:
        return f"Python {self.python} on {self.platform}"


@dataclass(frozen=True)
class Workshop:
    """Where a bundle is made: the cache that makes the next one quick, and how to tell what happens."""

    cache: Path
    say: Say

    def folder(self, name: str) -> Path:
        """A folder of the cache."""
        folder = self.cache / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def uv(self, *arguments: str, complaint: str, **variables: str) -> str:
        """Run uv and return what it writes."""
        variables = {"UV_CACHE_DIR": str(self.folder("uv")), "NO_COLOR": "1", **variables}
        return run([str(find_uv()), *arguments], complaint, variables)

    def pip(self) -> list[str]:
        """The command that is pip, in an environment of its own."""
        environment = self.cache / f"pip-{sha256_of(PIP_LOCK)[:12]}"
        python = environment / "bin" / "python"
        ready = environment / "ready"
        if not ready.exists():
            complaint = "cannot install pip, which downloads the packages"
            self.uv("venv", "--quiet", "--clear", "--python", sys.executable, str(environment), complaint=complaint)
            options = ["--python", str(python), "--require-hashes", "-r", str(PIP_LOCK)]
            self.uv("pip", "install", "--quiet", *options, complaint=complaint)
            ready.touch()
        return [str(python), "-I", "-m", "pip"]


def cache_folder(given: str) -> Path:
    """Where downloads are kept between bundles: what was asked for, else the account's cache folder."""
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pygrid" / "bundle"


def run(command: Sequence[str], complaint: str, variables: dict[str, str] | None = None) -> str:
    """Run a program and return its output; a PygridError tells what it complained about."""
    environment = {**trust(), **os.environ, **(variables or {})}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise PygridError(f"{complaint}: {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise PygridError(f"{complaint}: {' '.join(lines[-8:])[-1500:] or 'no reason given'}")
    return done.stdout
