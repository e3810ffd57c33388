# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheels of a release for a Python and a platform that need not be the controller's."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import sha256_of
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.release_stage import only_new
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Target, Workshop, run
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import ReleaseSource

try:
    from packaging.markers import default_environment
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
    from packaging.version import Version
except ImportError:  # part of ansible-core, but ansible-test imports plugins without it
    pass

# glibc 2.28 is older than that of every supported system: the wheels run on all of them.
GLIBC_MINOR = 28
OLDEST_GLIBC_MINOR = {"x86_64": 5, "aarch64": 17}
OLDER_NAMES = {"x86_64": ("manylinux2014", "manylinux2010", "manylinux1"), "aarch64": ("manylinux2014",)}
# pip downloads one file after the other.
DOWNLOADS_AT_A_TIME = 4
# What is built from source is the same whenever it is built.
BUILD_TIME = "315532800"


@dataclass(frozen=True)
class Pin:
    """One line of a lock: name==version, perhaps for some systems only, and the checksums that are allowed."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        return str(self.requirement.specifier).lstrip("=")

    @property
    def plain(self) -> str:
        """For pip, which would judge markers by the Python that runs it."""
        return f"{self.name}=={self.version} " + " ".join(f"--hash=sha256:{value}" for value in self.hashes)

    def locked_to(self, wheel: Path) -> str:
        """The line of the bundle: this very wheel, which lies in the store under its checksum."""
        marker = f" ; {self.requirement.marker}" if self.requirement.marker else ""
        return f"{self.name}=={self.version}{marker} --hash=sha256:{wheel.parent.name}\n"


def read_pins(text: str, target: Target) -> list[Pin]:
    """The lines of a lock that may apply to the target."""
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement, *hashes = line.split("--hash=sha256:")
        pin = Pin(Requirement(requirement), tuple(value.strip() for value in hashes))
        if applies(pin.requirement, target):
            pins.append(pin)
    return pins


def applies(requirement: Requirement, target: Target) -> bool:
    """Whether a requirement is one of the target's, whatever the last number of its Python's version is."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate(marker_environment(target, patch)) for patch in (0, 99))


def marker_environment(target: Target, patch: int) -> dict[str, str]:
    """What markers are compared with on a host of the target."""
    version = f"{target.python}.{patch}"
    return {
        **default_environment(),
        "implementation_name": "cpython",
        "implementation_version": version,
        "os_name": "posix",
        "platform_machine": target.machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": version,
        "python_version": target.python,
        "sys_platform": "linux",
    }


