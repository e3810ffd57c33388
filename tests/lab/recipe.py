# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a base root is: where its packages come from, and what is changed after debootstrap has put them in."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from .machine import ALONE, LabError, run

#: What a minimal cloud image has beyond the essential packages.
INCLUDED = (
    "systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo", "python3", "iproute2",
    "iputils-ping", "procps", "ca-certificates", "curl",
)  # fmt: skip
#: Suite -> distribution. Which of them boot here is told in docs/testing.md.
SUITES = {"bookworm": "debian", "trixie": "debian", "bullseye": "debian", "jammy": "ubuntu", "noble": "ubuntu"}
#: What a host may be made from: a suite, or one with cloud-init, which makes it what its cloud says of it (Host.seed).
CLOUD = "-cloud"
IMAGES = (*SUITES, f"bookworm{CLOUD}")
#: cloud-init looks nowhere else than into the files beside it, and leaves disks, network and package sources alone.
CLOUD_INIT = """
datasource_list: [NoCloud]
network: {config: disabled}
ssh_deletekeys: false
apt_preserve_sources_list: true
growpart: {mode: "off"}
resize_rootfs: false
system_info: {default_user: {name: admin}}
"""
COMPONENTS = {"debian": "main", "ubuntu": "main universe"}
#: Units that fetch something at a moment of their own, or wait for a network that others manage here.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "motd-news.timer", "e2scrub_reap.service", "systemd-networkd.service",
    "systemd-networkd.socket", "systemd-networkd-wait-online.service", "systemd-resolved.service",
)  # fmt: skip
#: slirp4netns answers here for the resolver of the machine it runs on.
RESOLVER = "10.0.2.3"
#: Variables of this name, and DEBIAN or UBUNTU, give a mirror.
MIRROR = "PYGRID_LAB_MIRROR_"
USERS = ("operator", "careful")
INSTALL = """
    set -e
    mount --bind /etc/resolv.conf "$1/etc/resolv.conf"
    mount -t proc proc "$1/proc"
    chroot "$1" apt-get -qq update
    DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get -qq install "$2" > /dev/null
    rm -rf "$1"/var/lib/apt/lists/*
    """


@dataclass(frozen=True)
class Source:
    """One entry of a list of package sources."""

    uri: str
    release: str


def machine_certificates() -> str:
    """The CA bundle of this machine: where TLS is intercepted on the way out, it holds the CA that does."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    return bundle.read_text() if bundle.exists() else ""


def apt_settings() -> str:
    """How apt reaches its sources from this machine: proxies, time-outs, checks of dates."""
    wanted = re.compile(r"Acquire::(https?|Check-|Retries)", re.IGNORECASE)
    lines = [line for line in run("apt-config", "dump", "Acquire").splitlines() if wanted.match(line)]
    return "\n".join([*lines, 'Acquire::Languages "none";', 'APT::Install-Recommends "false";', ""])


def package_sources(suite: str) -> list[Source]:
    """Where the packages of a suite come from: this machine's own sources, or the default of debootstrap.

    PYGRID_LAB_MIRROR_DEBIAN and PYGRID_LAB_MIRROR_UBUNTU (URLs) go before both.
    """
    distribution = SUITES[suite]
    mirror = os.environ.get(f"{MIRROR}{distribution.upper()}")
    if not mirror:
        own = machine_sources(distribution)
        if own:
            codename = min((source.release for source in own), key=len)
            return [Source(source.uri, source.release.replace(codename, suite)) for source in own]
        mirror = default_mirror(suite)
    releases = [suite, f"{suite}-updates"]
    if distribution == "ubuntu":
        releases.append(f"{suite}-security")
    return [Source(mirror, release) for release in releases]


def machine_sources(distribution: str) -> list[Source]:
    """This machine's package sources, when it runs that distribution."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    codename = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID", "").strip('"') != distribution or not codename:
        return []
    listed = run("apt-get", "indextargets", "--format", "$(CREATED_BY) $(REPO_URI) $(RELEASE)").splitlines()
    targets = [line.split() for line in listed if line.startswith("Packages ")]
    return sorted({Source(uri, name) for _kind, uri, name in targets if name.startswith(codename)}, key=str)


