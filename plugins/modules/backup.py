#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Back up one node, and set up when that happens by itself
version_added: 0.1.0
description:
  - Database, blobs, identity and settings of a node as they are at one moment, encrypted and de-duplicated by restic,
    in a repository of the node's own. The node goes on running meanwhile.
  - Each backup is verified - what is new in it is read back and compared with what was saved, the repository is
    checked, and a thirtieth of all its data is read.
  - The password of the repository comes from the controller, since it must outlive the host. Each node gets one of its
    own, derived from the one that the controller has, so that no host can read the backups of another one.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes
options:
  state:
    description:
      - V(accessible) writes what is needed to reach the repository, and leaves the schedule as it is.
      - V(scheduled) also sets up, or takes away, the timer (in scope V(user) a process of supervisor).
      - V(taken) does all that and makes a backup.
    type: str
    choices: [accessible, scheduled, taken]
    default: taken
  kind:
    description: Kind of node.
    type: str
    choices: [network, domain, worker]
    required: true
  repository:
    description: Where the node's repository is, in restic's words - a path, C(sftp:...) or C(s3:...).
    type: str
    required: true
  password:
    description:
      - The password from which that of the repository is derived. Taken from O(password_file) when empty.
      - The host itself is never given this one, only the derived one.
    type: str
    default: ""
  password_file:
    description: File on the controller that holds the password.
    type: path
  make_password:
    description: Make O(password_file) with a random password when it is not there.
    type: bool
    default: false
  keep:
    description: How many backups are kept - the C(last) ones, and one for each of so many days, weeks and months.
    type: dict
    default: {}
  schedule:
    description: When a backup is made by itself, in the words of systemd's C(OnCalendar); never when empty.
    type: str
    default: ""
  s3_access_key:
    description: Access key of an S3 store.
    type: str
    default: ""
  s3_secret_key:
    description: Secret key of an S3 store.
    type: str
    default: ""
  s3_region:
    description: Region of an S3 store.
    type: str
    default: ""
  ssh_private_key:
    description: Private key for an SFTP server instead of one that the host makes.
    type: str
    default: ""
  known_hosts:
    description: Lines of C(known_hosts) for an SFTP server.
    type: str
    default: ""
  proxy:
    description: Proxy for HTTP and HTTPS on the way to an S3 store.
    type: str
    default: ""
  no_proxy:
    description: Hosts that are reached without O(proxy).
    type: str
    default: ""
  collection_version:
    description: Noted in the backup; made by the action on the controller. Do not set it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Back up alice
  openmined.pygrid.backup:
    name: alice
    kind: domain
    repository: sftp:backup@store.example:/srv/pygrid/alice
    password_file: /home/me/grid/.pygrid/backup-password
    keep: {last: 7, daily: 14}
"""

RETURN = r"""
backup:
  description: The backup that was made.
  returned: for V(taken), not in check mode
  type: dict
  contains:
    id:
      description: Its id.
      type: str
    at:
      description: The moment that it shows, in seconds since the epoch.
      type: float
    bytes:
      description: Size of what was saved.
      type: int
    added_bytes:
      description: What the repository has grown by.
      type: int
    read_back_files:
      description: How many files were new, and were read back and compared.
      type: int
    read_back_bytes:
      description: Their size.
      type: int
    kept:
      description: How many backups the repository has now.
      type: int
    seconds:
      description: How long it took.
      type: float
changes:
  description: Which files and timers were (in check mode would be) changed.
  returned: always
  type: list
  elements: str
password_file:
  description: The file on the controller with the password of all backups, empty when it was given as O(password).
  returned: always
  type: str
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils import backup_program
from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import KINDS, NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_engine import find_restic
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_folder import BackupFolder, Plan, Secrets
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_schedule import (
    is_scheduled,
    schedule_problem,
    set_schedule,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.backup_take import Backup
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, open_home

SECRETS = ("password", "s3_access_key", "s3_secret_key", "ssh_private_key", "known_hosts")


def set_up(home: Home, given: dict[str, Any], dry_run: bool) -> list[str]:
    """Bring files, program and timer to what is wanted; returns what differed."""
    folder = BackupFolder(home.node(given["name"]))
    with_schedule = given["state"] != "accessible"
    present = folder.plan()
    plan = Plan(
        node=given["name"],
        kind=given["kind"],
        repository=given["repository"],
        keep={key: int(number) for key, number in given["keep"].items()},
        schedule=given["schedule"] if with_schedule else present.schedule if present else "",
        region=given["s3_region"],
        proxy=given["proxy"],
        no_proxy=given["no_proxy"],
        collection_version=given["collection_version"],
    )
    if problem := schedule_problem(home, plan):
        raise PygridError(problem)
    secrets = Secrets(**{key: given[key] for key in SECRETS})
    changes = folder.differences(plan, secrets)
    another_program = with_schedule and not backup_program.is_installed(home)
    if another_program:
        changes.append("program")
    if with_schedule and not is_scheduled(home, plan):
        changes.append("schedule")
    if not dry_run:
        folder.write(plan, secrets)
        find_restic(home)
        if another_program:
            backup_program.install(home)
        if {"program", "schedule"} & set(changes):
            set_schedule(home, plan, again=another_program)
    return changes


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "state": {"type": "str", "choices": ["accessible", "scheduled", "taken"], "default": "taken"},
            "kind": {"type": "str", "choices": KINDS, "required": True},
            "repository": {"type": "str", "required": True},
            "password": {"type": "str", "default": "", "no_log": True},
            "password_file": {"type": "path", "no_log": False},
            "make_password": {"type": "bool", "default": False, "no_log": False},
            "keep": {"type": "dict", "default": {}},
            "schedule": {"type": "str", "default": ""},
            "s3_access_key": {"type": "str", "default": "", "no_log": True},
            "s3_secret_key": {"type": "str", "default": "", "no_log": True},
            "s3_region": {"type": "str", "default": ""},
            "ssh_private_key": {"type": "str", "default": "", "no_log": True},
            "known_hosts": {"type": "str", "default": ""},
            "proxy": {"type": "str", "default": "", "no_log": True},  # may hold a password
            "no_proxy": {"type": "str", "default": ""},
            "collection_version": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    home = open_home(module.params["home"], module.params["scope"])
    result: dict[str, Any] = {"password_file": ""}
    try:
        result["changes"] = set_up(home, module.params, module.check_mode)
        result["changed"] = bool(result["changes"])
        if result["changes"]:
            # Only what differs: most of it holds secrets.
            result["diff"] = {"prepared": f"backup of {module.params['name']}: {', '.join(result['changes'])}\n"}
        if module.params["state"] == "taken":
            result["changed"] = True
            if not module.check_mode:
                backup = asdict(Backup(home, module.params["name"]).take())
                for warning in backup.pop("warnings"):
                    module.warn(f"{module.params['name']}: {warning}")
                result["backup"] = backup
    except (PygridError, OSError) as error:
        module.fail_json(msg=f"{module.params['name']}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
