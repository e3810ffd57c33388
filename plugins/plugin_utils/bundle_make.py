# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a bundle: from what the inventory and the variables ask for to one archive."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import SCHEMA, sha256_of
from ansible_collections.openmined.pygrid.plugins.plugin_utils import bundle_debs, bundle_licences, bundle_rpms
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_archive import contents_of, write_archive
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_pythons import python_for, uv_for
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Target, Workshop
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_wheels import (
    Pin,
    WheelStore,
    file_name,
    read_pins,
    resolve,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import LOCKS, ReleaseSource, uv_version
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import collection_version

SUPERVISOR = "requirements/supervisor.txt"


@dataclass(frozen=True)
class Distribution:
    """Packages of an operating system (``debian-12``) on a platform; ``suite`` is its name in Debian's archive."""

    name: str
    platform: str
    suite: str
    packages: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def folder(self) -> str:
        return f"packages/{self.name}-{self.platform}"

    @property
    def machine(self) -> str:
        return self.platform.partition("-")[2]


@dataclass(frozen=True)
class Plan:
    """All that a bundle is to hold. ``pythons``: those of the targets whose CPython goes into it."""

    releases: list[tuple[ReleaseSource, list[str]]]
    targets: list[Target]
    pythons: list[Target]
    distributions: list[Distribution]

    def outline(self) -> dict[str, Any]:
        """What can be told of the bundle before anything is downloaded."""
        releases = [
            {
                "version": source.version,
                "lock_sha256": source.lock_sha256,
                "packages": packages,
                "tag": target.tag,
                "platform": target.platform,
            }
            for source, packages in self.releases
            for target in self.targets
        ]
        return {
            "releases": releases,
            "pythons": [{"tag": target.tag, "platform": target.platform} for target in self.pythons],
            "distributions": [{"name": item.name, "platform": item.platform} for item in self.distributions],
        }

    def is_outline_of(self, index: dict[str, Any] | None) -> bool:
        """Whether a bundle that was made before is one of this plan."""
        if index is None:
            return False
        keys = {"releases": ("version", "lock_sha256", "packages", "tag", "platform"), "pythons": ("tag", "platform")}
        keys["distributions"] = ("name", "platform")
        held = {part: [{key: entry[key] for key in names} for entry in index[part]] for part, names in keys.items()}
        return held == self.outline()

    def steps(self) -> list[str]:
        """The plan in words."""
        lines = [
            f"syft {source.version} for {target.text}" + (f" with {', '.join(packages)}" if packages else "")
            for source, packages in self.releases
            for target in self.targets
        ]
        lines += [f"CPython {target.python} for {target.platform}" for target in self.pythons]
        return lines + [
            f"packages of {item.name} on {item.platform}: {', '.join(item.packages)}" for item in self.distributions
        ]


@dataclass
class Contents:
    """The files of a bundle as they come together: where each lies, and what the list of contents says of it."""

    workshop: Workshop
    scratch: Path
    sources: dict[str, Path] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, path: str, source: Path, kind: str, name: str, version: str, licence: str) -> str:
        """Add a file; returns its path inside."""
        if path not in self.files:
            self.sources[path] = source
            self.files[path] = {
                "path": path,
                "size": source.stat().st_size,
                "sha256": sha256_of(source),
                "kind": kind,
                "name": name,
                "version": version,
                "licence": licence,
            }
        return path

    def add_text(self, path: str, text: str, name: str) -> str:
        """Add a file that is made here."""
        source = self.scratch / path.replace("/", "_")
        source.write_text(text, encoding="utf-8")
        return self.add(path, source, "index", name, "", "GPL-3.0-or-later")

    def add_wheels(self, wheels: dict[Pin, Path]) -> list[str]:
        """Add one wheel for each pin."""
        return [
            self.add(f"wheels/{file.name}", file, "wheel", pin.name, pin.version, bundle_licences.of_wheel(file))
            for pin, file in wheels.items()
        ]


def make(plan: Plan, file: Path, workshop: Workshop) -> dict[str, Any]:
    """Bring everything together and write the archive, unless one with the same contents is there.

    Returns its list of contents, and whether it was written as ``changed``.
    """
    store = WheelStore(workshop)
    with tempfile.TemporaryDirectory(dir=workshop.folder("work")) as folder:
        contents = Contents(workshop, Path(folder))
        index: dict[str, Any] = {
            "schema": SCHEMA,
            "collection": collection_version(),
            "uv_version": uv_version(),
            "releases": _releases(plan, contents, store),
            "supervisor": _supervisor(plan, contents, store),
            "uv": _uv(plan, contents, store),
            "pythons": [_python(target, contents) for target in plan.pythons],
            "distributions": [_distribution(item, contents) for item in plan.distributions],
        }
        index["files"] = sorted(contents.files.values(), key=lambda entry: entry["path"])
        old = contents_of(file)
        if old and {**old, "made_at": None} == {**index, "made_at": None}:
            return {**old, "changed": False}
        index["made_at"] = _now()
        size = sum(entry["size"] for entry in index["files"])
        workshop.say(f"{file}: writing {len(index['files'])} files, {size // 1_000_000} MB")
        write_archive(file, index, contents.sources)
    return {**index, "changed": True}


