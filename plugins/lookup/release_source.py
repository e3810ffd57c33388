# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup: the controller's part of a release's digest."""

from __future__ import annotations

DOCUMENTATION = r"""
name: release_source
author:
  - OpenMined and contributors (@OpenMined)
short_description: Summarise what the controller contributes to a release
version_added: 0.1.0
description:
  - Returns, for each version, the checksums of its lock file and of the node runtime that this collection carries.
  - Together with the extra packages and the host's Python they determine the folder name of the release,
    so a host can be asked whether it is staged without sending anything to it.
options:
  _terms:
    description: Versions of syft.
    type: list
    elements: str
    required: true
  lock_file:
    description: A lock file of one's own on the controller, instead of the collection's lock for the version.
    type: path
"""

EXAMPLES = r"""
- name: Show what release 0.9.5 is made from
  ansible.builtin.debug:
    msg: "{{ lookup('openmined.pygrid.release_source', '0.9.5') }}"
"""

RETURN = r"""
_list:
  description: One dictionary for each term.
  type: list
  elements: dict
  contains:
    version:
      description: The version of syft.
      type: str
    lock_sha256:
      description: Checksum of the lock file.
      type: str
    runtime_sha256:
      description: Checksum over the files of the node runtime.
      type: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.openmined.pygrid.plugins.module_utils.releases import ReleaseError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.release_source import find_source


class LookupModule(LookupBase):
    """Summarise the controller's part of releases."""

    def run(self, terms: list, variables: dict | None = None, **kwargs: Any) -> list:
        """Return one summary for each version in terms."""
        self.set_options(var_options=variables, direct=kwargs)
        lock_file = self.get_option("lock_file")
        try:
            return [find_source(str(term), lock_file).summary() for term in terms]
        except ReleaseError as error:
            raise AnsibleLookupError(str(error)) from error
