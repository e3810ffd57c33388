# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the parts of a grid lie on a host.

Scope ``user``: everything in one folder of an account. Scope ``system``: where the Filesystem Hierarchy Standard puts
the parts, owned by root, with an account for each node that owns nothing but the node's data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SYSTEM_HOME = Path("/opt/pygrid")
SYSTEM_CONFIGURATION = Path("/etc/pygrid")
SYSTEM_STATE = Path("/var/lib/pygrid")
SYSTEM_RUN = Path("/run/pygrid")
SYSTEM_CACHE = Path("/var/cache/pygrid/packages")
SYSTEM_LOG = Path("/var/log/pygrid")


def default_home() -> Path:
    """The folder for a person's grid as the XDG base directory specification names it."""
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path("~/.local/share").expanduser())
    return Path(data_home) / "pygrid"


def resolve_home(value: str | None) -> Path:
    """Turn the variable ``pygrid_home`` (may be empty, relative to ``~`` or hold ``$VAR``) into an absolute path."""
    if not value:
        return default_home()
    # Path.resolve would follow a link that the user chose to reach his folder by
    return Path(os.path.abspath(Path(os.path.expandvars(value)).expanduser()))  # noqa: PTH100


def open_home(value: str | None, scope: str) -> Home:
    """The home that the variables ``pygrid_home`` and ``pygrid_scope`` mean on this host."""
    if scope == "system":
        return SystemHome(Path(value) if value else SYSTEM_HOME)
    return Home(resolve_home(value))


@dataclass(frozen=True)
class Home:
    """The folder that holds everything the collection made for one account on one host."""

    root: Path

    @property
    def scope(self) -> str:
        return "user"

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def supervisor(self) -> Path:
        return self.root / "supervisor"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    @property
    def log(self) -> Path:
        """What is written about all nodes together."""
        return self.root / "log"

    @property
    def changes(self) -> Path:
        """The record of changes."""
        return self.log / "changes.jsonl"

    @property
    def mode(self) -> int:
        """Mode of the home folder: an account's own is nobody else's business."""
        return 0o700

    def node(self, name: str) -> NodePaths:
        return NodePaths(self, name)

    def node_names(self) -> list[str]:
        """Names of the nodes that have a folder here, data left behind by a removal included."""
        if not self.nodes.is_dir():
            return []
        return sorted(entry.name for entry in self.nodes.iterdir() if entry.is_dir())


@dataclass(frozen=True)
class SystemHome(Home):
    """Scope ``system``: releases in ``root`` (usually /opt/pygrid), the rest in the system's own places."""

    @property
    def scope(self) -> str:
        return "system"

    @property
    def cache(self) -> Path:
        return SYSTEM_CACHE

    @property
    def nodes(self) -> Path:
        return SYSTEM_CONFIGURATION / "nodes"

    @property
    def log(self) -> Path:
        return SYSTEM_LOG

    @property
    def mode(self) -> int:
        """Mode of the home folder: all nodes' accounts run their release from there."""
        return 0o755

    def node(self, name: str) -> NodePaths:
        return SystemNodePaths(self, name)


@dataclass(frozen=True)
class NodePaths:
    """The files of one node."""

    home: Home
    name: str

    @property
    def root(self) -> Path:
        """What the node is: its release, settings and identity."""
        return self.home.nodes / self.name

    @property
    def current(self) -> Path:
        return self.root / "current"

    @property
    def python(self) -> Path:
        """The interpreter of the release that the node points at."""
        return self.current / "env" / "bin" / "python"

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def identity(self) -> Path:
        return self.root / "identity.json"

    @property
    def workers(self) -> Path:
        return self.root / "workers.json"

    @property
    def database_url(self) -> Path:
        return self.root / "database.url"

    @property
    def object_store(self) -> Path:
        return self.root / "s3.json"

    @property
    def client_certificate(self) -> Path:
        return self.root / "client.pem"

    @property
    def state(self) -> Path:
        """What the node itself writes."""
        return self.root

    @property
    def data(self) -> Path:
        return self.state / "data"

    @property
    def owner(self) -> Path:
        return self.data / "owner.json"

    @property
    def database(self) -> Path:
        return self.data / "node.db"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def hold(self) -> Path:
        """Nothing starts the node while this file is locked."""
        return self.home.locks / f"hold-{self.name}.lock"

    @property
    def trial(self) -> Path:
        """While it is there when the node starts, the node lets nobody in before it is told to."""
        return self.root / "trial.json"

    @property
    def former(self) -> Path:
        """What the node was before its last upgrade."""
        return self.root / "former.json"

    @property
    def former_on_trial(self) -> Path:
        """What it was before an upgrade that nobody has accepted yet."""
        return self.root / "former-on-trial.json"

    @property
    def backup(self) -> Path:
        """How the node is backed up, and how its last backup went; root's alone."""
        return self.root / "backup"

    @property
    def backup_cache(self) -> Path:
        return self.home.cache / "restic" / self.name

    @property
    def restore(self) -> Path:
        """While it is there, the node gets what a backup knew before it is started."""
        return self.root / "restore.json"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def log_file(self) -> Path:
        return self.log / "node.log"

    def active_release(self) -> str | None:
        """Name of the release that ``current`` points at, None without one or when the link dangles."""
        try:
            target = os.readlink(self.current)
        except OSError:
            return None
        return Path(target).name if self.current.exists() else None


@dataclass(frozen=True)
class SystemNodePaths(NodePaths):
    """The files of one node in scope ``system``; its log is the journal."""

    @property
    def state(self) -> Path:
        return SYSTEM_STATE / self.name

    @property
    def backup_cache(self) -> Path:
        return self.home.cache.parent / "restic" / self.name

    @property
    def run(self) -> Path:
        return SYSTEM_RUN / self.name