def _releases(plan: Plan, contents: Contents, store: WheelStore) -> list[dict[str, Any]]:
    entries = []
    outlines = iter(plan.outline()["releases"])
    for source, packages in plan.releases:
        for target in plan.targets:
            pins = read_pins(resolve(contents.workshop, source, packages, target), target)
            wheels = store.fetch(pins, target, f"syft {source.version} for {target.text}")
            text = "".join(pin.locked_to(wheel) for pin, wheel in wheels.items())
            path = contents.add_text(file_name(source, packages, target), text, "requirements")
            entries.append({**next(outlines), "requirements": path, "wheels": contents.add_wheels(wheels)})
    return entries


def _supervisor(plan: Plan, contents: Contents, store: WheelStore) -> dict[str, Any]:
    """What keeps nodes running in scope user; pure Python, the same for every target."""
    target = plan.targets[0]
    pins = read_pins((LOCKS / "supervisor.txt").read_text(encoding="utf-8"), target)
    wheels = store.fetch(pins, target, "supervisor")
    text = "".join(pin.locked_to(wheel) for pin, wheel in wheels.items())
    return {
        "requirements": contents.add_text(SUPERVISOR, text, "requirements"),
        "wheels": contents.add_wheels(wheels),
    }


def _uv(plan: Plan, contents: Contents, store: WheelStore) -> list[dict[str, str]]:
    version = uv_version()
    first = {target.platform: target for target in reversed(plan.targets)}
    entries = []
    for platform in sorted(first):
        program = uv_for(contents.workshop, store, first[platform])
        path = contents.add(f"uv/{platform}/uv", program, "program", "uv", version, "MIT OR Apache-2.0")
        entries.append({"platform": platform, "path": path})
    return entries


def _python(target: Target, contents: Contents) -> dict[str, Any]:
    archive, entry = python_for(contents.workshop, target)
    path = f"pythons/{entry['platform']}/{entry['name']}"
    contents.add(path, archive, "program", "cpython", entry["version"], "PSF-2.0")
    return {**{key: entry[key] for key in ("tag", "platform", "version")}, "path": path}


def _distribution(item: Distribution, contents: Contents) -> dict[str, Any]:
    workshop = contents.workshop
    workshop.say(f"{item.name} on {item.platform}: {', '.join(item.packages)} and what they need")
    names = _debs(item, contents) if item.suite else _rpms(item, contents)
    return {
        "name": item.name,
        "platform": item.platform,
        "folder": item.folder,
        "wanted": list(item.packages),
        "contents": sorted(set(names)),
    }


def _debs(item: Distribution, contents: Contents) -> list[str]:
    workshop = contents.workshop
    apt = bundle_debs.AptWorkshop(workshop, item.name, item.suite, item.machine, list(item.sources))
    packages = apt.fetch(list(item.packages))
    said = {package.name: deb_licence(workshop, package) for package in packages}
    for package in packages:
        licence, shared = said[package.name]
        if shared in said:
            licence = said[shared][0]
        path = f"{item.folder}/{bundle_debs.bundle_name(package)}"
        contents.add(path, package.file, "package", package.name, package.version, licence)
    index, release = bundle_debs.repository(packages)
    contents.add_text(f"{item.folder}/Packages", index, "index of packages")
    contents.add_text(f"{item.folder}/Release", release, "index of packages")
    return [package.name for package in packages]


def deb_licence(workshop: Workshop, package: bundle_debs.Package) -> tuple[str, str | None]:
    """Licence of a package, and the package whose copyright file it shares; remembered, for looking is slow."""
    known = workshop.folder("licences") / package.sha256
    if not known.exists():
        answer = bundle_licences.of_deb(package.file, package.name)
        known.write_text(json.dumps(answer), encoding="utf-8")
    licence, shared = json.loads(known.read_text(encoding="utf-8"))
    return licence, shared


def _rpms(item: Distribution, contents: Contents) -> list[str]:
    rpms, index = bundle_rpms.fetch(contents.workshop, item.name, item.machine, list(item.packages))
    for rpm in rpms:
        contents.add(f"{item.folder}/{rpm.file.name}", rpm.file, "package", rpm.name, rpm.version, rpm.licence)
    for file in index:
        contents.add(f"{item.folder}/repodata/{file.name}", file, "index", "index of packages", "", "GPL-3.0-or-later")
    return [rpm.name for rpm in rpms]


def _now() -> str:
    """The time, or what SOURCE_DATE_EPOCH says it is, so that a bundle can be made again to the last byte."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.datetime.now(datetime.timezone.utc)
    if seconds:
        moment = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
