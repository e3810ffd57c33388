# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the fields of a decoded JSON document by type; every refusal names the key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .errors import NodeError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Fields:
    """One JSON object, whose null counts as absent.

    Args:
        document: the decoded object.
        within: where it stands in the whole document, for messages: "" or "queue.".

    Every method raises NodeError, one line that names the key.
    """

    def __init__(self, document: Mapping[str, Any], within: str = "") -> None:
        self._document, self._within = document, within

    def has(self, key: str) -> bool:
        return self._document.get(key) is not None

    def refuse_others(self, known: Collection[str], where: str) -> None:
        """Refuse every key that is not known."""
        unknown = sorted(set(self._document) - set(known))
        if unknown:
            raise NodeError(f"unknown key {unknown[0]!r} {where}")

    def wrong(self, key: str, why: str) -> NodeError:
        """What to raise for a value that is of the right type and still not usable."""
        return NodeError(f"{self._within}{key} {why}")

    def value(self, key: str, expected: type, default: Any = None) -> Any:
        value = self._document.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.wrong(key, "is missing")
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise self.wrong(key, f"must be of type {expected.__name__}, not {type(value).__name__}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value: str = self.value(key, str, default)
        if not value.strip():
            raise self.wrong(key, "is empty")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        return self.value(key, bool, default)

    def number(self, key: str, lowest: int, highest: int, default: int | None = None) -> int:
        value: int = self.value(key, int, default)
        if not lowest <= value <= highest:
            raise self.wrong(key, f"must be a number from {lowest} to {highest}, not {value}")
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise self.wrong(key, f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    def name(self, key: str, default: str | None = None) -> str:
        value = self.text(key, default)
        if not _NAME.fullmatch(value):
            raise self.wrong(key, f"{value!r} must be 1 to 63 letters, digits, dots, dashes or underscores")
        return value

    def path(self, key: str) -> Path:
        value = Path(self.text(key))
        if not value.is_absolute():
            raise self.wrong(key, f"must be an absolute path, not {str(value)!r}")
        return value

    def optional_path(self, key: str) -> Path | None:
        return self.path(key) if self.has(key) else None

    def port(self, key: str) -> int:
        value: int = self.value(key, int)
        if not 1 <= value <= 65535:
            raise self.wrong(key, f"must be a port from 1 to 65535, not {value}")
        return value

    def section(self, key: str, known: Collection[str]) -> Fields:
        """The object that stands under a key, with no keys but the known ones."""
        section = Fields(self.value(key, dict), f"{self._within}{key}.")
        section.refuse_others(known, f"in {self._within}{key}")
        return section