def default_mirror(suite: str) -> str:
    """The mirror that debootstrap would take, from its script for the suite."""
    ask = 'default_mirror() { echo "$1"; exit; }; . "$0"'
    architecture = run("dpkg", "--print-architecture").strip()
    told = run("sh", "-c", ask, debootstrap_script(suite), environment={"ARCH": architecture, "SUITE": suite}).strip()
    if not told:
        variable = f"{MIRROR}{SUITES[suite].upper()}"
        raise LabError(f"no mirror is known for {suite} on this machine; give one in {variable}")
    return told


def debootstrap_script(suite: str) -> Path:
    """The script for a suite, also for one that is younger than debootstrap."""
    scripts = Path("/usr/share/debootstrap/scripts")
    own = scripts / suite
    return own if own.exists() else scripts / {"debian": "sid", "ubuntu": "gutsy"}[SUITES[suite]]


def suite_of(image: str) -> str:
    return image.removesuffix(CLOUD)


def install(image: str, root: Path) -> None:
    """Install the base system and make it a root that boots in a container."""
    suite = suite_of(image)
    sources = package_sources(suite)
    main = next(source.uri for source in sources if source.release == suite)
    keyring = Path(f"/usr/share/keyrings/{SUITES[suite]}-archive-keyring.gpg")
    # Without the distribution's keys this first step trusts TLS instead; apt in the root has the keys then.
    checked = ["--force-check-gpg", f"--keyring={keyring}"] if keyring.exists() else ["--no-check-gpg"]
    mirror = main if keyring.exists() else re.sub("^http:", "https:", main)
    components = COMPONENTS[SUITES[suite]]
    include = f"--include={','.join(INCLUDED)}"
    options = ["--variant=minbase", f"--components={components.replace(' ', ',')}", include, *checked]
    run(*ALONE, "debootstrap", *options, suite, root, mirror, debootstrap_script(suite))
    lines = [f"deb {source.uri} {source.release} {components}" for source in sources]
    (root / "etc/apt/sources.list").write_text("\n".join([*lines, ""]))
    (root / "etc/apt/apt.conf.d/99lab").write_text(apt_settings())
    trust_machine(root)
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    (root / "etc/default/locale").write_text("LANG=C.UTF-8\n")
    (root / "etc/hostname").unlink(missing_ok=True)
    add_users(root)
    if image != suite:
        run(*ALONE, "sh", "-c", INSTALL, "install", root, "cloud-init")
        (root / "etc/cloud/cloud.cfg.d/99-lab.cfg").write_text(CLOUD_INIT)
        (root / "etc/cloud/ds-identify.cfg").write_text("policy: enabled\ndatasource: NoCloud\n")
    # Each host gets its own.
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    shutil.rmtree(root / "var/cache/apt/archives")
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    (root / "var/cache/pygrid/packages").mkdir(parents=True)


def trust_machine(root: Path) -> None:
    """Let the base trust the CAs that this machine trusts beyond those of the distribution."""
    certificate = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
    known = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    ours = [found for found in certificate.findall(machine_certificates()) if found.strip() not in known]
    for number, text in enumerate(ours, start=1):
        (root / f"usr/local/share/ca-certificates/machine-{number}.crt").write_text(f"{text.strip()}\n")
    run(*ALONE, "chroot", root, "update-ca-certificates")


def add_users(root: Path) -> None:
    """A user for each way to become root; their keys and passwords are each lab's own."""
    for user in USERS:
        run("chroot", root, "useradd", "--create-home", "--gid", "users", "--shell", "/bin/bash", user)
    rules = root / "etc/sudoers.d/lab"
    rules.write_text("operator ALL=(ALL:ALL) NOPASSWD: ALL\ncareful ALL=(ALL:ALL) ALL\n")
    rules.chmod(0o440)
