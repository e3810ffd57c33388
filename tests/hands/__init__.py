# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hands for clouds that have none: every machine that an API server says is running becomes a booted host of a lab.

API servers of tests keep books of machines and have no machines. The hands read these books again and again, and make,
stop, resize and destroy hosts of the lab accordingly: a private address of the cloud is the address of the host, the
key that the API names lets people in (by cloud-init, as in a cloud), the machine's size is what the host may use, and a
volume is a disk that outlives it. The lab's network is the cloud's: its addresses are those of the lab's /24.
"""
