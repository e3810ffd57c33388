# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing one node to a wanted state: compare what is with what shall be, then change only that."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import (
    account_name,
    ensure_account,
    group_id,
    has_account,
    readable_by_node,
    remove_account,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_schedule import remove_schedule
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import (
    link_atomic,
    read_json,
    read_text,
    to_json,
    write_if_different,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.homes import clean_up, ensure_home, has_nodes, leftovers
from ansible_collections.openmined.pygrid.plugins.module_utils.images import can_run
from ansible_collections.openmined.pygrid.plugins.module_utils.nodes import read_health
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, NodePaths
from ansible_collections.openmined.pygrid.plugins.module_utils.pending_restore import finish_restore, read_pending
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import (
    Limits,
    ServiceSpec,
    ServiceState,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.services.managers import manager_for
from ansible_collections.openmined.pygrid.plugins.module_utils.settings import digest, full_settings


@dataclass(frozen=True)
class Wanted:
    """What a running node shall be.

    ``workers``: allow-list of a Domain, a key of None keeps the key that is there. ``talks_to``: the only numeric
    addresses the node may talk to, None for any.
    """

    name: str
    kind: str
    release: str
    settings: dict[str, Any]
    workers: dict[str, str | None] | None
    stop_seconds: int
    limits: Limits
    talks_to: tuple[str, ...] | None


@dataclass(frozen=True)
class Change:
    """One difference between what is and what shall be, with the texts for ``--diff``."""

    what: str
    before: str
    after: str


class Node:
    """One node on this host and the operations that change it."""

    def __init__(self, home: Home, wanted: Wanted) -> None:
        self._home = home
        self._paths = home.node(wanted.name)
        self._wanted = wanted
        self._manager = manager_for(home)
        settings = full_settings(home, wanted.name, wanted.kind, wanted.settings)
        self._settings = to_json(settings)
        self._workers = None if wanted.workers is None else to_json(self._known_workers(wanted.workers))
        self._service = service_spec(self._paths, wanted, settings)

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
        pending = read_pending(self._paths)
        if pending is not None:
            found.append(Change("data", "", f"as in the backup {pending.backup}\n"))
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
        paths = self._paths
        secret = (paths.identity, paths.database_url, paths.object_store)
        shared = (paths.root, paths.settings, paths.workers, paths.client_certificate)
        # In scope system the node's account reads them as a member of their group.
        others = 0o027 if self._home.scope == "system" else 0o077
        return [
            path
            for group, mask in ((secret, 0o077), (shared, others))
            for path in group
            if path.exists() and path.stat().st_mode & mask
        ]

    def _runs_old(self, state: ServiceState) -> str:
        """Which part of what is wanted the running process does not know yet; empty when it is up to date."""
        health = read_health(self._paths)
        if health:
            if health.get("release") != self._wanted.release:
                return f"release {health.get('release')}"
            if health.get("settings_digest") != digest(self._settings):
                return "older settings"
            return self._older_secret(health.get("started_at"))
        # It does not answer (yet): it is old when it was started before what it reads at its start was written.
        started_at = time.time() - (state.uptime_seconds or 0)
        for path in (self._paths.settings, self._paths.current):
            if path.exists() and path.lstat().st_mtime > started_at + 1:
                return f"an older {path.name}"
        return ""

    def _older_secret(self, started_at: float | None) -> str:
        """A secret that was replaced after the process had read it; the identity never is."""
        for name, path in self._service.credentials.items():
            file = Path(path)
            replaceable = name != self._paths.identity.name and file.exists()
            if replaceable and started_at and file.stat().st_mtime > started_at:
                return f"an older {name}"
        return ""

    @property
    def python(self) -> Path:
        """The interpreter of the release that the node is to have."""
        return self._home.releases / self._wanted.release / "env" / "bin" / "python"

    def converge(self, changes: list[Change], prepare: Callable[[], None] | None = None) -> None:
        """Apply ``changes``. May be killed anywhere: the next run sees what is left to do.

        prepare: is called while the node is stopped, before anything of it is another.
        """
        name = self._wanted.name
        if not can_run(self._home, self._wanted.release):
            raise PygridError(f"{name}: release {self._wanted.release} is not staged on this host")
        if not self._paths.identity.exists():
            raise PygridError(f"{name}: {self._paths.identity} is missing; create the identity first")
        make_node_folders(self._paths)
        for path in self._loose_files():
            path.chmod(path.stat().st_mode & (0o700 if path.is_dir() else 0o600))
        self._check_settings()
        # The running node re-reads its allow-list, and permissions matter to others only.
        if all(change.what in ("workers", "permissions") for change in changes):
            self._write_files()
            return
        with self._manager.held(name, self._wanted.stop_seconds):
            if prepare is not None:
                prepare()
            self._write_files()
            if self._paths.active_release() != self._wanted.release:
                point_at(self._paths, self._wanted.release)
            finish_restore(self._paths, self.python)
        self._manager.run(self._service)

    def _write_files(self) -> None:
        mode, group = readable_by_node(self._home, self._wanted.name)
        for _what, path, text in self._files():
            write_if_different(path, text, mode, group)

    def _check_settings(self) -> None:
        """Let the release that will read the settings judge them before they replace those of the running node."""
        draft = self._paths.root / ".settings.json.draft"
        write_if_different(draft, self._settings)
        result = subprocess.run(
            [str(self.python), "-m", "pygrid_node", "check", str(draft)],
            env={"PATH": os.defpath, "HOME": str(self._paths.state / "tmp")},
            cwd=self._paths.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        draft.unlink()
        if result.returncode != 0:
            raise PygridError(f"{self._wanted.name}: its settings are refused: {result.stderr.strip()[-500:]}")


def point_at(node: NodePaths, release: str) -> None:
    """Let the node run with another release from its next start on."""
    link_atomic(node.current, os.path.relpath(node.home.releases / release, node.root))


def make_node_folders(node: NodePaths) -> None:
    """Make the folders of a node; in scope system its account too, which may read but not change what it is."""
    ensure_home(node.home)
    if node.home.scope == "system":
        ensure_account(node.home, node.name)
        for folder in (node.home.nodes.parent, node.home.nodes):
            folder.mkdir(mode=0o755, exist_ok=True)
            folder.chmod(0o755)  # whatever the umask of this account is
        node.root.mkdir(mode=0o750, exist_ok=True)
        os.chown(node.root, -1, group_id(node.name))
        node.root.chmod(0o750)
        return  # systemd makes the folders the node writes to
    for folder in (node.home.nodes, node.root, node.data, node.run, node.log, node.state / "tmp"):
        folder.mkdir(mode=0o700, exist_ok=True)


def service_spec(node: NodePaths, wanted: Wanted, settings: dict[str, Any]) -> ServiceSpec:
    """How a node is run: through ``current``, so that another release needs no other definition."""
    places = [settings[key] for key in ("listen", "listen_nodes") if key in settings]
    secrets = [node.identity]
    if "database_url_file" in settings:
        secrets.append(node.database_url)
    if "credentials_file" in settings.get("blobs", {}):
        secrets.append(node.object_store)
    return ServiceSpec(
        name=node.name,
        kind=wanted.kind,
        command=[str(node.python), "-m", "pygrid_node", "run", str(node.settings)],
        directory=str(node.root),
        log_file=str(node.log_file),
        stop_seconds=wanted.stop_seconds,
        environment={"PYTHONUNBUFFERED": "1"},
        account=account_name(node.name),
        listen=tuple(_address_and_port(**place) for place in places),
        credentials={path.name: str(path) for path in secrets},
        limits=wanted.limits,
        talks_to=wanted.talks_to,
        hold_file=str(node.hold),
        writes=_writes(node, wanted.kind, settings),
        domain=settings["domain"]["name"] if wanted.kind == "worker" else "",
    )


def _writes(node: NodePaths, kind: str, settings: dict[str, Any]) -> tuple[str, ...]:
    """Folders that a node writes to; in scope user a Worker works in the files of its Domain."""
    folders = [node.data, node.run, node.log, node.state / "tmp"]
    if kind == "worker" and node.home.scope == "user":
        folders.append(node.home.node(settings["domain"]["name"]).data)
    return tuple(str(folder) for folder in folders)


def _address_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def stop_node(home: Home, name: str, stop_seconds: int, dry_run: bool) -> bool:
    """Stop a node; returns whether it ran."""
    service = manager_for(home)
    if not service.state(name).is_up:
        return False
    if not dry_run:
        service.stop(name, stop_seconds)
    return True


def remove_node(home: Home, name: str, stop_seconds: int, remove_data: bool, dry_run: bool) -> list[Change]:
    """Remove what a deploy made for a node, identity and data only with ``remove_data``; returns what was removed."""
    node = home.node(name)
    service = manager_for(home)
    found = []
    if service.is_known(name) or service.state(name).state != "absent":
        found.append(Change("service", f"{name} is kept running\n", ""))
    folders = [folder for folder in {node.root: None, node.state: None} if folder.is_dir()]
    kept = () if remove_data else (node.identity, node.data, node.database_url)
    doomed = [entry for folder in folders for entry in sorted(folder.iterdir()) if entry not in kept]
    if doomed or (remove_data and folders):
        found.append(Change("files", "".join(f"{entry}\n" for entry in doomed), ""))
    with_account = remove_data and home.scope == "system" and has_account(name)
    if with_account:
        found.append(Change("account", f"{account_name(name)}\n", ""))
    if not dry_run:
        service.remove(name, stop_seconds)
        remove_schedule(home, name)
        shutil.rmtree(node.backup_cache, ignore_errors=True)
        with contextlib.suppress(OSError):
            node.backup_cache.parent.rmdir()
        # The settings go last: they tell a run after a kill that this node is still to be removed.
        for entry in sorted(doomed, key=lambda entry: entry == node.settings):
            _delete(entry)
        if remove_data:
            for folder in folders:
                folder.rmdir()
        if with_account:
            remove_account(home, name)
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
