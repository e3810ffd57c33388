# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Byte-compile the files a node imports, with several processes.

    bytecode.py PROCESSES < list of files below site-packages

The caller imports the same files in the same order at the same time, which compiles them too. So this begins at the
end of the list: both meet in the middle and no file is compiled twice.
"""

from __future__ import annotations

import gc
import os
import py_compile
import struct
import sys
import sysconfig
from importlib.util import cache_from_source
from pathlib import Path

POSITION = struct.Struct("I")


def compile_file(path: str) -> None:
    """Compile one file unless that was done; a file that cannot be compiled is left to whoever imports it."""
    if os.path.exists(path) and not os.path.exists(cache_from_source(path)):  # noqa: PTH110 - called thousands of times
        py_compile.compile(path, doraise=False, quiet=2)


def work(positions: int, paths: list[str], parent: int) -> None:
    """Compile the paths whose positions are read from a pipe that all processes share; end with the parent."""
    while os.getppid() == parent and (position := os.read(positions, POSITION.size)):
        compile_file(paths[POSITION.unpack(position)[0]])


def main() -> int:
    """Share the list out to processes, and wait for them."""
    processes = int(sys.argv[1])
    gc.disable()  # a short life with little garbage
    root = Path(sysconfig.get_paths()["purelib"])
    paths = [str(root / line) for line in reversed(sys.stdin.read().split("\n")) if line]
    reading, writing = os.pipe()
    parent = os.getpid()
    children = []
    for _number in range(processes):
        child = os.fork()
        if child == 0:
            os.close(writing)
            work(reading, paths, parent)
            os._exit(0)
        children.append(child)
    os.close(reading)
    try:
        for position in range(len(paths)):
            os.write(writing, POSITION.pack(position))
    except BrokenPipeError:  # all children have gone; their exit codes tell
        pass
    os.close(writing)
    return max([os.waitpid(child, 0)[1] for child in children] or [0]) and 1


if __name__ == "__main__":
    sys.exit(main())
