# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a node is backed up: the files of its folder ``backup``, which nobody but root (or the account) can read."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import (
    read_json,
    read_text,
    to_json,
    write_atomic,
    write_if_different,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.homes import ensure_home
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import SYSTEM_CONFIGURATION, NodePaths


@dataclass(frozen=True)
class Plan:
    """Where and when a node is backed up, and what is kept.

    ``repository``: the node's own, in restic's words. ``keep``: last, daily, weekly, monthly to a number.
    ``schedule``: systemd's calendar words, empty for none.
    """

    node: str
    kind: str
    repository: str
    keep: dict[str, int]
    schedule: str = ""
    region: str = ""
    proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    collection_version: str = ""

    @property
    def local_folder(self) -> Path | None:
        """The repository, when it is a folder of this host."""
        return Path(self.repository) if self.repository.startswith("/") else None

    @property
    def is_sftp(self) -> bool:
        return self.repository.startswith("sftp:")


@dataclass(frozen=True)
class Secrets:
    """What opens a repository: its password, and what its place asks for."""

    password: str = field(repr=False)
    s3_access_key: str = field(default="", repr=False)
    s3_secret_key: str = field(default="", repr=False)
    ssh_private_key: str = field(default="", repr=False)
    known_hosts: str = ""


class BackupFolder:
    """The folder of one node."""

    def __init__(self, node: NodePaths) -> None:
        self.node = node
        self.root = node.backup
        self.password = self.root / "password"
        self.s3 = self.root / "s3.credentials"
        self.ssh_key = self.root / "id_ed25519"
        self.known_hosts = self.root / "known_hosts"
        self._plan = self.root / "plan.json"
        self._last = self.root / "last.json"

    def plan(self) -> Plan | None:
        """The plan as it was last written; None when the node is not backed up."""
        document = read_json(self._plan)
        return Plan(**document) if document else None

    def since(self) -> float:
        """When the plan was last changed, in seconds since the epoch."""
        return self._plan.stat().st_mtime

    def differences(self, plan: Plan, secrets: Secrets) -> list[str]:
        """Names of the files that :meth:`write` would change; what they hold is not for others."""
        found = [path.name for path, text in self._texts(plan, secrets).items() if read_text(path) != text]
        if plan.is_sftp and not secrets.ssh_private_key and not self.ssh_key.exists():
            found.append(self.ssh_key.name)
        return found

    def write(self, plan: Plan, secrets: Secrets) -> None:
        """Make the folder what the plan wants. The host's own key for SFTP is made once and stays."""
        ensure_home(self.node.home)
        if self.node.home.scope == "system":
            for folder in (SYSTEM_CONFIGURATION, self.node.home.nodes):
                folder.mkdir(mode=0o755, exist_ok=True)
                folder.chmod(0o755)  # whatever the umask of this account is
        else:
            self.node.home.nodes.mkdir(mode=0o700, exist_ok=True)
        if not self.node.root.is_dir():
            self.node.root.mkdir(mode=0o750 if self.node.home.scope == "system" else 0o700)
        self.root.mkdir(mode=0o700, exist_ok=True)
        self.root.chmod(0o700)
        for path, text in self._texts(plan, secrets).items():
            write_if_different(path, text)
        if plan.is_sftp and not self.ssh_key.exists():
            self._make_key()

    def _texts(self, plan: Plan, secrets: Secrets) -> dict[Path, str]:
        texts = {self.password: secrets.password + "\n", self._plan: to_json(asdict(plan))}
        if secrets.s3_access_key:
            texts[self.s3] = (
                "[default]\n"
                f"aws_access_key_id = {secrets.s3_access_key}\n"
                f"aws_secret_access_key = {secrets.s3_secret_key}\n"
            )
        if secrets.ssh_private_key:
            texts[self.ssh_key] = secrets.ssh_private_key.rstrip("\n") + "\n"
        if plan.is_sftp:
            texts[self.known_hosts] = secrets.known_hosts.rstrip("\n") + "\n"
        return texts

    def _make_key(self) -> None:
        program = shutil.which("ssh-keygen")
        if program is None:
            raise PygridError("ssh-keygen is not installed on this host; a backup by SFTP needs OpenSSH's client")
        draft = self.root / f".{self.ssh_key.name}.new"
        draft.unlink(missing_ok=True)
        comment = f"pygrid-backup-{self.node.name}@{os.uname().nodename}"
        command = [program, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(draft)]
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if result.returncode != 0:
            raise PygridError(f"ssh-keygen made no key: {result.stderr.strip()[-300:]}")
        draft.with_name(f"{draft.name}.pub").unlink()
        draft.replace(self.ssh_key)

    def public_key(self) -> str:
        """What the other side has to let in."""
        command = ["ssh-keygen", "-y", "-f", str(self.ssh_key)]
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        return result.stdout.strip()

    def ssh_command(self, plan: Plan) -> str:
        """How restic gets to its SFTP server: this key, these known hosts, and no question to anybody."""
        user_and_host, port = sftp_place(plan.repository)
        words = ["ssh", "-F", "none", "-i", str(self.ssh_key), "-p", str(port)]
        for option in (
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.known_hosts}",
            "ConnectTimeout=20",
            "ServerAliveInterval=15",
        ):
            words += ["-o", option]
        return shlex.join([*words, user_and_host, "-s", "sftp"])

    def last(self) -> dict[str, Any]:
        """How it went: ``good`` (the last backup that was verified), ``failed`` (a try after it), ``repository``."""
        return {"good": None, "failed": None, "repository": None, **(read_json(self._last) or {})}

    def note(self, **changes: Any) -> None:
        write_atomic(self._last, to_json({**self.last(), **changes}))


def sftp_place(repository: str) -> tuple[str, int]:
    """``user@host`` and the port of ``sftp:user@host:/path`` or ``sftp://user@host:port//path``."""
    rest = repository[len("sftp:") :]
    if not rest.startswith("//"):
        return rest.partition(":")[0], 22
    place = rest[2:].partition("/")[0]
    host, _colon, port = place.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else (place, 22)


def read_backup(node: NodePaths) -> dict[str, Any] | None:
    """What a status says of a node's backups; None when it has none."""
    folder = BackupFolder(node)
    plan = folder.plan()
    if plan is None:
        return None
    last = folder.last()
    return {"repository": plan.repository, "schedule": plan.schedule, "good": last["good"], "failed": last["failed"]}
