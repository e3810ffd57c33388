#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.probe."""

from __future__ import annotations

DOCUMENTATION = r"""
module: probe
short_description: Let each Worker of a Domain run a job, to see that it works
version_added: 0.1.0
description:
  - The running Domain gives each of the Workers a small job of the kind that people submit, looks at the answer, and
    deletes everything that came of it. It does so too while it is on trial and runs nobody else's job.
  - Fails when a Worker is not connected in time, fails its job or gives a wrong answer.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes
options:
  workers:
    description: Names of the Workers; one with several processes has a name for each, C(alice-w1) and C(alice-w1-2).
    type: list
    elements: str
    required: true
  timeout_seconds:
    description: How long all of it may take.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: See that the Worker works
  openmined.pygrid.probe:
    name: alice
    workers: [alice-w1]
"""

RETURN = r"""
results:
  description: For each Worker C(worker), C(problem) (empty when all is well) and C(seconds).
  returned: when the Domain runs
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.control import call
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import open_home

# What the Domain takes beyond the time for the jobs: it deletes what came of them.
MARGIN_SECONDS = 60


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "workers": {"type": "list", "elements": "str", "required": True},
            "timeout_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    if module.check_mode:
        module.exit_json(changed=False, results=[])
    socket = open_home(wanted["home"], wanted["scope"]).node(wanted["name"]).control_socket
    body = {"workers": wanted["workers"], "seconds": wanted["timeout_seconds"]}
    try:
        answer = call(socket, "POST", "/control/probe", body, wanted["timeout_seconds"] + MARGIN_SECONDS)
    except PygridError as error:
        module.fail_json(msg=str(error))
    problems = [f"{result['worker']}: {result['problem']}" for result in answer["results"] if result["problem"]]
    if problems:
        module.fail_json(msg="; ".join(problems), results=answer["results"])
    module.exit_json(changed=False, results=answer["results"])


if __name__ == "__main__":
    main()
