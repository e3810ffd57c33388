# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HEALTHCHECK of an image: 0 when the node says on its control socket that it is ready. Standard library only."""

import os
import socket
import sys
from pathlib import Path

ANSWER_SECONDS = 8


def main() -> int:
    """Ask, and say in the words of the node why it is not."""
    path = Path(os.environ.get("PYGRID_CONTROL_SOCKET", "/run/control.sock"))
    try:
        os.chdir(path.parent)  # the name of a socket is limited to 107 bytes, that of its folder is not
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(path.name)
            connection.sendall(b"GET /healthz/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = connection.makefile("rb").read().decode(errors="replace")
    except OSError as error:
        sys.stdout.write(f"no answer on {path}: {error}\n")
        return 1
    status, _separator, rest = answer.partition("\r\n")
    sys.stdout.write(f"{rest.rpartition(chr(10))[2][:500]}\n")
    return 0 if status.split()[1:2] == ["200"] else 1


if __name__ == "__main__":
    sys.exit(main())
