# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker and its domain's queue say to each other: upstream's frames, plus one JSON frame of ours.

A worker's state travels with READY and each heartbeat, also while a job runs. So the domain knows a dead worker within
EXPIRY_SECONDS and what it was doing, where upstream guesses for 60 s and forgets (S/service/queue/zmq_producer.py).
Unknown keys are ignored, so that a worker and a domain of different releases understand each other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

HEADER = b"MDPW01"  # the header and the commands are those of S/service/queue/zmq_common.py
READY = b"0x01"
REQUEST = b"0x02"
REPLY = b"0x03"
HEARTBEAT = b"0x04"
DISCONNECT = b"0x05"

HEARTBEAT_SECONDS = 2.0
EXPIRY_SECONDS = 20.0  # a worker that was silent for so long is gone
UNREACHABLE_SECONDS = 10.0  # the same when its connection is closed, too
SILENCE_SECONDS = 12.0  # a domain that was silent for so long is asked again over a new connection


@dataclass(frozen=True)
class Beat:
    """A worker's state: `request` is the queue item it works on, or the last one it was done with."""

    state: str = "idle"  # idle, busy or draining
    request: str = ""
    job: str = ""
    policy: str = "requeue"  # what becomes of its running job if it is never heard of again

    def encode(self) -> bytes:
        """The frame that travels."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, frame: bytes) -> Beat:
        """Read a frame; raises ValueError when it is none."""
        document = json.loads(frame)
        if not isinstance(document, dict):
            raise ValueError("a beat is a JSON object")
        return cls(**{key: str(document[key]) for key in cls.__dataclass_fields__ if key in document})


def frames(command: bytes, *data: bytes) -> list[bytes]:
    """A message as it travels between DEALER and ROUTER, without the routing frame."""
    return [b"", HEADER, command, *data]
