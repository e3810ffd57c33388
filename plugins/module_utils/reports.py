# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module is at, while it runs: its action on the controller looks at it every now and then and tells people.

It is a small file in memory, gone when the module ends. Every account of the host may read it, as the action may come
by another one than the module runs as; so it tells how much and how long, and never whose and what.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108 - with a name that nobody can guess, and never by a link
NAME = re.compile(r"pygrid-[0-9a-f]{32}")
TICK_SECONDS = 2.0

_descriptor: int | None = None


@contextlib.contextmanager
def reporting(name: str | None) -> Iterator[None]:
    """Let :func:`say` work until the block ends. ``name``: of the file, made by the action; None when nobody looks."""
    global _descriptor  # one module, one report: what runs deep below need not know who listens
    if not name or not NAME.fullmatch(name):
        yield
        return
    path = FOLDER / name
    try:
        _descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError:  # then nobody is told
        yield
        return
    try:
        os.fchmod(_descriptor, 0o644)
        yield
    finally:
        os.close(_descriptor)
        _descriptor = None
        path.unlink(missing_ok=True)


def say(text: str) -> None:
    """Tell what is being done now."""
    if _descriptor is None:
        return
    content = text.encode()
    with contextlib.suppress(OSError):  # no memory is no reason to stop
        os.pwrite(_descriptor, content, 0)
        os.ftruncate(_descriptor, len(content))


def communicate(
    child: subprocess.Popen[str], tick: Callable[[], None], seconds: float | None = None
) -> tuple[str, str]:
    """``child.communicate``, with ``tick`` called every now and then; for one that reads nothing from here.

    Raises:
        subprocess.TimeoutExpired: it has not ended after ``seconds``.
    """
    waited = 0.0
    while True:
        try:
            return child.communicate(timeout=TICK_SECONDS)
        except subprocess.TimeoutExpired:
            waited += TICK_SECONDS
            if seconds is not None and waited >= seconds:
                raise
            tick()
