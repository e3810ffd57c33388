#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of openmined.pygrid.bundle_archive, which is an action on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_archive
short_description: Make the archive from which hosts without internet are deployed
version_added: 0.1.0
description:
  - Runs on the controller and talks to no host, so it can be run where the internet is and the hosts are not.
  - The archive holds what every host of the group C(pygrid) needs from outside - wheels for the Pythons and platforms
    that are asked for, wheels built from what exists as source only, uv, packages of the distribution with all that
    they depend on, and a CPython for hosts with C(pygrid_managed_python).
  - C(bundle.json), its first file, lists all of them with version, size, checksum (sha256) and licence.
    Beside the archive is its own checksum.
  - The controller's own settings for uv, pip and apt apply - index, proxies, certificates, mirrors.
  - The archive is complete or the former one; the same contents are not written again.
options:
  state:
    description:
      - V(present) makes the archive.
      - V(checked) reads those that the hosts of the play are to be deployed from (C(pygrid_bundle)), and fails when one
        of them is damaged.
    type: str
    choices: [present, checked]
    default: present
  file:
    description: The archive to make.
    type: str
  pythons:
    description: Versions of CPython (C(3.11)) of the hosts; when empty, those that the distributions bring.
    type: list
    elements: str
    default: []
  platforms:
    description: Processors of the hosts (C(x86_64), C(aarch64)); when empty, the controller's.
    type: list
    elements: str
    default: []
  distributions:
    description: Operating systems of the hosts (C(debian-12)); when empty, the controller's.
    type: list
    elements: str
    default: []
  known_distributions:
    description: Suite in Debian's archive and own CPython of each distribution, from the role bundle.
    type: dict
    default: {}
  apt_sources:
    description: Lines of sources.list for a distribution, instead of the controller's own.
    type: dict
    default: {}
  cache:
    description: Folder for downloads that the next bundle uses again.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode and say what would change, without changing it.
    support: full
  diff_mode:
    description: Returns what changed (or would change) in check mode.
    support: none
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Look at what a deploy is to use
  openmined.pygrid.bundle_archive:
    state: checked
  run_once: true
"""

RETURN = r"""
file:
  description: The archive.
  returned: when O(state=present)
  type: str
contents:
  description: What it holds, in words.
  returned: when O(state=present)
  type: list
  elements: str
files:
  description: How many files it holds.
  returned: when O(state=present) and not in check mode
  type: int
size_mb:
  description: Its size in megabytes.
  returned: when O(state=present) and not in check mode
  type: int
seconds:
  description: How long it took.
  returned: when O(state=present) and not in check mode
  type: float
bundles:
  description: For each value of C(pygrid_bundle) what tells M(openmined.pygrid.node_info) whether that bundle fits.
  returned: when O(state=checked)
  type: dict
"""
