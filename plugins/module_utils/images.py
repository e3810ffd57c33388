# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as releases: how they are named, what a container of one may do, and which the releases of a host are."""

from __future__ import annotations

import hashlib
import os
import re

from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import Engine, recorded_engine
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import (
    DIGEST_LENGTH,
    is_staged,
    read_manifest,
    staged_releases,
)

# Labels of an image that is made for nodes (roles/images/files/Dockerfile).
VERSION_LABEL = "org.opencontainers.image.version"
PYTHON_LABEL = "org.openmined.pygrid.python"
# Of which home the container of a node is.
HOME_LABEL = "org.openmined.pygrid.home"

# What every container of a node may do, the launcher's as well: nothing but what its mounts allow.
CONFINED = (
    "--pull", "never", "--init", "--read-only", "--tmpfs", "/tmp:mode=1777,size=512m",  # noqa: S108 - its own
    "--shm-size", "512m",
    "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--ulimit", "core=0",
)  # fmt: skip

_DIGEST = re.compile(r"(?:^|@)sha256:([0-9a-f]{64})$")
_REFERENCE = re.compile(r"sha256:[0-9a-f]{64}|(?!sha256:)[a-z0-9][a-zA-Z0-9./:_-]*(@sha256:[0-9a-f]{64})?")


def image_digest(reference: str) -> str | None:
    """The digest (hex) that a reference pins, or the id that it is; None for a tag, which may be moved."""
    found = _DIGEST.search(reference)
    return found.group(1) if found else None


def check_reference(reference: str) -> str:
    """Why a text names no image; empty when it does."""
    if _REFERENCE.fullmatch(reference):
        return ""
    return f"'{reference}' is no name of an image; it looks like registry.example/pygrid/domain@sha256:0123..."


def image_release_name(version: str, reference: str) -> str:
    """Folder name of the release that is an image: from its digest, or for a tag from the tag's own text."""
    digest = image_digest(reference) or hashlib.sha256(reference.encode()).hexdigest()
    return f"{version}-{digest[:DIGEST_LENGTH]}"


def image_of(home: Home, release: str | None) -> str | None:
    """The image (id) that a release of this host is; None for one that is an environment, and for none."""
    manifest = read_manifest(home.root, release) if release else None
    return ((manifest or {}).get("image") or {}).get("id")


def can_run(home: Home, name: str) -> bool:
    """Whether a release is here, and if it is an image, the engine still has that: people prune what does not run."""
    if not is_staged(home.root, name):
        return False
    image = image_of(home, name)
    if image is None:
        return True
    engine = recorded_engine(home)
    return engine is not None and engine.inspect("image", image) is not None


def container_name(node: str) -> str:
    """``pygrid-alice``."""
    return f"pygrid-{node}"


def mount(folder: object, read_only: bool = False) -> str:
    """The words that show a container a folder of the host under the same path."""
    return f"type=bind,source={folder},target={folder}{',readonly' if read_only else ''}"


def user_words(engine: Engine) -> list[str]:
    """Without them podman of an account that is not root would make the account's files somebody else's."""
    return ["--userns", "keep-id"] if engine.name == "podman" and os.geteuid() != 0 else []


def forget_image(home: Home, name: str) -> None:
    """Remove the image of a release that is removed, when it was pulled for it and nothing else uses it."""
    manifest = read_manifest(home.root, name) or {}
    image, engine = manifest.get("image") or {}, recorded_engine(home)
    if image.get("pulled") and engine is not None:
        engine.ask("image", "rm", image["reference"])


def forget_images(home: Home) -> None:
    """The same for all releases of a home, once no node is left in it."""
    for name in staged_releases(home.root):
        forget_image(home, name)
