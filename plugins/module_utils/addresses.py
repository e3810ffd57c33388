# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling addresses from names. Standard library only, Python 3.8+."""

from __future__ import annotations

import ipaddress


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address (as in a URL: perhaps in brackets) and no name."""
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
