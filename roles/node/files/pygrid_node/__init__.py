# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node runtime of openmined.pygrid: runs a network, a domain or a worker on syft 0.9.x."""

RUNTIME_VERSION = "1.0.0"
