# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line at the end of a terminal's output, painted again and again, that gives way to whatever else is printed."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
from collections.abc import Callable
from typing import Any

from ansible.utils.display import Display

CLEAR = "\r\x1b[K"


def is_terminal() -> bool:
    """Whether a line can be painted over: a terminal that moves its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class LiveLine:
    """Calls ``tick`` every second, and shows what was given to :meth:`show` last.

    Ansible starts its children while it holds the lock of its display. So whatever is done under that lock is never
    half done in a child.
    """

    def __init__(self, display: Display, tick: Callable[[], None]) -> None:
        self._display, self._tick = display, tick
        self._lock = display._lock
        self._owner = os.getpid()
        self._painted = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """From now on everything that Ansible displays goes above the line."""
        original = self._display.display

        @functools.wraps(original)
        def display(*arguments: Any, **options: Any) -> Any:
            if os.getpid() != self._owner:
                return original(*arguments, **options)  # a task; what it displays comes here, by the main process
            with self._lock:
                self.clear()
                return original(*arguments, **options)

        self._display.display = display
        self._thread.start()

    def stop(self) -> None:
        """No line any more, and no tick."""
        self._ended.set()
        if os.getpid() == self._owner:
            self.clear()

    def show(self, text: str) -> None:
        """Paint, at a terminal."""
        if not is_terminal():
            return
        width = shutil.get_terminal_size().columns - 1
        with self._lock:
            sys.stdout.write(CLEAR + (text if len(text) <= width else text[: max(width - 1, 0)] + "…"))
            sys.stdout.flush()
            self._painted = True

    def clear(self) -> None:
        """Take the line away."""
        with self._lock:
            if self._painted:
                sys.stdout.write(CLEAR)
                sys.stdout.flush()
                self._painted = False

    def _run(self) -> None:
        while not self._ended.wait(1):
            with self._lock:
                if not self._ended.is_set():
                    self._tick()
