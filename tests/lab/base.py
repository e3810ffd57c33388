# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base roots: one minimal installation of each distribution, made once, on which the hosts' overlays lie.

A base holds what a minimal cloud image holds and nothing that a role has to install. Beside it lies a warm layer, the
package lists and the .deb files that the roles will ask for, so that a host installs them without downloading. Both are
named by a digest of what they are made from, and appear under that name only when they are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import recipe
from .machine import ALONE, CACHE, CHECKOUT, LabError, locked, run

#: Debian's own lists of what the roles install (key _host_packages of each); absent ones do not matter.
PACKAGE_LISTS = ("roles/host/vars/debian.yml",)
#: Asked for by ansible.builtin.apt itself.
ALWAYS_WARM = ("python3-apt",)


@dataclass(frozen=True)
class Base:
    """Read-only folders for an overlay: the installation, and what saves hosts downloading."""

    root: Path
    warm: Path


def ensure(image: str) -> Base:
    """Return the base of an image, made now unless it is there."""
    if image not in recipe.IMAGES:
        raise LabError(f"there is no base {image!r}; there are {', '.join(recipe.IMAGES)}")
    folder = CACHE / f"base-{image}"
    with locked(CACHE / f"base-{image}.lock"):
        root = folder / f"root-{digest(ingredients(image))}"
        if not root.exists():
            print(f"making the base root of {image}, once: about two minutes", flush=True)
            recipe.install(image, fresh(folder / "root.new"))
            (folder / "root.new").rename(root)
        packages = warm_packages()
        warm = folder / f"warm-{digest([root.name, packages])}"
        if not warm.exists():
            print(f"fetching {len(packages)} packages of {image} and what they need, once", flush=True)
            fetch(root, packages, fresh(folder / "warm.new"), folder)
            (folder / "warm.new").rename(warm)
        forget_others(folder, {root, warm})
    return Base(root, warm)


def fresh(folder: Path) -> Path:
    """An empty folder, whatever a killed preparation left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def forget_others(folder: Path, current: set[Path]) -> None:
    """Remove bases made from other lists, unless a host still lies on them."""
    used = {line for host in CACHE.glob("*/hosts/*/base") for line in host.read_text().splitlines()}
    for old in folder.iterdir():
        if old not in current and str(old) not in used:
            shutil.rmtree(old, ignore_errors=True)


def digest(made_from: object) -> str:
    """A short name for what something is made from."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()[:12]


def ingredients(image: str) -> list[object]:
    """Everything that a base root depends on (package sources as their files: apt takes a second to list them)."""
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    mirrors = {name: value for name, value in sorted(os.environ.items()) if name.startswith(recipe.MIRROR)}
    return [
        image,
        Path(recipe.__file__).read_text(),
        [file.read_text() for file in lists if file.is_file()],
        mirrors,
        recipe.apt_settings(),
        recipe.machine_certificates(),
    ]


def warm_packages() -> list[str]:
    """The names of the distribution packages that the roles install."""
    found = set(ALWAYS_WARM)
    for name in PACKAGE_LISTS:
        file = CHECKOUT / name
        if file.exists():
            found |= set(listed_packages(file.read_text()))
    return sorted(found)


def listed_packages(text: str) -> list[str]:
    """The items of the lists under the key _host_packages (YAML that the lab reads without a YAML library)."""
    block = re.search(r"^_host_packages:.*\n((?:[ \t-].*\n|\s*#.*\n|\s*\n)*)", text, re.MULTILINE)
    body = block.group(1) if block else ""
    items = re.findall(r"^\s*-\s+([a-z0-9][a-z0-9.+-]+)\s*(?:#.*)?$", body, re.MULTILINE)
    flow = [
        item.strip()
        for inside in re.findall(r":\s*\[([^\]]*)\]", block.group(0) if block else "")
        for item in inside.split(",")
    ]
    return items + [item for item in flow if item]


def fetch(root: Path, packages: list[str], layer: Path, folder: Path) -> None:
    """Fill a layer with package lists and .deb files, by the base's own apt."""
    work, merged = fresh(folder / "work.new"), fresh(folder / "merged.new")
    script = """
        set -e
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
        mount --bind /etc/resolv.conf "$4/etc/resolv.conf"
        mount -t proc proc "$4/proc"
        chroot "$4" apt-get -qq update
        for package in $5; do
            chroot "$4" apt-cache --quiet=2 show "$package" >/dev/null 2>&1 && known="$known $package"
        done
        DEBIAN_FRONTEND=noninteractive chroot "$4" apt-get -qq install --download-only $known >/dev/null
        rm -f "$4/var/cache/apt/archives/lock" "$4/var/lib/apt/lists/lock"
        """
    run(*ALONE, "sh", "-c", script, "fetch", root, layer, work, merged, " ".join(packages))
    shutil.rmtree(work)
    merged.rmdir()
