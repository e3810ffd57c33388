# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the callback openmined.pygrid.progress and the tasks of a run tell each other.

The callback lives in Ansible's main process. Each task on each host is a child of it, so it has what stood here when it
began, and tells the callback by a file what its host does meanwhile. Without the callback nothing stands here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass
class RunState:
    """``folder``: where tasks report what they are at; ``changed``: how many results have changed something so far."""

    folder: Path | None = None
    changed: int | None = None


STATE = RunState()


def report(host: str, text: str) -> bool:
    """Tell the callback what a host does now; False when there is none that listens."""
    if STATE.folder is None:
        return False
    temporary = STATE.folder / f".{host}"
    with contextlib.suppress(OSError):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(STATE.folder / host)
    return True


def reported(host: str) -> str:
    """What a host said last that it does."""
    if STATE.folder is not None:
        with contextlib.suppress(OSError):
            return (STATE.folder / host).read_text(encoding="utf-8")
    return ""


def forget(host: str) -> None:
    """The host has done what it was at."""
    if STATE.folder is not None:
        (STATE.folder / host).unlink(missing_ok=True)
