# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that an environment can run a node, by importing in it all that a node imports.

verify.py VERSION            exit 0, or 1 with the reason as last line on stderr
verify.py VERSION --list     also print the imported files below site-packages, in the order of their import
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys
import sysconfig
from pathlib import Path

SERVER_MODULES = (
    "syft",
    "syft.server.uvicorn",
    "syft.server.gateway",
    "syft.server.datasite",
    "syft.store.db.postgres",
    "syft.store.db.sqlite",
    "uvicorn",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "uvicorn.loops.auto",
    "uvicorn.lifespan.on",
    "zmq.auth.thread",
    "prometheus_client",
)
RUNTIME = "pygrid_node"


def import_everything() -> None:
    """Import the server's modules and every module of the node runtime but its command line."""
    for name in SERVER_MODULES:
        importlib.import_module(name)
    runtime = importlib.import_module(RUNTIME)
    for module in pkgutil.walk_packages(runtime.__path__, f"{RUNTIME}."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)


def imported_files() -> list[str]:
    """Return the source files below site-packages that were imported, relative to it, in order."""
    root = Path(sysconfig.get_paths()["purelib"])
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    sources = [Path(file) for file in files if file and file.endswith(".py")]
    names = (path.relative_to(root).as_posix() for path in sources if path.is_relative_to(root))
    return list(dict.fromkeys(name for name in names if not name.startswith(f"{RUNTIME}/")))


def main() -> int:
    """Import, compare the version, and print what was asked for."""
    version = sys.argv[1]
    gc.disable()  # imports only add objects: a fifth of the time would go into looking for garbage
    import_everything()
    found = sys.modules["syft"].__version__
    if found != version:
        sys.stderr.write(f"the environment has syft {found}, wanted is {version}\n")
        return 1
    if "--list" in sys.argv[2:]:
        sys.stdout.write("".join(f"{name}\n" for name in imported_files()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
