# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hands have to know of a cloud."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tests.lab.lab import Lab


@dataclass(frozen=True)
class Plugged:
    """A volume as a machine has it. ``device``: its name in /dev; ``link``: its name as seen from /dev/disk/by-id."""

    volume: str
    gigabytes: int
    device: str
    link: str


@dataclass(frozen=True)
class Booked:
    """A machine as a cloud's books have it.

    ``name``: of the lab's host. ``image``: the cloud's id of what it is made from.
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
    volumes: tuple[Plugged, ...] = ()


class Books(Protocol):
    """What a cloud says that there is. Made and used in the lab's network."""

    def machines(self) -> Iterable[Booked]:
        """All machines that exist; those that are being taken away do not."""

    def images(self) -> Mapping[str, str]:
        """Images that were made of machines: id of the image to the name of the lab's host."""

    def volumes(self) -> Iterable[str]:
        """Ids of all volumes that exist."""


class Cloud(Protocol):
    """A module beside this one: a kind of cloud, whose API is at an address of the lab."""

    @staticmethod
    def serve(lab: Lab) -> tuple[list[str], int]:
        """The command that runs the API in the lab's network, and its port; no words when it runs already."""

    @staticmethod
    def environment(lab: Lab) -> dict[str, str]:
        """How everybody's SDK finds the API."""

    @staticmethod
    def open_books(lab: Lab) -> Books:
        """Begin to read."""
