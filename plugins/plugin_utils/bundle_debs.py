# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of Debian and Ubuntu with all that they need, fetched beside the controller's own package database."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import DEBIAN_ARCHITECTURES, sha256_of
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.operating_system import RELEASE_FILES, describe
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Workshop, run

SOURCES = Path("/etc/apt")
# Read after the controller's own configuration, whose proxies and logins for mirrors are needed. The empty status file
# says that nothing is installed, so that nothing is left out that a minimal image may lack.
CONFIGURATION = """\
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
Acquire::Languages "none";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Cache::archives "{folder}/cache/archives";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "{folder}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""
_INSTALL = re.compile(r"^Inst (\S+) (?:\[[^]]*] )?\((\S+) .*\[(\S+)]\)")


@dataclass(frozen=True)
class Package:
    """One package of a distribution, as its index describes it."""

    name: str
    version: str
    file: Path
    stanza: str
    sha256: str


class AptWorkshop:
    """apt with folders of its own for one distribution and architecture."""

    def __init__(self, workshop: Workshop, distribution: str, suite: str, machine: str, sources: list[str]) -> None:
        self._distribution = distribution
        architecture = DEBIAN_ARCHITECTURES[machine]
        self._folder = workshop.folder(f"apt/{distribution}-{architecture}")
        for name in ("lists/partial", "cache/archives/partial", "sources"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").write_text("", encoding="utf-8")
        self._write_sources(distribution, suite, sources)
        self._configuration = self._folder / "apt.conf"
        text = CONFIGURATION.format(folder=self._folder, architecture=architecture)
        self._configuration.write_text(text, encoding="utf-8")

    def _write_sources(self, distribution: str, suite: str, given: list[str]) -> None:
        """The sources that were given, or the controller's with the name of its own release replaced."""
        lines = "".join(f"{line}\n" for line in given)
        stanzas = ""
        if not given:
            own = describe()
            codename = _codename()
            if own["id"] != distribution.partition("-")[0]:
                raise PygridError(
                    f"the packages of {distribution} cannot be fetched on {own['id']} {own['version_id']}; "
                    "make the bundle there, or name sources by pygrid_bundle_apt_sources"
                )
            lines, stanzas = own_sources(codename, suite)
        (self._folder / "sources.list").write_text(lines, encoding="utf-8")
        (self._folder / "sources" / "own.sources").write_text(stanzas, encoding="utf-8")

    def _run(self, program: str, *arguments: str, complaint: str) -> str:
        return run([program, "-c", str(self._configuration), *arguments], complaint, {"LC_ALL": "C.UTF-8"})

    def fetch(self, names: list[str]) -> list[Package]:
        """The packages and everything they depend on, down to the C library."""
        what = f"the packages of {self._distribution}"
        self._run("apt-get", "-qq", "update", complaint=f"cannot read the list of {what}")
        command = ["-qq", "-y", "install", *names]
        plan = self._run("apt-get", "--simulate", *command, complaint=f"cannot work out {what}")
        found = [match.groups() for match in map(_INSTALL.match, plan.splitlines()) if match]
        self._run("apt-get", "--download-only", *command, complaint=f"cannot download {what}")
        stanzas = self._stanzas([f"{name}={version}" for name, version, _architecture in found])
        return [self._package(name, version, architecture, stanzas) for name, version, architecture in sorted(found)]

    def _stanzas(self, packages: list[str]) -> dict[tuple[str, str], str]:
        """What the distribution's signed index says of each package."""
        complaint = f"cannot read the index of {self._distribution}"
        text = self._run("apt-cache", "show", "--no-all-versions", *packages, complaint=complaint)
        stanzas = (block.strip() for block in text.split("\n\n"))
        return {(_field(block, "Package"), _field(block, "Version")): block for block in stanzas if block}

    def _package(self, name: str, version: str, architecture: str, stanzas: dict[tuple[str, str], str]) -> Package:
        file = self._folder / "cache" / "archives" / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
        stanza = stanzas.get((name, version), "")
        sha256 = _field(stanza, "SHA256")
        if not file.is_file() or sha256_of(file) != sha256:
            file.unlink(missing_ok=True)
            raise PygridError(f"{name} {version} of {self._distribution} was downloaded incompletely; run again")
        return Package(name, version, file, stanza, sha256)


def own_sources(codename: str, suite: str) -> tuple[str, str]:
    """The controller's sources of its distribution for another release: one-line entries, and stanzas."""
    lines = []
    stanzas = []
    for path in sorted([SOURCES / "sources.list", *SOURCES.glob("sources.list.d/*")]):
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".list":
            pattern = re.compile(rf"^deb\s.*\s{codename}(-\S+)?\s")
            lines += [line for line in text.splitlines() if pattern.match(line)]
        else:
            wanted = re.compile(rf"^Suites:.*\b{codename}\b", re.MULTILINE)
            stanzas += [block for block in re.split(r"\n\s*\n", text) if wanted.search(block)]
    change = re.compile(rf"\b{codename}\b")
    return (
        "".join(f"{change.sub(suite, line)}\n" for line in lines),
        "\n\n".join(re.sub(r"\bdeb-src\b", "", change.sub(suite, block)) for block in stanzas) + "\n",
    )


def repository(packages: list[Package]) -> tuple[str, str]:
    """The files Packages and Release of a repository that is one flat folder."""
    blocks = []
    for package in packages:
        lines = package.stanza.splitlines()
        kept = [line for line in lines if not line.startswith(("Filename:", "MD5sum:", "SHA1:", "Description-md5:"))]
        blocks.append("\n".join([*kept, f"Filename: ./{bundle_name(package)}"]))
    index = "\n\n".join(blocks) + "\n"
    data = index.encode()
    release = f"Origin: pygrid\nLabel: pygrid\nSHA256:\n {hashlib.sha256(data).hexdigest()} {len(data)} Packages\n"
    return index, release


def bundle_name(package: Package) -> str:
    """Name of a package's file inside the bundle; a percent sign would be taken for an escape."""
    return package.file.name.replace("%3a", "_")


def _field(stanza: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*)$", stanza, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _codename() -> str:
    text = next((path.read_text(encoding="utf-8") for path in RELEASE_FILES if path.exists()), "")
    found = re.search(r"^VERSION_CODENAME=\"?(\w+)", text, re.MULTILINE)
    return found.group(1) if found else "unknown"
