#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Give one node back what a backup knew
version_added: 0.1.0
description:
  - Finds the backup of a node, compares it with what is here, and refuses to lose anything newer without being told to.
  - With V(decided) it brings the backup to the host and puts the node's identity back. What was decided is done when
    the node is started next, by M(openmined.pygrid.node), before anybody is let in.
  - M(openmined.pygrid.backup) has to have set up how the repository is reached.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes
options:
  state:
    description: V(checked) changes nothing of the node. V(decided) looks at the same and goes on.
    type: str
    choices: [checked, decided]
    default: checked
  kind:
    description: Kind of node.
    type: str
    choices: [network, domain, worker]
    required: true
  release:
    description: Name of the release that the node is to have.
    type: str
    required: true
  snapshot:
    description:
      - Which backup, V(latest) or (the beginning of) its id.
      - Or the name of the snapshot that an earlier restore has kept on the host, C(before-restore-...).
    type: str
    default: latest
  overwrite:
    description: What is newer here than in the backup may be lost. It is kept as a snapshot beside the node's data.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: See what going back to the last backup would mean
  openmined.pygrid.restore:
    name: alice
    kind: domain
    release: 0.9.5-0123456789ab
"""

RETURN = r"""
found:
  description: The backup.
  returned: always
  type: dict
  contains:
    id:
      description: Its id.
      type: str
    taken_at:
      description: The moment that it shows, in seconds since the epoch.
      type: float
    syft_version:
      description: Version of syft that wrote it.
      type: str
    host:
      description: Name of the host that it is of.
      type: str
    bytes:
      description: Size of its database and blobs.
      type: int
    rows:
      description: How many of which kind of object it has.
      type: dict
    loss:
      description: What is here and not in it, in words; empty when nothing is.
      type: str
    needed:
      description: Whether there is anything to restore; a Worker that is still itself needs nothing.
      type: bool
    known:
      description: The last ten backups in the repository.
      type: list
      elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import KINDS, NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_restore import Found, Restore
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import open_home


def shown(found: Found) -> dict[str, Any]:
    """What people and playbooks are told of a backup."""
    taken = found.notes["snapshot"] or {}
    return {
        "id": found.id,
        "taken_at": found.notes["taken_at"],
        "syft_version": found.notes["syft_version"],
        "host": found.notes["host"],
        "bytes": taken.get("database_bytes", 0) + taken.get("blob_bytes", 0),
        "rows": taken.get("rows", {}),
        "loss": found.loss,
        "needed": found.needed,
        "known": found.known,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "state": {"type": "str", "choices": ["checked", "decided"], "default": "checked"},
            "kind": {"type": "str", "choices": KINDS, "required": True},
            "release": {"type": "str", "required": True},
            "snapshot": {"type": "str", "default": "latest"},
            "overwrite": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    home = open_home(given["home"], given["scope"])
    decide = given["state"] == "decided"
    try:
        restore = Restore(home, given["name"], given["kind"], given["release"])
        found = restore.check(given["snapshot"], given["overwrite"])
        if decide and not module.check_mode:
            restore.decide(found)
    except (PygridError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=decide and found.needed, found=shown(found))


if __name__ == "__main__":
    main()
