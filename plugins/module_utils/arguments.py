# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that every module about one node has (documented in the fragment ``openmined.pygrid.node``)."""

from __future__ import annotations

from typing import Any

NODE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "home": {"type": "str", "default": ""},
    "scope": {"type": "str", "choices": ["user", "system"], "default": "user"},
}
KINDS = ["network", "domain", "worker"]
