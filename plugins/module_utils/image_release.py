# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that is an image: a folder like that of any other release, whose interpreter runs in a container.

What the collection does with a release's Python - make an identity, check settings, take and restore snapshots, run
the demo - it does by ``<release>/env/bin/python``. For an image that is a launcher, so nobody need know of containers.
"""

from __future__ import annotations

import re
import shlex
import time
from typing import Any, Callable

from ansible_collections.openmined.pygrid.plugins.module_utils import release_files as files
from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import (
    Account,
    Engine,
    pull,
    record_engine,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.images import (
    CONFINED,
    PYTHON_LABEL,
    VERSION_LABEL,
    image_digest,
    image_release_name,
    mount,
    user_words,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import SCHEMA, read_manifest, releases_folder

LAUNCHER = """\
#!/bin/sh
# Written by openmined.pygrid: the Python of release {name}, which is an image.
# PYGRID_FOLDERS: further folders that it may write to, separated by colons.
set -eu
set -- --entrypoint {python} {image} "$@"
IFS=:
for folder in ${{PYGRID_FOLDERS:-}}; do
    mkdir -p "$folder"
    set -- --mount "type=bind,source=$folder,target=$folder" "$@"
done
unset IFS
case "$PWD/" in
// | {home}/*) ;;
*) set -- --mount "type=bind,source=$PWD,target=$PWD,readonly" "$@" ;;
esac
exec {engine} run --rm --interactive --network host --user "$(id -u):$(id -g)" {options} \\
    --mount {mount} --workdir "$PWD" \\
    --env HOME="${{HOME:-/tmp}}" --env PYTHONDONTWRITEBYTECODE=1 --env PYGRID_RELEASE={name} "$@"
"""


def stage_image(
    home: Home,
    engine: Engine,
    version: str,
    reference: str,
    account: Account | None,
    tick: Callable[[], None] = lambda: None,
) -> str:
    """Bring an image to this host, verify that it runs and make it a release; the caller holds the lock.

    Returns:
        The folder name of the release.

    Raises:
        PygridError: there is no such image, or it is none for a node of this version.
    """
    name = image_release_name(version, reference)
    found = engine.inspect("image", reference)
    # It stays when this run is killed after the pull: the next one still knows that the image is the grid's to remove.
    pulling = home.tools / f"pulling-{name}"
    pulled = found is None or pulling.exists()
    if found is None:
        if reference.startswith("sha256:"):
            raise PygridError(
                f"{engine.name} on this host has no image {reference}: an id is of images that were built here"
                " (images.yml); name a registry's image for others"
            )
        files.make_folder(home.tools)
        pulling.touch()
        try:
            pull(engine, reference, account, tick)
        except PygridError:
            pulling.unlink()
            raise
        found = engine.inspect("image", reference) or {}
    labels = (found.get("Config") or {}).get("Labels") or {}
    python = labels.get(PYTHON_LABEL)
    if not python or not re.match(r"^/[A-Za-z0-9._/-]+$", python):
        raise PygridError(
            f"{reference} is no image of openmined.pygrid (it has no label {PYTHON_LABEL}); images.yml builds one, and"
            " docs/containers.md tells how images of other origin are run"
        )
    if labels.get(VERSION_LABEL) != version:
        raise PygridError(
            f"{reference} has syft {labels.get(VERSION_LABEL)} and pygrid_version is {version}; they must agree"
        )
    image = str(found["Id"])
    image = image if image.startswith("sha256:") else f"sha256:{image}"
    _verify(engine, image, python, version, reference)
    record_engine(home, engine)
    staging = files.staging_folder(releases_folder(home.root))
    launcher = staging / "env" / "bin" / "python"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(launcher_text(home, engine, name, image, python), encoding="utf-8")
    launcher.chmod(0o755)
    former = (read_manifest(home.root, name) or {}).get("image") or {}
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "version": version,
        "image": {
            "reference": reference,
            "id": image,
            "python": python,
            "labels": {key: value for key, value in labels.items() if key.startswith("org.")},
            "pulled": pulled or bool(former.get("pulled")),
        },
        "staged_at": time.time(),
    }
    files.finish(staging, manifest, releases_folder(home.root) / name)
    pulling.unlink(missing_ok=True)
    return name


def _verify(engine: Engine, image: str, python: str, version: str, reference: str) -> None:
    """Let the image itself say which syft it has, as confined as a node is."""
    code = "import importlib.metadata as m, pygrid_node; print(m.version('syft'))"
    said = engine.call(
        "run", "--rm", *CONFINED, "--network", "none", "--entrypoint", python, image, "-I", "-c", code,
        complaint=f"the image {reference} does not run on this host",
    )  # fmt: skip
    if said.strip() != version:
        raise PygridError(f"the image {reference} says that it has syft {version}, and has {said.strip()}")


def launcher_text(home: Home, engine: Engine, name: str, image: str, python: str) -> str:
    """The script that is the interpreter of a release."""
    return LAUNCHER.format(
        name=name,
        home=shlex.quote(str(home.root)),
        mount=shlex.quote(mount(home.root)),
        engine=shlex.join(engine.command()),
        options=shlex.join([*user_words(engine), *CONFINED]),
        python=python,
        image=image,
    )


def describe_image(home: Home, version: str, reference: str) -> dict[str, Any]:
    """The release as the module reports it."""
    name = image_release_name(version, reference)
    return {
        "name": name,
        "path": str(releases_folder(home.root) / name),
        "version": version,
        "digest": image_digest(reference) or "",
        "image": reference,
    }
