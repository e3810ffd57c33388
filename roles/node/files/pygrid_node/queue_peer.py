# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TCP connection under a message of the queue, so that a worker that lost its right can be cut off.

ZeroMQ asks who somebody is when he connects and never again, and has no call that closes one peer's connection. But a
message says which file descriptor it came from (ZMQ_SRCFD), and a shutdown of that ends the connection for ZeroMQ, too.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Any

import zmq


@dataclass(frozen=True)
class Peer:
    """One connection: its descriptor in this process, and the address at its other end."""

    descriptor: int
    address: Any

    @classmethod
    def of(cls, frame: zmq.Frame) -> Peer | None:
        """Where a frame came from; None when its connection is closed by now."""
        with contextlib.suppress(OSError, zmq.ZMQError):
            descriptor = int(frame.get(zmq.SRCFD))
            with _opened(descriptor) as connection:
                return cls(descriptor, connection.getpeername())
        return None

    def cut(self) -> None:
        """Close the connection; the descriptor may be another one's by now, which the address tells."""
        with contextlib.suppress(OSError), _opened(self.descriptor) as connection:
            if connection.getpeername() == self.address:
                connection.shutdown(socket.SHUT_RDWR)


def _opened(descriptor: int) -> socket.socket:
    """A socket on a copy, so that ZeroMQ's own stays open."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)  # of a file that has this number by now; a copy of a locked one would keep it locked
        raise
