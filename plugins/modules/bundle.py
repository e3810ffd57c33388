#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.bundle."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle
short_description: Bring the packages of a bundle to a host
version_added: 0.1.0
description:
  - Sends a host the packages of its distribution from an archive that M(openmined.pygrid.bundle_archive) made, and sets
    up a configuration by which apt or dnf knows these and no other source.
  - Only what the host lacks is sent, in parcels of 64 MB; a run that was killed is continued where it stopped.
  - Every file is compared with the list of contents when it arrives, and again whenever the module is called.
  - What other bundles left on the host is used again where it is the same, and removed.
  - What M(openmined.pygrid.release) needs from a bundle is brought by that one.
options:
  file:
    description: The archive on the controller.
    type: str
  home:
    description: Folder of the grid on the host.
    type: path
    required: true
  scope:
    description: Scope of the grid, which decides where bundles lie on the host.
    type: str
    choices: [user, system]
    default: system
  digest:
    description: Checksum of the list of contents. Filled in by the action plugin.
    type: str
  files:
    description: Path, size and checksum of the files that are to be there. Filled in by the action plugin.
    type: list
    elements: dict
    default: []
  archive:
    description: Some of them, on the host. Filled in by the action plugin.
    type: path
  repository:
    description: Folder of the packages in the bundle. Filled in by the action plugin.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode and say what would change, without changing it.
    support: full
  diff_mode:
    description: Returns what changed (or would change) in check mode.
    support: none
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Bring the packages of the bundle
  openmined.pygrid.bundle:
    file: /media/stick/pygrid-bundle.tar
    home: /opt/pygrid
  register: bundle

- name: Install a package from it and from nowhere else
  ansible.builtin.apt:
    name: haproxy
    update_cache: true
  environment: "{{ bundle.environment }}"
"""

RETURN = r"""
folder:
  description: Where the bundle lies on the host.
  returned: always
  type: str
os:
  description: The host's operating system - id, version_id and family.
  returned: always
  type: dict
platform:
  description: The host's platform, for example C(linux-x86_64).
  returned: always
  type: str
missing:
  description: Which files were missing.
  returned: always
  type: list
  elements: str
environment:
  description: Variables with which apt knows only this bundle.
  returned: on Debian and Ubuntu
  type: dict
configuration:
  description: File by which dnf knows only this bundle.
  returned: on RHEL and its relatives
  type: str
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_store import Store
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.operating_system import describe
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import open_home
from ansible_collections.openmined.pygrid.plugins.module_utils.release_files import make_home, platform_tag


def main() -> None:
    """Look, take in what was sent, and say what is still missing."""
    module = AnsibleModule(
        argument_spec={
            "file": {"type": "str"},
            "home": {"type": "path", "required": True},
            "scope": {"type": "str", "choices": ["user", "system"], "default": "system"},
            "digest": {"type": "str"},
            "files": {"type": "list", "elements": "dict", "default": []},
            "archive": {"type": "path"},
            "repository": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if not module.params["digest"]:
        module.fail_json(msg="its action plugin did not run; call it as openmined.pygrid.bundle")
    try:
        result = bring(module.params, module.check_mode)
    except PygridError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot keep the bundle on this host: {error}")
    module.exit_json(**result)


def bring(parameters: dict, check_mode: bool) -> dict:
    """Do one step: nothing but an answer without files, else make room for them or take in those that were sent."""
    home = open_home(parameters["home"], parameters["scope"])
    store = Store(home, parameters["digest"])
    files = parameters["files"]
    system = describe()
    answer = {"folder": str(store.folder), "os": system, "platform": platform_tag()}
    if not files:
        return {**answer, "changed": False, "missing": []}
    if check_mode:
        missing = store.missing(files)
        return {**answer, "changed": bool(missing), "missing": [entry["path"] for entry in missing]}
    if parameters["scope"] == "system":
        os.umask(0o022)
    make_home(home)
    with store.locked():
        if parameters["archive"]:
            store.take_in(Path(parameters["archive"]), files)
        else:
            store.reuse(files)
            store.prune()
        missing = store.missing(files)
        store.check_space(missing)
        if parameters["repository"] and system["family"] == "debian":
            answer["environment"] = {"APT_CONFIG": str(store.configure_apt(parameters["repository"]))}
        elif parameters["repository"]:
            answer["configuration"] = str(store.configure_dnf(parameters["repository"]))
    return {**answer, "changed": bool(parameters["archive"]), "missing": [entry["path"] for entry in missing]}


if __name__ == "__main__":
    main()
