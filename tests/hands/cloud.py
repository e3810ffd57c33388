# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hands have to know of a cloud."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Booked:
    """A machine as a cloud's books have it.

    ``name``: of the lab's host. ``image``: the cloud's id of what it is made from. ``volumes``: device in the machine
    to id of the volume, each with its size in GB.
    """

    name: str
    address: str
    runs: bool
    image: str
    size: str
    memory_mb: int
    processors: float
    keys: tuple[str, ...] = ()
    user_data: str = ""
    volumes: Mapping[str, tuple[str, int]] = field(default_factory=dict)


class Cloud(Protocol):
    """Books of a cloud."""

    def machines(self) -> Iterable[Booked]:
        """All machines that exist; those that are being taken away do not."""

    def images(self) -> Mapping[str, str]:
        """Images that were made of machines: id of the image to the name of the lab's host."""

    def volumes(self) -> Iterable[str]:
        """Ids of all volumes that exist."""
