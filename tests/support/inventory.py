# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking Ansible what an inventory says, the way people do."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class Listing:
    """What ``ansible-inventory --list`` said."""

    returncode: int
    document: dict[str, Any]
    errors: str
    seconds: float

    @property
    def hosts(self) -> dict[str, dict[str, Any]]:
        """Variables by host."""
        variables = self.document.get("_meta", {}).get("hostvars", {})
        return {host: variables.get(host, {}) for group in self.document.values() for host in group.get("hosts", [])}

    @property
    def groups(self) -> dict[str, list[str]]:
        """Hosts by group, of groups that have hosts of their own."""
        return {name: sorted(group["hosts"]) for name, group in self.document.items() if group.get("hosts")}


def write_source(path: Path, plugin: str, **options: Any) -> Path:
    """A file for one of our inventory plugins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"plugin": f"openmined.pygrid.{plugin}", **options}))
    return path


def run(command: list[str], environment: Mapping[str, str], timeout_seconds: int = 120) -> Any:
    """Run a command of Ansible in the checkout."""
    return subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def list_inventory(*sources: Path, environment: Mapping[str, str], within: list[str] | None = None) -> Listing:
    """List one or several sources together; ``within``: the words that bring a command to another network."""
    began = time.monotonic()
    words = [word for source in sources for word in ("-i", source)]
    done = run([*(within or []), "ansible-inventory", *map(str, words), "--list"], environment)
    document = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    return Listing(done.returncode, document, done.stderr, time.monotonic() - began)


def refusal(found: Listing) -> str:
    """What was said instead of hosts, on one line."""
    assert not found.hosts
    return " ".join(found.errors.split())
