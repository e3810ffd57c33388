# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node on trial: after an upgrade it works, but lets nobody in, until somebody has seen that it does.

Who calls it waits: the port listens all the time, and nothing is taken from it. So what people do never depends on a
release that is taken back. The file that puts a node on trial is not the node's own; its end is told on the control
socket, after that file was deleted. Should nobody come, the trial ends by itself: a node that serves without having
been looked at is better than one that serves nobody.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path

log = logging.getLogger(__name__)

_MOST_SECONDS = 3600.0


class Trial:
    """Whether the node lets nobody in yet.

    Args:
        file: is there when the node starts on trial: ``{"seconds": ...}``, how long it waits for the end. None for a
            node that is never on trial.
    """

    def __init__(self, file: Path | None) -> None:
        seconds = _seconds_of(file)
        self._over = threading.Event()
        self._ends_at = time.monotonic() + (seconds or 0.0)
        if seconds is None:
            self._over.set()
        else:
            log.info("on trial: nobody is let in for %.0f s, or until the trial is ended", seconds)

    @property
    def on(self) -> bool:
        if not self._over.is_set() and time.monotonic() >= self._ends_at:
            log.warning("nobody ended the trial in time: it is over")
            self._over.set()
        return not self._over.is_set()

    def end(self) -> None:
        """Let everybody in."""
        if not self._over.is_set():
            log.info("the trial is over")
            self._over.set()


def _seconds_of(file: Path | None) -> float | None:
    """None when there is no trial; a file that cannot be read as it should is one, and a short one."""
    if file is None or not file.exists():
        return None
    try:
        seconds = float(json.loads(file.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 60.0
    return min(max(seconds, 0.0), _MOST_SECONDS)
