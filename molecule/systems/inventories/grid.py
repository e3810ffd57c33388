#!/usr/bin/env python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory script: a Domain on each system, and its Worker on another one.

Nodes that share a machine have to share its address, which only the lab knows; so this is a program. Debian 13 and 11
bring no Python that syft runs on; prepare.yml builds one there, as an administrator would.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT))

from tests.lab.lab import Lab  # noqa: E402 - the path is known only now

#: Domain -> the host of its Worker.
WORKERS = {"alice": "carol", "bob": "net", "carol": "bob"}
BUILT = {"pygrid_python": "/opt/python3.11/bin/python3.11"}
WITHOUT_PYTHON = ("net", "carol")


def main() -> None:
    """Print what Ansible asks an inventory script for."""
    lab = Lab(os.environ.get("PYGRID_LAB") or os.environ["MOLECULE_SCENARIO_NAME"])
    places = {"net": "net", **{domain: domain for domain in WORKERS}}
    places |= {f"{domain}-w1": host for domain, host in WORKERS.items()}
    hosts = lab.variables()
    if not hosts:  # they are still to be made
        print("{}")
        return
    common = {"ansible_user": "operator", "ansible_become": True}
    nodes = {
        node: {**hosts[host], **common, **(BUILT if host in WITHOUT_PYTHON else {})} for node, host in places.items()
    }
    for domain in WORKERS:
        nodes[f"{domain}-w1"]["pygrid_worker_domain"] = domain
    variables = {
        "pygrid_scope": "system",
        "pygrid_worker_packages": ["scikit-learn==1.5.2"],
        "pygrid_pki_directory": str(CHECKOUT / ".cache" / "lab" / f"pki-{lab.name}"),
    }
    groups = {"network": ["net"], "domain": list(WORKERS), "worker": [f"{domain}-w1" for domain in WORKERS]}
    print(
        json.dumps(
            {
                "_meta": {"hostvars": nodes},
                "pygrid": {"children": [f"pygrid_{kind}" for kind in groups], "vars": variables},
                **{f"pygrid_{kind}": {"hosts": names} for kind, names in groups.items()},
            }
        )
    )


main()
