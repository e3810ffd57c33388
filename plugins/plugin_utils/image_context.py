# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that images of nodes are built from: packages checked by hash, uv, the runtime and a Dockerfile."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import Engine
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.pythons import SUPPORTED_TEXT, SUPPORTED_VERSIONS
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_pythons import uv_for
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Target, Workshop
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_wheels import WheelStore, read_pins, resolve
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import (
    RUNTIME,
    STAGING,
    ReleaseSource,
    runtime_files,
    uv_version,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import ROLES

FILES = ROLES / "images" / "files"
_ASK = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.machine())"


def python_of(engine: Engine, base: str) -> Target:
    """The Python that an image has, by asking it; the image is pulled when it is not here.

    Raises:
        PygridError: it has none that can run a node.
    """
    said = engine.call(
        "run", "--rm", "--network", "none", "--entrypoint", "python3", base, "-I", "-c", _ASK,
        complaint=f"cannot run python3 in {base}; choose another pygrid_container_image_base",
        seconds=1800,
    )  # fmt: skip
    version, machine = said.split()
    if version not in SUPPORTED_VERSIONS:
        raise PygridError(
            f"{base} has Python {version}; set pygrid_container_image_base to an image that has {SUPPORTED_TEXT}"
        )
    return Target(version, f"linux-{machine}")


def fill(source: ReleaseSource, packages: list[str], target: Target, workshop: Workshop) -> tuple[Path, bool]:
    """Have the folder; returns where it is, and whether it was made now.

    Its name comes from everything in it, so a folder that is there is complete and needs no look.
    """
    store = WheelStore(workshop)
    pins = read_pins(resolve(workshop, source, packages, target), target)
    wheels = store.fetch(pins, target, f"syft {source.version} for {target.text}")
    requirements = "".join(pin.locked_to(wheel) for pin, wheel in wheels.items())
    own = [*sorted(FILES.iterdir()), *sorted(STAGING.glob("*.py"))]
    digest = hashlib.sha256(
        json.dumps(
            [requirements, source.runtime_sha256, uv_version(), target.platform, [path.read_text() for path in own]]
        ).encode()
    ).hexdigest()
    folder = workshop.folder("images") / f"{source.version}-{target.tag}-{digest[:12]}"
    if folder.is_dir():
        return folder, False
    with tempfile.TemporaryDirectory(dir=workshop.folder("work")) as scratch:
        draft = Path(scratch) / "context"
        (draft / "wheels").mkdir(parents=True)
        for wheel in wheels.values():
            _put(wheel, draft / "wheels" / wheel.name)
        for path in own:
            shutil.copyfile(path, draft / path.name)
        for path in runtime_files():
            place = draft / "pygrid_node" / path.relative_to(RUNTIME)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        (draft / "requirements.txt").write_text(requirements, encoding="utf-8")
        (draft / "version.txt").write_text(f"{source.version}\n", encoding="utf-8")
        shutil.copy(uv_for(workshop, store, target), draft / "uv")
        (draft / "uv").chmod(0o755)
        draft.rename(folder)
    return folder, True


def _put(wheel: Path, place: Path) -> None:
    """A second name for the same file, where the file system has such."""
    try:
        os.link(wheel, place)
    except OSError:
        shutil.copyfile(wheel, place)
