# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lease on a host: one run at a time may change what is there, and what it was goes into the record of the host.

It ends when its holder gives it back, or by itself: a run that was cut off must not lock everybody out for ever. Its
end is counted by the clock that runs since boot, so that setting the time makes it neither longer nor shorter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import (
    locked,
    read_json,
    read_text,
    to_json,
    write_atomic,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.homes import ensure_home
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.record import DONE, Record

# Begins the names of holders that are processes of the host itself.
HERE = "here:"


@dataclass(frozen=True)
class Lease:
    """Who may change a host now.

    ``holder``: the run, as only its controller understands it; ``who`` and ``verb``: the same for people; ``since``: by
    the host's clock, for people; ``since_boot_seconds``: when it was taken, by the clock that runs since boot.
    """

    holder: str
    who: str
    verb: str
    seconds: int
    since: float
    since_boot_seconds: float

    def left_seconds(self, now_seconds: float) -> float:
        """How long it still lasts, 0 when it is over.

        A reboot starts its time anew, and is seen by a clock that shows less than then. The kernel's boot id would tell
        more, but in a container systemd shows another one to services with ProtectKernelTunables= (seen with 252).
        """
        began = self.since_boot_seconds if self.since_boot_seconds <= now_seconds else 0.0
        return max(0.0, began + self.seconds - now_seconds)


class HeldError(PygridError):
    """Another run has the lease."""

    def __init__(self, lease: Lease) -> None:
        left_seconds = lease.left_seconds(_now_seconds())
        began = time.strftime("%H:%M:%S", time.localtime(lease.since))
        super().__init__(
            f"{lease.verb} by {lease.who} has been at work here since {began}; wait for its end. If it was cut off, its"
            f" lease ends by itself in {left_seconds / 60:.0f} minutes; when you are sure that it does not run any"
            " more, take it over: -e pygrid_take_over=true"
        )
        self.lease = lease


def current_lease(home: Home) -> Lease | None:
    """The lease that counts now, None when there is none."""
    document = read_json(_file(home))
    try:
        lease = Lease(**document)
    except TypeError:  # none, or of another version of the collection
        return None
    if has_ended(lease.holder):
        return None
    return lease if lease.left_seconds(_now_seconds()) else None


def own_holder(verb: str) -> str:
    """This process of this host as a holder, whose end anybody on the host can see."""
    return f"{HERE}{verb}:{os.getpid()}:{_began(os.getpid())}"


def has_ended(holder: str) -> bool:
    """Whether the holder was a process of this host that is not there any more; False for runs of controllers."""
    if not holder.startswith(HERE):
        return False
    process, began = holder.split(":")[-2:]
    return _began(int(process)) != began


def _began(process: int) -> str:
    """When a process began, in ticks since boot (proc(5)); empty when there is none."""
    fields = (read_text(Path(f"/proc/{process}/stat")) or "").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def hold_lease(
    home: Home,
    holder: str,
    who: str,
    verb: str,
    seconds: int,
    over: str | None = None,
    facts: dict[str, Any] | None = None,
    ends: Sequence[dict[str, Any]] = (),
) -> Lease:
    """Take the lease of this host, or make it last longer for the one who has it.

    Args:
        seconds: how long from now.
        over: the holder from whom it may be taken; "*" is everybody.
        facts: what the record is to tell of this run beside who and what.
        ends: how former runs ended, as far as the controller knows; see :meth:`Record.close`.

    Raises:
        HeldError: another run has it.
    """
    ensure_home(home)
    with locked(home.locks / "lease.lock"):
        present = current_lease(home)
        if present and present.holder != holder and over not in ("*", present.holder):
            raise HeldError(present)
        since = present.since if present and present.holder == holder else time.time()
        lease = Lease(holder, who, verb, seconds, since, _now_seconds())
        write_atomic(_file(home), to_json(asdict(lease)))
        record = host_record(home)
        record.close(lambda run: run != holder, ends, f"seen when {verb} by {who} began")
        record.begin(holder, verb, who=who, nodes=_releases(home), **(facts or {}))
    return lease


def give_lease_back(home: Home, holder: str, verb: str = "", result: str = DONE, **facts: Any) -> bool:
    """End one's own lease; that of somebody else stays. Returns whether there was one.

    Args:
        verb, result: for the record; without a verb nothing is recorded.
        facts: what the record is to tell beside them, such as ``message``; see :meth:`Record.end`.
    """
    # Without locks there is no lease, and a grid that was removed must not get folders again.
    had = _file(home).exists() and _remove(home, holder)
    if verb:
        host_record(home).end(holder, verb, result, **facts, nodes=_releases(home))
    return had


def host_record(home: Home) -> Record:
    """The record of changes of this host."""
    return Record(home.changes, 0o640 if home.scope == "system" else 0o600)


def _remove(home: Home, holder: str) -> bool:
    with locked(home.locks / "lease.lock"):
        present = current_lease(home)
        if present is None or present.holder != holder:
            return False
        _file(home).unlink()
    return True


def _releases(home: Home) -> dict[str, str | None]:
    """Which release each node of this host points at."""
    return {name: home.node(name).active_release() for name in home.node_names()}


def _file(home: Home) -> Path:
    return home.locks / "lease.json"


def _now_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
