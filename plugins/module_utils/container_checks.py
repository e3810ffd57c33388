# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has to have for a node in a container; each check says what is wrong and what to do about it."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import find_engine, recorded_engine
from ansible_collections.openmined.pygrid.plugins.module_utils.images import HOME_LABEL, container_name
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home


def check_engine(home: Home, name: str, source: dict[str, Any]) -> list[str]:
    """Is there an engine that this account may use, is the image there or can it come, is the container's name free?

    Args:
        name: of the node.
        source: ``engine``, ``socket`` and ``image`` as the inventory gives them.
    """
    engine, problem = find_engine(source["engine"], source["socket"])
    if engine is None:
        return [f"{problem}; install one, let this account use it, or set pygrid_container_engine or _socket"]
    problems = []
    if re.search(r'[,"]', str(home.root)):
        problems.append(f"pygrid_home is {home.root}; an engine takes no folder with a comma or a quotation mark")
    recorded = recorded_engine(home)
    if recorded is not None and (recorded.name, recorded.socket) != (engine.name, engine.socket):
        problems.append(
            f"{recorded.name} {recorded.socket} runs the nodes of {home.root}, and {engine.name} {engine.socket} was"
            " chosen; set pygrid_container_engine and pygrid_container_socket back, or remove the nodes first"
        )
    container = engine.inspect("container", container_name(name))
    labels = ((container or {}).get("Config") or {}).get("Labels") or {}
    if container is not None and labels.get(HOME_LABEL) != str(home.root):
        problems.append(
            f"{engine.name} has a container {container_name(name)} already, of no node in {home.root}; remove it or"
            " choose another pygrid_name"
        )
    image = source["image"]
    if image.startswith("sha256:") and engine.inspect("image", image) is None:
        problems.append(
            f"{engine.name} on this host has no image {image}; an id is of images that were built here, so build them"
            " again (images.yml) or name a registry's"
        )
    return problems
