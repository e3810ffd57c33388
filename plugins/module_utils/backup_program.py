# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that makes scheduled backups: the same code as the module's, packed into one file for the host's Python.

python3 pygrid-backup.pyz take  SCOPE HOME NODE   one backup; exit code 75: somebody else is at work, try again
python3 pygrid-backup.pyz serve SCOPE HOME        scope user: all nodes of a home, each when its time has come
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import threading
import time
import zipfile
from collections.abc import Iterator

from ansible_collections.openmined.pygrid.plugins.module_utils.backup_folder import BackupFolder, Plan
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_schedule import (
    PERIODS_SECONDS,
    program,
    scheduled_nodes,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_take import Backup
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import write_atomic_bytes
from ansible_collections.openmined.pygrid.plugins.module_utils.lease import (
    HeldError,
    give_lease_back,
    hold_lease,
    own_holder,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, open_home

PACKAGE = "ansible_collections.openmined.pygrid.plugins.module_utils"
START = f"""\
import sys
from {PACKAGE}.backup_program import main
sys.exit(main(sys.argv[1:]))
"""
EXIT_TEMPORARY = 75
# It ends soon should this host die, so it is taken again and again.
LEASE_SECONDS, LEASE_AGAIN_SECONDS = 120, 30
# Another node of the host may be on its turn.
WAIT_SECONDS, POLL_SECONDS = 900, 5
LOOK_SECONDS = 60
RETRY_SECONDS = 900
# A new node has other things to do first.
FIRST_SECONDS = 600


def packed() -> bytes:
    """The program: every module of ours that this process has loaded, and so all that it needs."""
    sources = {"__main__.py": START}
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{PACKAGE}.") and module.__spec__ is not None:
            inner = f"{name.replace('.', '/')}{'/__init__' if module.__spec__.submodule_search_locations else ''}.py"
            sources[inner] = module.__spec__.loader.get_source(name) or ""  # type: ignore[union-attr]
    for path in list(sources):
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            sources.setdefault("/".join([*parts[:depth], "__init__.py"]), "")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in sorted(sources.items()):
            archive.writestr(zipfile.ZipInfo(path), text)  # without a time: equal sources are equal programs
    return content.getvalue()


def is_installed(home: Home) -> bool:
    path = program(home)
    return path.exists() and hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(packed()).digest()


def install(home: Home) -> None:
    path = program(home)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic_bytes(path, packed(), 0o644)


def main(words: list[str]) -> int:
    """Run a command; returns the exit code."""
    os.umask(0o077)
    command, scope, root, *names = words
    home = open_home(root, scope)
    if command == "serve":
        return serve(home)
    return take(home, names[0])


def take(home: Home, name: str) -> int:
    """Back one node up while nobody else changes the nodes of this host."""
    try:
        with leased(home, name):
            result = Backup(home, name).take()
    except HeldError as error:
        BackupFolder(home.node(name)).note(failed={"at": time.time(), "error": str(error)})
        return _say(f"{name}: {error}", EXIT_TEMPORARY)
    except (PygridError, OSError) as error:
        return _say(f"{name}: no backup was made: {error}", 1)
    for warning in result.warnings:
        _say(f"{name}: {warning}", 0)
    return _say(
        f"{name}: backup {result.id}, {result.bytes >> 20} MB, {result.added_bytes >> 20} MB of it new, verified,"
        f" {result.seconds:.0f} s",
        0,
    )


def serve(home: Home) -> int:
    """Back nodes up whenever one is due; for supervisor, which ends it with a signal."""
    tried: dict[str, float] = {}
    while True:
        for plan in scheduled_nodes(home):
            if is_due(BackupFolder(home.node(plan.node)), plan) and time.time() > tried.get(plan.node, 0):
                tried[plan.node] = time.time() + RETRY_SECONDS
                take(home, plan.node)
        time.sleep(LOOK_SECONDS)


def is_due(folder: BackupFolder, plan: Plan) -> bool:
    """Whether the last backup is older than the period of the schedule."""
    good = folder.last()["good"]
    if good is None:
        return time.time() - folder.since() >= FIRST_SECONDS
    return time.time() - good["at"] >= PERIODS_SECONDS.get(plan.schedule, PERIODS_SECONDS["daily"])


@contextlib.contextmanager
def leased(home: Home, name: str) -> Iterator[None]:
    """Hold the lease of this host, also for long; wait a little for whoever has it."""
    holder = own_holder("backup")
    who = f"the schedule of {name}"
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            hold_lease(home, holder, who, "backup", LEASE_SECONDS)
            break
        except HeldError:
            if time.monotonic() > end:
                raise
            time.sleep(POLL_SECONDS)
    done = threading.Event()

    def hold_on() -> None:
        while not done.wait(LEASE_AGAIN_SECONDS):
            with contextlib.suppress(PygridError, OSError):
                hold_lease(home, holder, who, "backup", LEASE_SECONDS)

    thread = threading.Thread(target=hold_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        give_lease_back(home, holder)


def _say(text: str, code: int) -> int:
    """Leave a line in the log; what runs here is no module, and has no other."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
    return code
