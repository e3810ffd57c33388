# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node goes to another release on trial, and from there on, or back to what it was.

    deployed --begin--> on trial --accept--> upgraded
       ^                   |                    |
       +------ refuse -----+      go_back ------+

On trial a Network or a Domain runs and lets nobody in: whatever people want waits at its port. So until it is accepted
nothing that anybody did is lost by going back. Each step may be killed anywhere and is repeated to the same end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import readable_by_node
from ansible_collections.openmined.pygrid.plugins.module_utils.control import call
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_json, to_json, write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.former import Former, FormerState, describe_newer
from ansible_collections.openmined.pygrid.plugins.module_utils.images import can_run
from ansible_collections.openmined.pygrid.plugins.module_utils.lifecycle import (
    Change,
    Node,
    Wanted,
    point_at,
    service_spec,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.nodes import read_health
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.services.managers import manager_for

# Longer than any way back takes; then a node whose upgrade nobody came back to serves again by itself.
GOING_BACK_SECONDS = 3600
# What going back costs, among the changes that a dry run finds.
LOST = "lost"


class Upgrade:
    """The upgrade of one node on this host.

    Args:
        home: of the grid.
        wanted: what the node shall be; going back, its stop time, limits and addresses count.
    """

    def __init__(self, home: Home, wanted: Wanted) -> None:
        self._home, self._wanted = home, wanted
        self._paths = home.node(wanted.name)
        self._former = FormerState(self._paths)

    def begin(self, trial_seconds: int, dry_run: bool) -> list[Change]:
        """Keep what the node is and knows, and start the wanted release on trial."""
        former = self._former.read()
        if former is not None and former.going_back:
            raise PygridError(
                f"{self._wanted.name} is on its way back to {former.release}: end that first (rollback.yml)"
            )
        node = Node(self._home, self._wanted)
        changes = node.changes()
        if not changes or dry_run:
            return changes

        def prepare() -> None:
            self._former.keep(node.python)
            self._put_on_trial(trial_seconds)

        # When a former run was killed after the flip, what it kept is what the node was.
        flipped = self._paths.active_release() == self._wanted.release
        if not flipped:
            self._former.begin(self._wanted.release)
        node.converge(changes, None if flipped else prepare)
        return changes

    def accept(self, dry_run: bool) -> list[Change]:
        """Let everybody in."""
        if not (self._paths.trial.exists() or self._former.is_on_trial):
            return []
        if not dry_run:
            self._former.settle()
            # The file goes first: should the node be restarted in between, it is on trial no more.
            self._paths.trial.unlink(missing_ok=True)
            if self._wanted.kind != "worker" and manager_for(self._home).state(self._wanted.name).is_up:
                call(self._paths.control_socket, "POST", "/control/trial/end")
        return [Change("trial", "on trial\n", "serving\n")]

    def refuse(self, dry_run: bool) -> list[Change]:
        """End the trial, and be what the node was before it; a node that is not on trial stays what it is.

        Raises:
            PygridError: nobody came back to its trial in time, so that it has let people in, and they have done things.
        """
        former = self._former.read_trial()
        if former is not None and not former.going_back and (lost := self._learnt_since(former)):
            raise PygridError(
                f"{self._wanted.name} served with {former.upgraded_to} before anybody refused it, and would lose"
                f" {lost}; it stays as it is. rollback.yml takes it back when you say so"
            )
        return self._return_to(former, dry_run, self._former.forget_trial)

    def _learnt_since(self, former: Former) -> str:
        """What people have done since the node went on trial, which they cannot as long as it is."""
        health = read_health(self._paths)
        return "" if health is None or health.get("trial") else describe_newer(self._former.newer(former))

    def go_back(self, dry_run: bool) -> list[Change]:
        """Return to the former release, and to what the node knew then. What it has learnt since is lost."""
        former = self._former.read()
        changes = self._return_to(former, dry_run, self._former.forget)
        if dry_run and former is not None and (lost := describe_newer(self._former.newer(former))):
            changes.append(Change(LOST, f"{lost}\n", ""))
        return changes

    def stay(self, dry_run: bool) -> list[Change]:
        """Forget what the node was before its last upgrade, and give its room back."""
        former = self._former.read()
        if former is None:
            return []
        if not dry_run:
            self._former.forget(self._paths.python)
        return [Change("former", f"{former.release}\n", "")]

    def _return_to(self, former: Former | None, dry_run: bool, forget: Callable[[Path], object]) -> list[Change]:
        """Be what the node was before; ``forget`` takes the last thing away that tells of it."""
        if former is None:
            return self._end_former_return(dry_run)
        change = Change("release", f"{self._paths.active_release()}\n", f"{former.release}\n")
        if dry_run:
            return [change]
        if not can_run(self._home, former.release):
            raise PygridError(f"{self._wanted.name}: its former release {former.release} is not on this host any more")
        python = self._home.releases / former.upgraded_to / "env" / "bin" / "python"
        manager = manager_for(self._home)
        self._former.decide_to_go_back(former)
        self._put_on_trial(GOING_BACK_SECONDS)
        with manager.held(self._wanted.name, self._wanted.stop_seconds):
            self._former.restore(former, python)
            self._write(former)
            point_at(self._paths, former.release)
            # In this order: while there is something to go back to, nobody is let in and may lose what he does.
            forget(python)
            self._paths.trial.unlink(missing_ok=True)
        manager.run(service_spec(self._paths, self._wanted, json.loads(former.settings)))
        return [change]

    def _end_former_return(self, dry_run: bool) -> list[Change]:
        """At most the very end of a former run is left to be done, or its very beginning to be undone."""
        changes = []
        if self._former.has_begun or self._paths.trial.exists():
            changes = self.accept(dry_run)
            if self._former.has_begun and not dry_run:
                self._former.forget_trial(self._paths.python)
        manager = manager_for(self._home)
        if manager.is_known(self._wanted.name) and not manager.state(self._wanted.name).is_up:
            changes.append(Change("state", "stopped\n", "running\n"))
            if not dry_run:
                manager.run(service_spec(self._paths, self._wanted, read_json(self._paths.settings)))
        return changes

    def _put_on_trial(self, seconds: int) -> None:
        if self._wanted.kind == "worker":
            return  # it has what its Domain gives it, which is nothing while that is on trial
        mode, group = readable_by_node(self._home, self._wanted.name)
        write_if_different(self._paths.trial, to_json({"seconds": seconds}), mode, group)

    def _write(self, former: Former) -> None:
        mode, group = readable_by_node(self._home, self._wanted.name)
        write_if_different(self._paths.settings, former.settings, mode, group)
        if former.workers is not None:
            write_if_different(self._paths.workers, former.workers, mode, group)
