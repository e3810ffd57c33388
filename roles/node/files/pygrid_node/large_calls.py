# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps upstream from looking at each byte of a large value.

To upload 200 MB, a node spent 45 seconds of a processor on that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_PLAIN = (str, bytes, bytearray, memoryview)


def install() -> None:
    """Replace two functions of syft, in this process and those forked from it."""
    from syft.client.api import SyftAPICall
    from syft.service import service
    from syft.types import syft_object

    attach = _without_plain_values(syft_object.attach_attribute_to_syft_object)
    syft_object.attach_attribute_to_syft_object = attach  # the function calls itself by this name, for what is inside
    service.attach_attribute_to_syft_object = attach  # and every method of a service by this one
    SyftAPICall.__repr__ = _short


def _without_plain_values(attach: Callable[..., None]) -> Callable[..., None]:
    """Upstream's function goes through every sequence for objects of syft; text and bytes are sequences without any."""

    @functools.wraps(attach)
    def attach_to_objects(result: Any, attr_dict: dict[str, Any]) -> None:
        if not isinstance(result, _PLAIN):
            attach(result, attr_dict)

    return attach_to_objects


def _short(call: Any) -> str:
    """Upstream writes every call out with all its arguments, for a log that is thrown away."""
    return f"SyftAPICall(path={call.path}, blocking={call.blocking})"
