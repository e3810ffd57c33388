#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.identity."""

from __future__ import annotations

DOCUMENTATION = r"""
module: identity
short_description: Create the identity of a node on its host, once
version_added: 0.1.0
description:
  - Creates the file with the node's id, keys and, for a Network or a Domain, the password of its root account.
  - It is created on the host that needs it, with mode 0600, and never overwritten - whoever has it is the node.
  - Only the public part is ever returned.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes
options:
  kind:
    description: Kind of node.
    type: str
    choices: [network, domain, worker]
    required: true
  release:
    description: Name of the staged release whose Python makes the keys.
    type: str
    required: true
  uid:
    description: Id to use instead of a random one, the hexadecimal form of a version 4 UUID.
    type: str
    default: ""
  private_key:
    description: Ed25519 seed to use instead of a random one, 64 hexadecimal digits.
    type: str
    default: ""
  root_email:
    description: Login of the root account.
    type: str
    default: ""
  root_password:
    description: Password of the root account to use instead of a random one, at least 12 characters.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Create the identity of alice
  openmined.pygrid.identity:
    name: alice
    kind: domain
    release: 0.9.5-0123456789ab
    root_email: owner@hospital.example
"""

RETURN = r"""
identity:
  description: Public part of the identity (uid, verify_key, root_email, queue_public_key); null before it is made.
  returned: always
  type: dict
"""

import json
import os
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import KINDS, NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_json
from ansible_collections.openmined.pygrid.plugins.module_utils.lifecycle import make_node_folders
from ansible_collections.openmined.pygrid.plugins.module_utils.nodes import public_identity
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, open_home

BROUGHT = ("uid", "private_key", "root_email", "root_password")


def create(home: Home, parameters: dict[str, Any]) -> None:
    """Let the release make the identity; own values go over standard input, never into an argument list."""
    node = home.node(parameters["name"])
    python = home.releases / parameters["release"] / "env" / "bin" / "python"
    if not python.exists():
        raise PygridError(f"release {parameters['release']} is not staged in {home.releases}")
    make_node_folders(node)
    brought = {key: parameters[key] for key in BROUGHT if parameters[key]}
    command = [str(python), "-m", "pygrid_node", "identity", "create", "--kind", parameters["kind"]]
    result = subprocess.run(
        [*command, "--file", str(node.identity), "--from-stdin"],
        input=json.dumps(brought),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
        env={"PATH": os.defpath, "HOME": str(node.root), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if result.returncode != 0:
        raise PygridError(f"{node.name}: no identity was made: {result.stderr.strip()[-400:]}")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "kind": {"type": "str", "choices": KINDS, "required": True},
            "release": {"type": "str", "required": True},
            "uid": {"type": "str", "default": ""},
            "private_key": {"type": "str", "default": "", "no_log": True},
            "root_email": {"type": "str", "default": ""},
            "root_password": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    home = open_home(module.params["home"], module.params["scope"])
    file = home.node(module.params["name"]).identity
    missing = not file.exists()
    try:
        if missing and not module.check_mode:
            create(home, module.params)
    except PygridError as error:
        module.fail_json(msg=str(error))
    result: dict[str, Any] = {"changed": missing, "identity": public_identity(read_json(file))}
    if missing and module._diff:
        result["diff"] = {"before": "", "after": "a new identity (its content is secret)\n", "after_header": str(file)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
