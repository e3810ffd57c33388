# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception of the runtime, made to be read by a person."""

from __future__ import annotations

EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: starting again cannot help until somebody changes something
EXIT_TEMPORARY = 75  # EX_TEMPFAIL: starting again may help (port still taken, database not up yet)


class NodeError(Exception):
    """A reason, in one line and without secrets, why the node cannot do what was asked.

    Args:
        message: the reason; line breaks are folded, so that it always is one line.
        exit_code: what the process exits with, one of EXIT_CONFIGURATION and EXIT_TEMPORARY.
    """

    def __init__(self, message: str, exit_code: int = EXIT_CONFIGURATION) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code
