# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one small file of inventory in which scale.yml and resize.yml keep what they decided.

It stands among the files of the user's own inventory and is read with them. What it says of nodes of those files is one
variable, ``pygrid_scaled``, and no variables of hosts: which of two files wins over the other depends on their names,
and ``host_vars`` win over both, but nothing else says ``pygrid_scaled``.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError

from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text, write_if_different

NAME = "pygrid-scale.yml"
SCALED, UNFINISHED = "pygrid_scaled", "pygrid_scale_unfinished"
JOINED = "pygrid_domain_network_joined"
COMING, GOING, JOINING, LEAVING = "coming", "going", "joining", "leaving"
HEADER = """\
# Written by the playbooks scale and resize of openmined.pygrid: what they decided, as a part of this inventory.
# Keep it with the other files. It may be edited; entries may be moved to files of your own, and taken out here.
#   pygrid_scaled            variables of nodes that win over all others of the inventory
#   pygrid_scale_unfinished  what a run has begun and not ended; the next run of scale.yml ends it
#   pygrid_worker            Workers that were added
#   pygrid_spare             Workers of other files that were taken away; they are no nodes while they stand here
"""


@dataclass
class ScaleFile:
    """What the file holds.

    Attributes:
        workers: Workers that were added, by inventory name, each with its variables.
        spare: Workers of other files that were taken away.
        scaled: variables that win, by inventory name.
        unfinished: inventory name to coming, going, joining or leaving.
    """

    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    spare: list[str] = field(default_factory=list)
    scaled: dict[str, dict[str, Any]] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)

    def begin(self, host: str, what: str, variables: Mapping[str, Any] | None = None) -> None:
        """Note that a run goes to do something.

        Args:
            host: inventory name of a Worker or a Domain.
            what: coming, going, joining or leaving.
            variables: of a Worker that no file of the inventory has yet.
        """
        if self.unfinished.get(host) == what:
            return  # a former run got as far as this
        self.unfinished[host] = what
        if what == COMING:
            if variables:
                self.workers[host] = dict(variables)
            elif host in self.spare:
                self.spare.remove(host)
        elif what in (JOINING, LEAVING):
            self.keep(host, {JOINED: what == JOINING})

    def end(self, host: str, machine_is_gone: bool = False) -> None:
        """Note that what was begun is done. ``machine_is_gone``: the inventory will not have that host any more."""
        if self.unfinished.pop(host, None) == GOING:
            self.scaled.pop(host, None)
            if self.workers.pop(host, None) is None and host not in self.spare and not machine_is_gone:
                self.spare.append(host)

    def undo(self, host: str) -> None:
        """Take back what this run began, before it has changed anything."""
        what = self.unfinished.pop(host, None)
        if what == COMING and self.workers.pop(host, None) is None:
            self.spare.append(host)
        elif what in (JOINING, LEAVING):
            self.keep(host, {JOINED: what == LEAVING})

    def keep(self, host: str, variables: Mapping[str, Any]) -> None:
        """Let these variables win for a node from now on."""
        former = self.scaled.get(host, {})
        kept = {**former, **variables}
        if former.get(JOINED) is False and kept[JOINED]:
            del kept[JOINED]  # as it was before
        self.replace(host, kept)

    def replace(self, host: str, variables: Mapping[str, Any]) -> None:
        """Let exactly these variables win for a node."""
        self.scaled.pop(host, None)
        if variables:
            self.scaled[host] = dict(variables)

    def text(self) -> str:
        """The file, "" when nothing is to be kept."""
        variables = {SCALED: self.scaled, UNFINISHED: self.unfinished}
        grid: dict[str, Any] = {}
        if any(variables.values()):
            grid["vars"] = {name: value for name, value in variables.items() if value}
        if self.workers:
            grid["children"] = {"pygrid_worker": {"hosts": self.workers}}
        groups = {"pygrid": grid} if grid else {}
        if self.spare:
            groups["pygrid_spare"] = {"hosts": {host: {} for host in self.spare}}
        # What comes from tasks are Ansible's own kinds of strings and numbers, of which YAML knows nothing.
        plain = json.loads(json.dumps(groups))
        return HEADER + yaml.safe_dump(plain, sort_keys=False, width=200) if groups else ""


def parse(text: str, place: str) -> ScaleFile:
    """What a file holds. ``place``: its name, for an error."""
    try:
        groups = yaml.safe_load(text) or {}
        grid = groups.get("pygrid") or {}
        variables = grid.get("vars") or {}
        workers = ((grid.get("children") or {}).get("pygrid_worker") or {}).get("hosts") or {}
        return ScaleFile(
            workers={host: dict(values or {}) for host, values in workers.items()},
            spare=list((groups.get("pygrid_spare") or {}).get("hosts") or {}),
            scaled={host: dict(values) for host, values in (variables.get(SCALED) or {}).items()},
            unfinished=dict(variables.get(UNFINISHED) or {}),
        )
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise AnsibleError(f"{place} is no file of scale.yml any more: {error}; mend it or restore it") from error


def read(path: Path) -> ScaleFile:
    """What the file holds now; empty when there is none."""
    return parse(read_text(path) or "", str(path))


def change(path: Path, edit: Callable[[ScaleFile], None], dry_run: bool = False) -> tuple[str, str]:
    """Edit the file; another run on this controller that edits it waits. Returns its text before and after."""
    # On the folder itself: a file with a lock would be one more in somebody's inventory.
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = read_text(path) or ""
        content = parse(before, str(path))
        edit(content)
        after = content.text()
        if before != after and not dry_run:
            if after:
                write_if_different(path, after, 0o644)
            else:
                path.unlink()
        return before, after
    finally:
        os.close(folder)


def place_of(given: str, sources: Iterable[str]) -> Path | None:
    """Where the file is, or is to be: ``given``, else beside the first source of the inventory; None for nowhere."""
    if given:
        return Path(given).expanduser()
    files = [Path(source) for source in sources if source and "," not in source]
    named = next((path for path in files if path.name == NAME), None)
    if named or not files:
        return named
    return (files[0] if files[0].is_dir() else files[0].parent) / NAME


def is_read(path: Path, sources: Iterable[str]) -> bool:
    """Whether a run with these inventory sources reads the file."""
    own = path.resolve()
    known = [Path(source).resolve() for source in sources if source and "," not in source]
    return any(source == own or (source.is_dir() and source in own.parents) for source in known)
