# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing one node to a wanted state: compare what is with what shall be, then change only that."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import (
    link_atomic,
    read_json,
    read_text,
    to_json,
    write_if_different,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.homes import clean_up, ensure_home, has_nodes, leftovers
from ansible_collections.openmined.pygrid.plugins.module_utils.nodes import read_health
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, NodePaths
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import is_staged
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import ServiceSpec, ServiceState
from ansible_collections.openmined.pygrid.plugins.module_utils.services.managers import manager_for
from ansible_collections.openmined.pygrid.plugins.module_utils.settings import digest, settings_text


@dataclass(frozen=True)
class Wanted:
    """What a running node shall be. ``workers``: allow-list of a Domain, a key of None keeps the key that is there."""

    name: str
    kind: str
    release: str
    settings: dict[str, Any]
    workers: dict[str, str | None] | None
    stop_seconds: int


@dataclass(frozen=True)
class Change:
    """One difference between what is and what shall be, with the texts for ``--diff``."""

    what: str
    before: str
    after: str


class Node:
    """One node on this host and the operations that change it."""

    def __init__(self, home: Home, wanted: Wanted, manager: str) -> None:
        self._home = home
        self._paths = home.node(wanted.name)
        self._wanted = wanted
        self._manager = manager_for(manager, home)
        self._settings = settings_text(home.root, wanted.name, wanted.kind, wanted.settings)
        self._workers = None if wanted.workers is None else to_json(self._known_workers(wanted.workers))
        self._service = service_spec(self._paths, wanted.stop_seconds)

    def _known_workers(self, workers: dict[str, str | None]) -> dict[str, str]:
        present = read_json(self._paths.workers) or {}
        keys = {name: key or present.get(name) for name, key in workers.items()}
        return {name: key for name, key in keys.items() if key}

    def changes(self) -> list[Change]:
        """Everything that :meth:`converge` would change, in its order."""
        found = []
        release = self._paths.active_release()
        if release != self._wanted.release:
            found.append(Change("release", f"{release or ''}\n", f"{self._wanted.release}\n"))
        for what, path, text in self._files():
            if read_text(path) != text:
                found.append(Change(what, read_text(path) or "", text))
        if loose := self._loose_files():
            found.append(Change("permissions", "".join(f"{path}\n" for path in loose), ""))
        if not self._manager.is_defined(self._service):
            found.append(Change("service", "", f"{self._service.name} is kept running\n"))
        state = self._manager.state(self._wanted.name)
        if not state.is_up:
            found.append(Change("state", f"{state.state}\n", "running\n"))
        elif found_stale := self._runs_old(state):
            found.append(Change("state", f"running with {found_stale}\n", "restarted\n"))
        return found

    def _files(self) -> list[tuple[str, Path, str]]:
        files = [("settings", self._paths.settings, self._settings)]
        if self._workers is not None:
            files.append(("workers", self._paths.workers, self._workers))
        return files

    def _loose_files(self) -> list[Path]:
        """What other accounts may get at though they must not; the runtime would refuse to start with it."""
        private = (self._paths.root, self._paths.identity, self._paths.settings, self._paths.workers)
        return [path for path in private if path.exists() and path.stat().st_mode & 0o077]

    def _runs_old(self, state: ServiceState) -> str:
        """Which part of what is wanted the running process does not know yet; empty when it is up to date."""
        health = read_health(self._paths)
        if health:
            if health.get("release") != self._wanted.release:
                return f"release {health.get('release')}"
            return "" if health.get("settings_digest") == digest(self._settings) else "older settings"
        # It does not answer (yet): it is old when it was started before what it reads at its start was written.
        started_at = time.time() - (state.uptime_seconds or 0)
        for path in (self._paths.settings, self._paths.current):
            if path.exists() and path.lstat().st_mtime > started_at + 1:
                return f"an older {path.name}"
        return ""

    def converge(self, changes: list[Change]) -> None:
        """Apply ``changes``. May be killed anywhere: the next run sees what is left to do."""
        if not is_staged(self._home.root, self._wanted.release):
            raise PygridError(f"{self._wanted.name}: release {self._wanted.release} is not staged on this host")
        if not self._paths.identity.exists():
            raise PygridError(f"{self._wanted.name}: {self._paths.identity} is missing; create the identity first")
        self._make_folders()
        for path in self._loose_files():
            path.chmod(path.stat().st_mode & 0o700)
        self._check_settings()
        for _what, path, text in self._files():
            write_if_different(path, text)
        if self._paths.active_release() != self._wanted.release:
            link_atomic(self._paths.current, f"../../releases/{self._wanted.release}")
        # The running node re-reads its allow-list, and permissions matter to others only.
        if all(change.what in ("workers", "permissions") for change in changes):
            return
        if self._manager.state(self._wanted.name).is_up:
            self._manager.stop(self._wanted.name, self._wanted.stop_seconds)
        self._manager.define(self._service)
        self._manager.start(self._service)

    def _check_settings(self) -> None:
        """Let the release that will read the settings judge them before they replace those of the running node."""
        draft = self._paths.root / ".settings.json.draft"
        write_if_different(draft, self._settings)
        python = self._home.releases / self._wanted.release / "env" / "bin" / "python"
        result = subprocess.run(
            [str(python), "-m", "pygrid_node", "check", str(draft)],
            env={"PATH": os.defpath, "HOME": str(self._paths.root / "tmp")},
            cwd=self._paths.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        draft.unlink()
        if result.returncode != 0:
            raise PygridError(f"{self._wanted.name}: its settings are refused: {result.stderr.strip()[-500:]}")

    def _make_folders(self) -> None:
        ensure_home(self._home)
        for folder in (self._home.nodes, self._paths.root, self._paths.data, self._paths.run, self._paths.log):
            folder.mkdir(mode=0o700, exist_ok=True)
        (self._paths.root / "tmp").mkdir(mode=0o700, exist_ok=True)


def service_spec(node: NodePaths, stop_seconds: int) -> ServiceSpec:
    """How a node is run: through ``current``, so that another release needs no other definition."""
    return ServiceSpec(
        name=node.name,
        command=[str(node.python), "-m", "pygrid_node", "run", str(node.settings)],
        directory=str(node.root),
        log_file=str(node.log_file),
        stop_seconds=stop_seconds,
        environment={"PYTHONUNBUFFERED": "1"},
    )


def stop_node(home: Home, name: str, manager: str, stop_seconds: int, dry_run: bool) -> bool:
    """Stop a node; returns whether it ran."""
    service = manager_for(manager, home)
    if not service.state(name).is_up:
        return False
    if not dry_run:
        service.stop(name, stop_seconds)
    return True


def remove_node(
    home: Home, name: str, manager: str, stop_seconds: int, remove_data: bool, dry_run: bool
) -> list[Change]:
    """Remove what a deploy made for a node, identity and data only with ``remove_data``; returns what was removed."""
    node = home.node(name)
    service = manager_for(manager, home)
    found = []
    if service.state(name).state != "absent" or service.is_defined(service_spec(node, stop_seconds)):
        found.append(Change("service", f"{name} is kept running\n", ""))
    kept = () if remove_data else (node.identity, node.data)
    doomed = [entry for entry in sorted(node.root.iterdir()) if entry not in kept] if node.root.is_dir() else []
    if doomed or (remove_data and node.root.is_dir()):
        found.append(Change("files", "".join(f"{entry}\n" for entry in doomed), ""))
    if not dry_run:
        service.remove(name, stop_seconds)
        # The settings go last: they tell a run after a kill that this node is still to be removed.
        for entry in sorted(doomed, key=lambda entry: entry == node.settings):
            _delete(entry)
        if remove_data and node.root.is_dir():
            node.root.rmdir()
    found.extend(_remove_shared(home, name, dry_run))
    return found


def _remove_shared(home: Home, name: str, dry_run: bool) -> list[Change]:
    """The last node takes along what all nodes of the host shared."""
    if dry_run:
        others = [other for other in home.node_names() if other != name and home.node(other).settings.exists()]
        shared = [] if others else [folder for folder in leftovers(home) if folder != home.locks]
        return [Change("shared", "".join(f"{folder}\n" for folder in shared), "")] if shared else []
    before = "".join(f"{folder}\n" for folder in leftovers(home))
    return [Change("shared", before, "")] if not has_nodes(home) and clean_up(home) else []


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)
