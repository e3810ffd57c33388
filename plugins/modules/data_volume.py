#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.data_volume."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume
short_description: Have what nodes keep on a volume that outlives its machine
version_added: 0.1.0
description:
  - Makes the folders of a mounted volume for what the nodes of a machine keep - identities, settings, data, databases -
    and says where each of them is to appear. Mounting them there is the caller's.
  - On a machine that the volume is new to, the accounts that its files belong to are made with the numbers that these
    files have; where a number is somebody else's, the files change hands.
  - Fails, and changes nothing, where one of these places has something in it that is not the volume's.
extends_documentation_fragment:
  - openmined.pygrid.attributes
options:
  path:
    description: Where the volume is mounted.
    type: path
    required: true
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Have folders for what nodes keep
  openmined.pygrid.data_volume:
    path: /srv/pygrid
  register: volume
"""

RETURN = r"""
places:
  description: Each with V(folder) of the volume and V(place), where it is to appear.
  returned: success
  type: list
  elements: dict
changes:
  description: What was (in check mode would be) changed.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils import data_volume
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import open_home


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    volume = Path(module.params["path"])
    hidden = data_volume.occupied(volume)
    if hidden:
        names = ", ".join(map(str, hidden))
        module.fail_json(
            msg=f"{names}: something lies there that is not on the volume of the machine's data, which would hide it."
            f" Stop the nodes and move it to {volume}, or set data_disk: 0 for this machine in pygrid_machines."
        )
    try:
        changes = data_volume.have_folders(volume, module.check_mode)
        changes += data_volume.have_owners(open_home("", "system"), volume, module.check_mode)
    except (PygridError, OSError) as error:
        module.fail_json(msg=str(error))
    places = [{"folder": str(volume / folder), "place": str(place)} for folder, place in data_volume.PLACES.items()]
    module.exit_json(changed=bool(changes), changes=changes, places=places)


if __name__ == "__main__":
    main()
