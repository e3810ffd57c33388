# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README, as an ordinary user follows it: a fresh copy of the project, an empty home, make and nothing else."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.grid import CHECKOUT, LocalGrid

NOBODY = 65534
PYTHONS = ("/usr/bin/python3.12", "/usr/bin/python3.11", "/usr/bin/python3.10", "/usr/bin/python3")


class User:
    """An ordinary account with a fresh copy of the project; the account that runs the tests unless that is root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self.home = folder, folder / "pygrid", folder / "home"
        self.home.mkdir()
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            target = self.project / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target, follow_symlinks=False)
        self.prefix: list[str] = []
        self.python = sys.executable
        if os.geteuid() == 0:
            self.prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            self.python = next(python for python in PYTHONS if Path(python).exists())
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
            folder.chmod(0o755)

    def make(self, target: str, *arguments: str) -> str:
        """Run make; returns what it printed, and fails with that."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))}
        kept.pop("UV_CACHE_DIR", None)
        environment = {**kept, "HOME": str(self.home), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "USER": "grace"}
        done = subprocess.run(
            [*self.prefix, "make", target, f"PYTHON={self.python}", *arguments],
            cwd=self.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=540,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def user() -> Iterator[User]:
    with tempfile.TemporaryDirectory(prefix="pygrid-") as folder:
        yield User(Path(folder))


def test_the_readme_from_the_first_line_to_the_last(user: User) -> None:
    grid = LocalGrid(user.folder, first_port=17650)
    inventory = grid.inventory()
    del inventory["pygrid"]["vars"]["pygrid_home"]
    inventory["pygrid"]["vars"].pop("pygrid_package_cache", None)
    (user.folder / "hosts.json").write_text(json.dumps(inventory))
    where = f"-i {user.folder / 'hosts.json'}"
    try:
        deployed = user.make("deploy", f"EXTRA={where}")
        assert "make demo" in deployed
        assert user.make("deploy", f"EXTRA={where}").count("changed=0") == 5
        owners = {pwd.getpwuid(path.lstat().st_uid).pw_name for path in user.home.rglob("*")}
        assert owners == {pwd.getpwuid(user.home.stat().st_uid).pw_name}
        told = user.make("demo", f"EXTRA={where}")
        assert "federated model" in told
        assert list((user.project / "results").rglob("*.png"))
        assert "ready" in user.make("status", f"EXTRA={where}")
    finally:
        user.make("remove", f"EXTRA={where} -e pygrid_remove_data=true -e pygrid_confirm=true")
    left = [path.relative_to(user.home) for path in user.home.rglob("*") if path.is_file()]
    assert left == [Path(".local/state/pygrid/changes.jsonl")], "what was done is told as long as somebody keeps it"
    assert grid.processes() == {}
