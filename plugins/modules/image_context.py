#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of openmined.pygrid.image_context, which is an action on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_context
short_description: Bring together what images of nodes are built from
version_added: 0.1.0
description:
  - Makes a folder on the controller with everything that goes into the images of nodes - packages checked by hash, uv,
    the node runtime and a Dockerfile - so that the build itself needs no network.
  - Which version and which packages is decided by the inventory.
  - In check mode nothing is fetched.
extends_documentation_fragment:
  - openmined.pygrid.attributes
options:
  base:
    description: Image that they are built on; the folder is made for the Python that it has.
    type: str
    required: true
  engine:
    description: Container engine of the controller; V(auto) takes docker where it answers, else podman.
    type: str
    choices: [auto, docker, podman]
    default: auto
  socket:
    description: URL of its daemon; when empty the one that the account's own settings lead to.
    type: str
    default: ""
  cache:
    description:
      - Folder for downloads, which the next run uses again. When empty, C(pygrid/bundle) in the account's XDG cache
        folder.
    type: str
    default: ""
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Bring together what goes into the images
  openmined.pygrid.image_context:
    base: python:3.12-slim-bookworm
"""

RETURN = r"""
folder:
  description: The folder to build from.
  returned: not in check mode
  type: str
command:
  description: The words by which the engine is called.
  returned: always
  type: list
  elements: str
python:
  description: Version of the Python of the base image.
  returned: not in check mode
  type: str
version:
  description: Version of syft.
  returned: always
  type: str
lock_sha256:
  description: Checksum of its lock.
  returned: always
  type: str
runtime_sha256:
  description: Checksum of the node runtime.
  returned: always
  type: str
packages:
  description: Extra requirements that go in.
  returned: always
  type: list
  elements: str
"""
