# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person is told while a playbook runs: where it is, for how long, and whom it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

HOSTS_NAMED = 6


def clock(seconds: float) -> str:
    """``0:07``, ``12:34`` or ``1:02:03``."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def names(hosts: Iterable[str]) -> str:
    """The hosts by name, or how many they are when they are many."""
    hosts = list(hosts)
    if len(hosts) <= HOSTS_NAMED:
        return ", ".join(hosts)
    return f"{', '.join(hosts[: HOSTS_NAMED - 1])} and {len(hosts) - HOSTS_NAMED + 1} more"


@dataclass
class Progress:
    """Where a run is. ``now`` is the clock."""

    now: Callable[[], float] = time.monotonic
    verb: str = ""
    plays: int = 0
    play: str = ""
    play_number: int = 0
    batch: str = ""
    step: str = ""
    began: float = 0.0
    step_began: float = 0.0
    changed: list[str] = field(default_factory=list)
    _awaited: dict[str, float] = field(default_factory=dict)

    def start(self, verb: str, plays: int) -> None:
        """A playbook begins."""
        self.verb, self.plays = verb, plays
        self.began = self.step_began = self.now()

    def start_play(self, number: int, name: str, batch: str) -> None:
        """A play begins, or the next batch of it."""
        self.play_number, self.play, self.batch = number, name, batch
        self.start_step("")

    def start_step(self, name: str) -> None:
        """A task begins."""
        self.step, self.step_began = name, self.now()
        self.changed, self._awaited = [], {}

    def await_host(self, host: str) -> None:
        """The task begins on a host."""
        self._awaited[host] = self.now()

    def is_done(self, host: str, changed: bool = False) -> None:
        """The task has ended on a host."""
        self._awaited.pop(host, None)
        if changed:
            self.changed.append(host)

    @property
    def awaited(self) -> list[str]:
        return list(self._awaited)

    @property
    def elapsed(self) -> str:
        return clock(self.now() - self.began)

    @property
    def step_seconds(self) -> float:
        return self.now() - self.step_began

    def heading(self) -> str:
        """``6/9 Run the Domains, batch 2 of 5``."""
        batch = f", {self.batch}" if self.batch else ""
        return f"{self.play_number}/{self.plays} {self.play}{batch}"

    def waiting(self, said: Callable[[str], str]) -> str:
        """``alice, bob (starting), carol``: hosts that report the same together; ``said`` tells what a host reports."""
        groups: dict[str, list[str]] = {}
        for host in self._awaited:
            groups.setdefault(said(host), []).append(host)
        return ", ".join(f"{names(hosts)} ({text})" if text else names(hosts) for text, hosts in groups.items())

    def line(self, said: Callable[[str], str]) -> str:
        """Everything in one line."""
        parts = [self.elapsed, self.verb, self.heading()]
        if self.step:
            parts.append(f"- {self.step}, {self.step_seconds:.0f} s")
        if self._awaited:
            parts.append(f"- waiting for {self.waiting(said)}")
        return " ".join(parts)
