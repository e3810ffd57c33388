#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node
short_description: Run, stop or remove one node on its host
version_added: 0.1.0
description:
  - Compares the release, the settings, the allow-list, the service and the running process of a node with what is
    wanted, and changes only what differs. A node whose process does not yet know its settings is restarted.
  - It does not wait until the node is healthy, so nodes can start side by side; M(openmined.pygrid.node_info) does.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes
options:
  state:
    description:
      - V(started) also restarts a node that runs with another release or other settings.
      - V(absent) removes what a deploy created; identity and data stay unless O(remove_data) is true.
      - V(on_trial) is like V(started), but keeps what the node was and knew before another release takes over, and lets
        nobody in until V(accepted). Calls and jobs wait meanwhile.
      - V(accepted) ends the trial. V(refused) ends it too, and the node is what it was before; it fails for one that
        has been used meanwhile, because nobody came back to it in time.
      - V(former) goes back to the release before the last upgrade, and to what the node knew then, whatever that costs;
        in check mode RV(lost) says what.
      - V(final) forgets what the node was before its last upgrade, which frees the room of what it knew then.
    type: str
    choices: [started, stopped, absent, on_trial, accepted, refused, former, final]
    default: started
  kind:
    description: Kind of node; required unless it is V(stopped) or V(absent).
    type: str
    choices: [network, domain, worker]
  release:
    description: Name of the staged release to run; required for V(started) and V(on_trial).
    type: str
  settings:
    description:
      - What the inventory decides of the node's settings; required for V(started) and V(on_trial).
      - Holds no secret.
    type: dict
  workers:
    description:
      - Complete allow-list of a Domain, name of the Worker to its public key.
      - A key of null keeps the key that is on the list now.
    type: dict
  stop_seconds:
    description: How long a clean stop may take, for a Worker the time to finish its running job.
    type: int
    default: 30
  limits:
    description: What the node may use at most in scope V(system); 0 stands for no limit.
    type: dict
    suboptions:
      cpu_percent:
        description: Processor time, 100 is one processor.
        type: int
        default: 0
      memory_mb:
        description: Memory in megabytes.
        type: int
        default: 0
      tasks:
        description: Processes and threads.
        type: int
        default: 0
  talks_to:
    description:
      - The only numeric addresses the node may talk to, in scope V(system) on hosts with cgroup v2.
      - Any, when omitted.
    type: list
    elements: str
  trial_seconds:
    description: With V(on_trial), after how long the node lets everybody in though nobody has accepted it.
    type: int
    default: 600
  remove_data:
    description: With V(absent), remove identity and data too. They cannot be brought back.
    type: bool
    default: false
  report:
    description: Where the module tells what it is at, made by the action on the controller. Do not set it.
    type: str
"""

EXAMPLES = r"""
- name: Run the Network
  openmined.pygrid.node:
    name: net
    kind: network
    release: 0.9.5-0123456789ab
    settings:
      listen: {host: 127.0.0.1, port: 7000}
      log_level: INFO
      stop_with_parent: true
      auto_approve_domains: false

- name: Go back to the release before, and to what the Network knew then
  openmined.pygrid.node:
    name: net
    kind: network
    state: former

- name: Remove the Network, keep its data
  openmined.pygrid.node:
    name: net
    state: absent
"""

RETURN = r"""
changes:
  description: What was (in check mode would be) changed.
  returned: always
  type: list
  elements: str
lost:
  description: What V(former) would cost, for people; empty when nothing, and when it is done.
  returned: always
  type: str
drained:
  description: Whether the node ended in good order, a Worker after its job; false when its time was over first.
  returned: with O(state=absent)
  type: bool
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import KINDS, NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.lifecycle import (
    Change,
    Node,
    Wanted,
    remove_node,
    stop_node,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, open_home
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import reporting
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import Limits
from ansible_collections.openmined.pygrid.plugins.module_utils.upgrade import LOST, Upgrade

UPGRADE_STATES = ["on_trial", "accepted", "refused", "former", "final"]
STATES = ["started", "stopped", "absent", *UPGRADE_STATES]
LIMITS = ("cpu_percent", "memory_mb", "tasks")


def wanted_node(parameters: dict[str, Any]) -> Wanted:
    """What the parameters say of the node."""
    return Wanted(
        name=parameters["name"],
        kind=parameters["kind"],
        release=parameters["release"],
        settings=parameters["settings"],
        workers=parameters["workers"],
        stop_seconds=parameters["stop_seconds"],
        limits=Limits(**{key: parameters["limits"][key] or 0 for key in LIMITS} if parameters["limits"] else {}),
        talks_to=None if parameters["talks_to"] is None else tuple(parameters["talks_to"]),
    )


def start(home: Home, wanted: Wanted, dry_run: bool) -> list[Change]:
    """Bring the node to what is wanted; returns the differences that were found."""
    node = Node(home, wanted)
    changes = node.changes()
    if changes and not dry_run:
        node.converge(changes)
    return changes


def run(home: Home, parameters: dict[str, Any], dry_run: bool) -> list[Change]:
    """Do what ``state`` asks for."""
    name, stop_seconds = parameters["name"], parameters["stop_seconds"]
    state = parameters["state"]
    if state == "started":
        return start(home, wanted_node(parameters), dry_run)
    if state in UPGRADE_STATES:
        upgrade = Upgrade(home, wanted_node(parameters))
        if state == "on_trial":
            return upgrade.begin(parameters["trial_seconds"], dry_run)
        steps = {
            "accepted": upgrade.accept,
            "refused": upgrade.refuse,
            "former": upgrade.go_back,
            "final": upgrade.stay,
        }
        return steps[state](dry_run)
    if state == "absent":
        return remove_node(home, name, stop_seconds, parameters["remove_data"], dry_run)
    stopped = stop_node(home, name, stop_seconds, dry_run)
    return [Change("state", "running\n", "stopped\n")] if stopped else []


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "state": {"type": "str", "choices": STATES, "default": "started"},
            "kind": {"type": "str", "choices": KINDS},
            "release": {"type": "str"},
            "settings": {"type": "dict"},
            "workers": {"type": "dict"},
            "stop_seconds": {"type": "int", "default": 30},
            "limits": {"type": "dict", "options": {key: {"type": "int", "default": 0} for key in LIMITS}},
            "talks_to": {"type": "list", "elements": "str"},
            "trial_seconds": {"type": "int", "default": 600},
            "remove_data": {"type": "bool", "default": False},
            "report": {"type": "str"},
        },
        required_if=[
            ("state", "started", ("kind", "release", "settings")),
            ("state", "on_trial", ("kind", "release", "settings")),
            ("state", "accepted", ("kind",)),
            ("state", "refused", ("kind",)),
            ("state", "former", ("kind",)),
            ("state", "final", ("kind",)),
        ],
        supports_check_mode=True,
    )
    home = open_home(module.params["home"], module.params["scope"])
    began = time.monotonic()
    try:
        with reporting(module.params["report"]):
            changes = run(home, module.params, module.check_mode)
    except PygridError as error:
        module.fail_json(msg=str(error))
    lost = next((change.before.strip() for change in changes if change.what == LOST), "")
    result: dict[str, Any] = {"changed": bool(changes), "changes": [change.what for change in changes], "lost": lost}
    if module.params["state"] == "absent":
        result["drained"] = time.monotonic() - began < module.params["stop_seconds"]
    if module._diff:
        result["diff"] = [
            {"before_header": change.what, "after_header": change.what, "before": change.before, "after": change.after}
            for change in changes
        ]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
