# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of changes: who did what, from which version to which, how it ended and how long it took.

One file of JSON lines on each host for what was done there, one on the controller for all that was done from it. A run
writes a line when it begins and one when it ends. Of a run that was killed, or failed on its way, the second line is
missing: the next run that comes writes it, and who reads before then can tell it from one that is still at work.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text, write_atomic

# How many lines stay; it is cut back to them only now and then.
ENTRIES_KEPT = 1000
ENTRIES_OVER = 100
BEGAN, ENDED = "began", "ended"
# Results. A run that was refused has changed nothing.
DONE, FAILED, REFUSED, CUT_OFF = "done", "failed", "refused", "cut off or failed"
MESSAGE_LENGTH = 500
OF_AN_END = ("result", "message", "seconds", "changes", "changed")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Record:
    """One file, which runs may write to at the same time."""

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self._path, self._mode = path, mode

    def begin(self, run: str, verb: str, **facts: Any) -> bool:
        """Note that a run begins, unless it is noted already; returns whether it was noted."""
        self._path.parent.mkdir(mode=self._mode | (self._mode & 0o444) >> 2, parents=True, exist_ok=True)
        with self._opened(os.O_CREAT) as stream:
            if (run, verb) in open_runs(self._read()):
                return False
            self._append(stream, {"at": _now(), "event": BEGAN, "verb": verb, "run": run, **facts})
        return True

    def end(self, run: str, verb: str, result: str, message: str = "", **facts: Any) -> bool:
        """Note how a run ended, unless it never began or has ended; returns whether it was noted."""
        with contextlib.suppress(FileNotFoundError), self._opened() as stream:
            began = open_runs(self._read()).get((run, verb))
            if began is None:
                return False
            self._append(stream, _end_of(began, result, message, facts))
            return True
        return False

    def close(self, is_over: Callable[[str], bool], ends: Sequence[dict[str, Any]] = (), message: str = "") -> None:
        """Note of runs that have not noted it themselves that they are over.

        Args:
            is_over: says of a run whether that is known.
            ends: what is known from elsewhere of how runs ended.
            message: what to say of those of which nothing is known.
        """
        known = {(end["run"], end["verb"]): end for end in ends}
        with contextlib.suppress(FileNotFoundError), self._opened() as stream:
            for key, began in open_runs(self._read()).items():
                if is_over(key[0]):
                    end = known.get(key) or {"result": CUT_OFF, "message": message, "seconds": None}
                    self._append(stream, _end_of(began, end["result"], end["message"], {"seconds": end["seconds"]}))

    def entries(self) -> list[dict[str, Any]]:
        """All lines, the oldest first; one that was cut off in the middle is left out."""
        return self._read()

    def _read(self) -> list[dict[str, Any]]:
        found = []
        for line in (read_text(self._path) or "").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and {"at", "event", "verb", "run"} <= entry.keys():
                    found.append(entry)
        return found

    @contextlib.contextmanager
    def _opened(self, flags: int = 0) -> Iterator[int]:
        """The file, locked; never one that was replaced while its lock was waited for."""
        while True:
            stream = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, self._mode)
            try:
                fcntl.flock(stream, fcntl.LOCK_EX)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(stream), self._path.stat()):
                        yield stream
                        self._cut(os.fstat(stream))
                        return
            finally:
                os.close(stream)

    @staticmethod
    def _append(stream: int, entry: dict[str, Any]) -> None:
        size = os.fstat(stream).st_size
        torn = size > 0 and os.pread(stream, 1, size - 1) != b"\n"  # the writer before was killed
        os.write(stream, ("\n" if torn else "").encode() + json.dumps(entry).encode() + b"\n")
        os.fsync(stream)

    def _cut(self, status: os.stat_result) -> None:
        lines = (read_text(self._path) or "").splitlines(keepends=True)
        if len(lines) > ENTRIES_KEPT + ENTRIES_OVER:
            write_atomic(self._path, "".join(lines[-ENTRIES_KEPT:]), status.st_mode & 0o777, status.st_gid)


def open_runs(entries: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The beginnings that have no end, by run and verb."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        key = (entry["run"], entry["verb"])
        if entry["event"] == BEGAN:
            found[key] = entry
        else:
            found.pop(key, None)
    return found


def runs(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What began, in that order, each with ``ended_at`` and what else is known of its end; None when it has none."""
    found = []
    begun: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        key = (entry["run"], entry["verb"])
        if entry["event"] == BEGAN:
            begun[key] = {**entry, "ended_at": None, "nodes_after": None, **dict.fromkeys(OF_AN_END)}
            found.append(begun[key])
        elif key in begun:
            known = {name: entry.get(name) for name in OF_AN_END}
            begun.pop(key).update(known, ended_at=entry["at"], nodes_after=entry.get("nodes"))
    return found


def last_change(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The latest of :func:`runs` that changed something, or may have; ``ago_seconds`` tells how long ago it was."""
    for run in reversed(runs(entries)):
        nothing = run["changed"] == 0 or (run["changed"] is None and run["changes"] == {})
        if run["result"] == REFUSED or (run["result"] == DONE and nothing):
            continue
        return {**run, "ago_seconds": max(0, int(time.time() - _seconds(run["ended_at"] or run["at"])))}
    return None


def _end_of(began: dict[str, Any], result: str, message: str, facts: dict[str, Any]) -> dict[str, Any]:
    seconds = max(0, int(time.time() - _seconds(began["at"])))
    return {
        "at": _now(),
        "event": ENDED,
        "verb": began["verb"],
        "run": began["run"],
        "who": began.get("who"),
        "result": result,
        "message": message[:MESSAGE_LENGTH],
        "seconds": seconds,
        **facts,
    }


def _now() -> str:
    return time.strftime(_TIME, time.gmtime())


def _seconds(moment: str) -> float:
    try:
        return float(calendar.timegm(time.strptime(moment, _TIME)))
    except ValueError:
        return time.time()
