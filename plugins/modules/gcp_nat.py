#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.gcp_nat."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_nat
short_description: Have a way out for machines without a public address on Google Compute Engine
version_added: 0.1.0
description:
  - Makes a Cloud Router with a Cloud NAT for all subnets of a network. C(google.cloud.gcp_compute_router) makes routers
    and knows of no NAT; it removes this one, too.
  - One that is there with a NAT is left as it is.
extends_documentation_fragment:
  - openmined.pygrid.attributes
  - openmined.pygrid.gcp
options:
  region:
    description: The region.
    type: str
    required: true
  name:
    description: Name of the router, and of its NAT.
    type: str
    required: true
  network:
    description: The network, as a link.
    type: str
    required: true
  description:
    description: Description of the router.
    type: str
    default: ""
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Have a way out
  openmined.pygrid.gcp_nat:
    project: heart-study
    region: europe-west4
    name: pygrid-heart
    network: projects/heart-study/global/networks/pygrid-heart
"""

RETURN = r"""
changes:
  description: What was (in check mode would be) changed.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.gcp import Compute, NotThere, google


def have_nat(compute: Compute, wanted: dict[str, Any], check_mode: bool) -> list[str]:
    """Have the router with its NAT. Returns what was changed."""
    name, routers = wanted["name"], f"regions/{wanted['region']}/routers"
    nats = [
        {
            "name": name,
            "natIpAllocateOption": "AUTO_ONLY",
            "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
        }
    ]
    try:
        router = compute.ask("GET", f"{routers}/{name}")
    except NotThere:
        router = {"name": name, "description": wanted["description"], "network": wanted["network"], "nats": nats}
        if not check_mode:
            compute.do("POST", routers, router)
        return [f"router {name}"]
    if router.get("nats"):
        return []
    if not check_mode:
        compute.do("PATCH", f"{routers}/{name}", {"nats": nats})
    return [f"NAT of router {name}"]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "network": {"type": "str", "required": True},
            "description": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    changes: list[str] = []
    with google(module) as compute:
        changes = have_nat(compute, module.params, module.check_mode)
    module.exit_json(changed=bool(changes), changes=changes)


if __name__ == "__main__":
    main()
