# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry bytes between stdin/stdout and a TCP port: what ssh starts inside the lab's network (ProxyCommand)."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress

BLOCK = 1 << 16


def upload(remote: socket.socket) -> None:
    """Carry what ssh says to the host until ssh closes its side."""
    while block := os.read(0, BLOCK):
        remote.sendall(block)
    remote.shutdown(socket.SHUT_WR)


def main() -> None:
    """Connect to the host and port of the command line."""
    try:
        remote = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
    except OSError as error:
        sys.exit(f"cannot reach {sys.argv[1]} port {sys.argv[2]} in the lab: {error}")
    remote.settimeout(None)
    threading.Thread(target=upload, args=(remote,), daemon=True).start()
    # A host that loses its power ends the connection by a reset: that is an end like any other.
    with suppress(ConnectionError):
        while block := remote.recv(BLOCK):
            os.write(1, block)


if __name__ == "__main__":
    main()
