#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.gcp_machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_machine
short_description: Change a machine on Google Compute Engine that is there
version_added: 0.1.0
description:
  - Gives a machine another type, labels, a public address that stays its own, or a disk; starts and stops it.
  - C(google.cloud.gcp_compute_instance) makes and removes machines. It waits for none of these changes and does not see
    whether they fail, and takes from a machine all labels that it is not told of.
  - What is not named stays as it is.
extends_documentation_fragment:
  - openmined.pygrid.attributes
  - openmined.pygrid.gcp
options:
  zone:
    description: The zone of the machine.
    type: str
    required: true
  name:
    description: Name or id of the machine.
    type: str
    required: true
  state:
    description: Whether it is to run.
    type: str
    choices: [running, stopped]
  machine_type:
    description: The type that it is to have. It is stopped for this, when it has another one.
    type: str
  labels:
    description: Labels that it is to have. One that is empty is one that it is not to have.
    type: dict
    default: {}
  address:
    description: The public address that it is to have, which has to be reserved.
    type: str
  disk:
    description: Name of a disk of its zone that it is to have.
    type: str
  device_name:
    description: What the disk is called in the machine, after C(google-) in C(/dev/disk/by-id).
    type: str
    default: pygrid-data
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Make a machine larger
  openmined.pygrid.gcp_machine:
    project: heart-study
    zone: europe-west4-a
    name: pygrid-heart-alice
    machine_type: e2-standard-4
    state: running
"""

RETURN = r"""
changes:
  description: What was (in check mode would be) changed.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.gcp import Compute, google

STOPPED = "TERMINATED"


class Machine:
    """A machine as it is wanted. Each change is named before it is made; in check mode it is only named."""

    def __init__(self, compute: Compute, wanted: dict[str, Any], check_mode: bool) -> None:
        self._compute, self._wanted, self._check_mode = compute, wanted, check_mode
        self._path = f"zones/{wanted['zone']}/instances/{wanted['name']}"
        self._now = compute.ask("GET", self._path)

    def change(self) -> Iterator[str]:
        """Make the changes, one after the other."""
        yield from self._have_labels()
        if self._wanted["disk"]:
            yield from self._have_disk()
        if self._wanted["address"]:
            yield from self._have_address()
        kind = self._wanted["machine_type"]
        runs = self._now["status"] != STOPPED
        is_other = bool(kind) and self._now["machineType"].rpartition("/")[2] != kind
        if runs and (is_other or self._wanted["state"] == "stopped"):
            yield "stopped"
            self._do("stop")
            runs = False
        if is_other:
            yield f"machine type {kind}"
            self._do("setMachineType", {"machineType": f"zones/{self._wanted['zone']}/machineTypes/{kind}"})
        if not runs and self._wanted["state"] == "running":
            yield "started"
            self._do("start")

    def _do(self, verb: str, body: dict[str, Any] | None = None, **query: str) -> None:
        if not self._check_mode:
            self._compute.do("POST", f"{self._path}/{verb}", body, **query)

    def _have_labels(self) -> Iterator[str]:
        former = self._now.get("labels", {})
        labels = {name: str(value) for name, value in {**former, **self._wanted["labels"]}.items()}
        labels = {name: value for name, value in labels.items() if value or name not in self._wanted["labels"]}
        if labels != former:
            yield "labels"
            self._do("setLabels", {"labels": labels, "labelFingerprint": self._now["labelFingerprint"]})

    def _have_disk(self) -> Iterator[str]:
        disk = f"zones/{self._wanted['zone']}/disks/{self._wanted['disk']}"
        if not any(one.get("source", "").endswith(f"/{disk}") for one in self._now["disks"]):
            yield f"disk {self._wanted['disk']}"
            source = f"projects/{self._compute.project}/{disk}"
            self._do("attachDisk", {"source": source, "deviceName": self._wanted["device_name"]})

    def _have_address(self) -> Iterator[str]:
        interface = self._now["networkInterfaces"][0]
        configs = interface.get("accessConfigs", [])
        if [one.get("natIP") for one in configs] == [self._wanted["address"]]:
            return
        yield f"address {self._wanted['address']}"
        for one in configs:
            self._do("deleteAccessConfig", networkInterface=interface["name"], accessConfig=one["name"])
        body = {"name": "External NAT", "type": "ONE_TO_ONE_NAT", "natIP": self._wanted["address"]}
        self._do("addAccessConfig", body, networkInterface=interface["name"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "zone": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["running", "stopped"]},
            "machine_type": {"type": "str"},
            "labels": {"type": "dict", "default": {}},
            "address": {"type": "str"},
            "disk": {"type": "str"},
            "device_name": {"type": "str", "default": "pygrid-data"},
        },
        supports_check_mode=True,
    )
    changes: list[str] = []
    with google(module) as compute:
        changes = list(Machine(compute, module.params, module.check_mode).change())
    module.exit_json(changed=bool(changes), changes=changes)


if __name__ == "__main__":
    main()
