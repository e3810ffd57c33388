#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.certificate_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_info
short_description: Read all certificates of a machine
version_added: 0.2.0
description:
  - One call tells of every certificate of a machine whether it is as it should be, and when it expires.
  - A certificate is good when it is there, its private key fits and can be read by nobody else, its names are exactly
    those that are wanted, it comes from who is to issue it, and it is not about to expire.
extends_documentation_fragment:
  - openmined.pygrid.attributes.info
options:
  directory:
    description: The collection's folder on the machine.
    type: path
    default: /etc/pygrid
  certificates:
    description:
      - The certificates that the machine is to have, as R(the filter machine_certificates,
        ansible_collections.openmined.pygrid.machine_certificates_filter) returns them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the certificate, unique on the machine.
        type: str
        required: true
      file:
        description: File of the certificate chain and, unless O(certificates[].key_file) is given, of the key.
        type: path
        required: true
      key_file:
        description: File of the private key.
        type: path
      names:
        description: DNS names and addresses, all of them and no others.
        type: list
        elements: str
        default: []
      usage:
        description: Whether a server or a client shows it.
        type: str
        choices: [server, client]
        default: server
      source:
        description: Who issues it.
        type: str
        choices: [grid_ca, files, acme]
        default: grid_ca
      group:
        description: Group that may read the private key. Without effect while the host has no such group.
        type: str
      reload:
        description: Systemd unit that has to be told of a new certificate.
        type: str
      chain:
        description: The very chain that has to be in place, for V(files).
        type: str
  issuer:
    description: The grid CA's certificate. Empty before there is one.
    type: str
    default: ""
  authorities:
    description: All grid CAs that are trusted at the moment - during a change that is the new one and the former one.
    type: str
    default: ""
  trusted:
    description: Further CA certificates that nodes of this machine trust.
    type: str
    default: ""
  renew_days:
    description: A certificate that is valid for fewer days than this is to be replaced.
    type: int
    default: 30
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Read the certificate of alice
  openmined.pygrid.certificate_info:
    certificates:
      - {name: alice, file: /etc/pygrid/tls/alice.pem, names: [alice.hospital.example]}
    issuer: "{{ lookup('ansible.builtin.file', 'pki/grid-ca.pem') }}"
"""

RETURN = r"""
certificates:
  description:
    - For each certificate C(name), C(source), C(file), C(exists), C(names), C(not_before), C(not_after), C(days_left),
      C(issuer), C(fingerprint), and C(reason), which is null when it is good.
  returned: always
  type: list
  elements: dict
trust_differs:
  description: Whether the files that tell whom to trust are missing or old.
  returned: always
  type: bool
pending_units:
  description: Systemd units that a killed run has not told of their new certificate.
  returned: always
  type: list
  elements: str
authorities:
  description: Fingerprints (SHA-256) of the grid CAs that this machine trusts at the moment.
  returned: always
  type: list
  elements: str
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_files import (
    WANTED_ARGUMENTS,
    Folder,
    Wanted,
    describe,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_reading import blocks, fingerprint
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/pygrid"},
            "certificates": {"type": "list", "elements": "dict", "required": True, "options": WANTED_ARGUMENTS},
            "issuer": {"type": "str", "default": ""},
            "authorities": {"type": "str", "default": ""},
            "trusted": {"type": "str", "default": ""},
            "renew_days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    given = module.params
    folder = Folder(Path(given["directory"]))
    now = time.time()
    try:
        certificates = [
            describe(Wanted.from_arguments(one), given["issuer"], given["renew_days"], now)
            for one in given["certificates"]
        ]
        authorities = [fingerprint(block) for block in blocks(read_text(folder.authority))]
    except PygridError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        certificates=certificates,
        trust_differs=folder.trust_differs(given["authorities"], given["trusted"]),
        pending_units=folder.pending_units(),
        authorities=authorities,
    )


if __name__ == "__main__":
    main()
