# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be there before tests run: servers for nodes, and a lab; got by the same command that runs the tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from . import machine
from .host import Host

#: A scenario is run on lab hosts when this playbook creates them.
CREATE = "/shared/lab/create.yml"
#: What tests run real nodes against, with its Debian package. PostgreSQL's programs are not in PATH.
SERVERS = {
    "/usr/lib/postgresql/*/bin/initdb": "postgresql",
    "/usr/sbin/haproxy": "haproxy",
    "/usr/bin/openssl": "openssl",
    "/usr/sbin/nft": "nftables",
    "/usr/bin/restic": "restic",
}
#: Runs a command under a heading and tells whether it passed.
Step = Callable[..., bool]


def install_servers(step: Step) -> None:
    """Install the servers that are missing, where that is possible; elsewhere the tests that need them are skipped."""
    missing = [package for place, package in SERVERS.items() if not list(Path("/").glob(place[1:]))]
    if missing and machine.can_install():
        step("package lists", "apt-get", "-qq", "update")
        step("servers", "apt-get", "-qq", "--yes", "--no-install-recommends", "install", *missing)


def images(scenario: Path) -> set[str]:
    """The bases on which a scenario's hosts lie; none when its hosts are no lab's."""
    import yaml  # comes with ansible; the lab by hand does without

    document = yaml.safe_load((scenario / "molecule.yml").read_text())
    create = document.get("provisioner", {}).get("playbooks", {}).get("create", "")
    if not create.endswith(CREATE):
        return set()
    return {platform.get("image", Host.image) for platform in document["platforms"]}


def prepare(step: Step, wanted: set[str]) -> str | None:
    """Install what the lab needs where that is possible and make its bases; returns why there is no lab, if so."""
    if os.environ.get("PYGRID_TEST_DRIVER") == "docker":
        return None if shutil.which("docker") else "PYGRID_TEST_DRIVER is docker, and there is no program docker"
    if machine.can_install() and (packages := machine.missing_packages()):
        step("lab package lists", "apt-get", "-qq", "update")
        step("lab programs", "apt-get", "-qq", "--yes", "install", *packages)
    if reason := why_not():
        return reason
    step("lab bases", sys.executable, "-m", "tests.lab", "base", *sorted(wanted))
    return None


def why_not() -> str | None:
    """What this machine lacks for a lab; None when nothing."""
    reasons = [reason] if (reason := machine.obstacle()) else []
    if missing := machine.missing_programs():
        reasons.append(f"missing: {', '.join(missing)} (Debian packages {' '.join(machine.missing_packages())})")
    return "; ".join(reasons) or None
