# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the slots of a worker are called: each of its processes is a registered worker of its own."""

from __future__ import annotations

import hashlib
import uuid


def slot_uid(uid: str, number: int) -> str:
    """The uid (hex) of a worker's slot: that of the worker for the first, and for others derived from it.

    Args:
        uid: the worker's own uid (hex).
        number: from 1.
    """
    if number == 1:
        return uid
    return uuid.UUID(bytes=hashlib.sha256(f"{uid}:{number}".encode()).digest()[:16], version=4).hex


def slot_name(name: str, number: int) -> str:
    """The name under which a slot is registered: alice-w1, alice-w1-2, alice-w1-3."""
    return name if number == 1 else f"{name}-{number}"