def resolve(workshop: Workshop, source: ReleaseSource, packages: list[str], target: Target) -> str:
    """The lock of a release with what its extra packages need on the target, as a host would resolve it."""
    lock = source.lock_file.read_text(encoding="utf-8")
    if not packages:
        return lock
    with tempfile.TemporaryDirectory(dir=workshop.folder("work")) as folder:
        wanted = Path(folder) / "packages.in"
        wanted.write_text("".join(f"{package}\n" for package in packages), encoding="utf-8")
        options = ["--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        options += ["--python-version", target.python]
        options += ["--python-platform", f"{target.machine}-manylinux_2_{GLIBC_MINOR}"]
        complaint = f"the packages {', '.join(packages)} do not go with the lock file for {target.text}"
        arguments = ["pip", "compile", *options, "--constraints", str(source.lock_file), str(wanted)]
        return lock + only_new(workshop.uv(*arguments, complaint=complaint), lock)


class WheelStore:
    """All wheels that were ever needed, by checksum; what is there is not asked for again."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._wheels = workshop.folder("wheels")
        self._choices = workshop.folder("choices")

    def fetch(self, pins: Iterable[Pin], target: Target, what: str) -> dict[Pin, Path]:
        """One wheel for each pin."""
        pins = list(pins)
        found = {pin: wheel for pin in pins if (wheel := self._known(pin, target))}
        lacking = [pin for pin in pins if pin not in found]
        self._workshop.say(f"{what}: {len(pins)} packages, {len(lacking)} to download")
        if lacking:
            with tempfile.TemporaryDirectory(dir=self._workshop.folder("work")) as folder:
                self._download(lacking, target, Path(folder))
                for file in sorted(Path(folder).glob("*/*")):
                    self._keep(file, lacking, target)
            found.update({pin: wheel for pin in lacking if (wheel := self._known(pin, target))})
        for pin in pins:
            if pin not in found:
                raise PygridError(f"no wheel of {pin.name} {pin.version} was found for {target.text}")
        return found

    def _choice(self, pin: Pin, target: Target) -> Path:
        text = json.dumps([pin.name, pin.version, sorted(pin.hashes), target.tag, target.platform])
        return self._choices / hashlib.sha256(text.encode()).hexdigest()

    def _known(self, pin: Pin, target: Target) -> Path | None:
        choice = self._choice(pin, target)
        if not choice.is_file():
            return None
        wheel = self._wheels / choice.read_text(encoding="utf-8").strip()
        return wheel if wheel.is_file() and sha256_of(wheel) == wheel.parent.name else None

    def _download(self, pins: list[Pin], target: Target, folder: Path) -> None:
        """Let pip choose and download, a few at the same time."""
        pip = self._workshop.pip()
        parts = [pins[number::DOWNLOADS_AT_A_TIME] for number in range(DOWNLOADS_AT_A_TIME)]

        def download(number: int) -> None:
            part = folder / str(number)
            part.mkdir()
            wanted = part.with_suffix(".txt")
            wanted.write_text("".join(f"{pin.plain}\n" for pin in parts[number]), encoding="utf-8")
            command = [*pip, "download", "--quiet", "--no-deps", "--dest", str(part), "-r", str(wanted)]
            # Without checksums (uv itself) it is what the index gives.
            command += ["--require-hashes"] if all(pin.hashes for pin in parts[number]) else []
            run([*command, *pip_options(target)], f"cannot download packages for {target.text}", self._pip_variables())

        with ThreadPoolExecutor(DOWNLOADS_AT_A_TIME) as workers:
            list(workers.map(download, [number for number, part in enumerate(parts) if part]))

    def _pip_variables(self) -> dict[str, str]:
        variables = {"PIP_CACHE_DIR": str(self._workshop.folder("pip")), "PIP_NO_INPUT": "1"}
        index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
        return {**variables, "PIP_INDEX_URL": index} if index else variables

    def _keep(self, file: Path, pins: list[Pin], target: Target) -> None:
        """Give a downloaded file its place; what came as source is built first."""
        if file.suffix != ".whl":
            name, version = parse_sdist_filename(file.name)
            file = self._build(file, name)
        else:
            name, version, _build, _tags = parse_wheel_filename(file.name)
        checksum = sha256_of(file)
        place = self._wheels / checksum
        place.mkdir(exist_ok=True)
        shutil.move(file, place / file.name)
        for pin in pins:
            if pin.name == name and Version(pin.version) == version:
                self._choice(pin, target).write_text(f"{checksum}/{file.name}\n", encoding="utf-8")

    def _build(self, source: Path, name: str) -> Path:
        """Build a wheel of pure Python, which runs anywhere."""
        self._workshop.say(f"{name} exists as source only, building a wheel")
        folder = source.parent / f"built-{name}"
        complaint = f"cannot build {source.name}"
        self._workshop.uv("build", "--quiet", "--wheel", "--out-dir", str(folder), str(source),
                          complaint=complaint, SOURCE_DATE_EPOCH=BUILD_TIME)  # fmt: skip
        wheel = next(folder.glob("*.whl"))
        if not wheel.name.endswith("-none-any.whl"):
            raise PygridError(
                f"{name} exists as source only and has to be compiled on a machine like the hosts; "
                "put a wheel of it into a package index of your own, with its checksum in the lock file"
            )
        return wheel


def pip_options(target: Target) -> list[str]:
    """How pip is told for which machine it chooses, the best first."""
    machine = target.machine
    oldest = OLDEST_GLIBC_MINOR[machine]
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, oldest - 1, -1)]
    names += [f"{name}_{machine}" for name in OLDER_NAMES[machine]]
    options = [word for name in names for word in ("--platform", name)]
    options += ["--python-version", target.python, "--implementation", "cp"]
    return options + [word for abi in (target.tag, "abi3", "none") for word in ("--abi", abi)]


def file_name(source: ReleaseSource, packages: list[str], target: Target) -> str:
    """Name of the requirements of a release inside the bundle."""
    digest = hashlib.sha256(json.dumps([source.lock_sha256, packages]).encode()).hexdigest()[:8]
    return f"requirements/{re.sub('[^0-9A-Za-z.]', '-', source.version)}-{target.tag}-{target.platform}-{digest}.txt"
