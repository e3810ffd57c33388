# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that modules and plugins of this collection raise for a person to read."""

from __future__ import annotations


class PygridError(Exception):
    """Something a person has to know: what failed, why, and what to do about it.

    Modules turn it into ``fail_json(msg=...)``; it is never shown with a traceback.
    """
