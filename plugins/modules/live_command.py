#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of openmined.pygrid.live_command, which is an action on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: live_command
short_description: Run a program on the controller and show its output while it runs
version_added: 0.1.0
description:
  - Runs a program, without a shell, on the controller, and shows each line as soon as the program writes it.
  - M(ansible.builtin.command) shows the output only when the program has ended; this is for programs that tell a person
    what they are doing.
  - Fails when the program does; the message is the last line that it wrote.
  - In check mode the program is not run.
options:
  argv:
    description: The program and its arguments.
    type: list
    elements: str
    required: true
  chdir:
    description: Folder to run it in.
    type: path
attributes:
  check_mode:
    description: Can run in check mode and say what would change, without changing it.
    support: partial
    details: The task is skipped in check mode.
  diff_mode:
    description: Returns what changed (or would change) in check mode.
    support: none
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Count to three, slowly
  openmined.pygrid.live_command:
    argv: [sh, -c, 'for number in 1 2 3; do echo $number; sleep 1; done']
"""

RETURN = r"""
rc:
  description: The exit code of the program.
  returned: when it was run
  type: int
seconds:
  description: How long it ran.
  returned: when it was run
  type: float
"""
