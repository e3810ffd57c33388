#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.openstack_server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: openstack_server
short_description: Give a server of OpenStack another flavor, or keep it as an image
version_added: 0.1.0
description:
  - What the collection openstack.cloud has no module for.
  - A server that gets another flavor is stopped, resized, confirmed and started. A change that was begun by a run that
    was killed is brought to its end first.
  - Credentials come from the environment (E(OS_CLOUD) or E(OS_AUTH_URL) and the like) and from C(clouds.yaml).
extends_documentation_fragment:
  - openmined.pygrid.attributes
options:
  id:
    description: The server's id.
    type: str
    required: true
  flavor:
    description: Name of the flavor that it is to have. It runs afterwards.
    type: str
  image:
    description: Name of an image to make of it.
    type: str
  image_properties:
    description: What the image is to say of itself.
    type: dict
    default: {}
  seconds:
    description: How long the cloud has for it.
    type: int
    default: 900
  region:
    description: Region of the cloud; that of C(clouds.yaml) when empty.
    type: str
    default: ""
requirements:
  - openstacksdk
author: OpenMined and contributors (@OpenMined)
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: More memory
  openmined.pygrid.openstack_server:
    id: 1c5c45c2-98b5-4b05-bb1c-2b6b5d8d8c3a
    flavor: m1.large

- name: Keep it as it is
  openmined.pygrid.openstack_server:
    id: 1c5c45c2-98b5-4b05-bb1c-2b6b5d8d8c3a
    image: worker-2026-11
    image_properties: {pygrid_grid: heart}
"""

RETURN = r"""
image:
  description: Id of the image that was made.
  type: str
  returned: when O(image) is given, and not in check mode
flavor:
  description: Name of the flavor that the server has now.
  type: str
  returned: when O(flavor) is given
"""

import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import openstack
    from openstack import exceptions
except ImportError:
    HAS_SDK = False
else:
    HAS_SDK = True

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

PAUSE_SECONDS = 1.0
# In these nothing goes on any more; the other states pass by themselves.
RESTING = {"ACTIVE", "SHUTOFF", "VERIFY_RESIZE", "ERROR"}


class Server:
    """One server, and patience until it is as it is wanted."""

    def __init__(self, cloud: Any, identity: str, seconds: float) -> None:
        self.cloud, self.identity = cloud, identity
        self.deadline = time.monotonic() + seconds

    def get(self) -> Any:
        return self.cloud.compute.get_server(self.identity)

    def rest(self) -> Any:
        """Wait until nothing goes on with it; raises PygridError when it ends in an error."""
        server = self.until(lambda server: server.status in RESTING and not server.task_state, "comes to rest")
        if server.status == "ERROR":
            said = (server.fault or {}).get("message") or "the cloud does not say why"
            raise PygridError(f"{self.identity} is in the state ERROR: {said}")
        return server

    def until(self, condition: Callable[[Any], bool], what: str) -> Any:
        while True:
            server = self.get()
            if condition(server):
                return server
            if time.monotonic() > self.deadline:
                raise PygridError(
                    f"{self.identity} is still {server.status}, after all the time that it had until it {what}"
                )
            time.sleep(PAUSE_SECONDS)

    def confirm(self) -> Any:
        """Keep the flavor that it has got. Nothing shows that this is under way but that it is not done yet."""
        self.cloud.compute.confirm_server_resize(self.identity)
        self.until(lambda server: server.status != "VERIFY_RESIZE", "has kept its flavor")
        return self.rest()

    def give(self, flavor: str) -> None:
        """Bring it to another flavor, whatever a former run has begun."""
        server = self.rest()
        if server.status == "VERIFY_RESIZE":
            server = self.confirm()
        if flavor_of(server) != flavor:
            wanted = self.cloud.compute.find_flavor(flavor)
            if wanted is None:
                raise PygridError(f"there is no flavor {flavor}")
            if server.status == "ACTIVE":
                self.cloud.compute.stop_server(server)
                self.until(lambda server: server.status == "SHUTOFF" and not server.task_state, "is stopped")
            self.cloud.compute.resize_server(server, wanted)
            server = self.rest()
            if server.status != "VERIFY_RESIZE":
                raise PygridError(f"it is {flavor_of(server)} still: {self._reason()}")
            server = self.confirm()
        if server.status == "SHUTOFF":
            self.cloud.compute.start_server(server)
            self.until(lambda server: server.status == "ACTIVE" and not server.task_state, "runs")

    def _reason(self) -> str:
        """Why the last resize came to nothing."""
        for action in self.cloud.compute.server_actions(self.identity):
            if action.action == "resize":
                return action.message or "the cloud found no place for it"
        return "the cloud does not say why"

    def keep(self, name: str, properties: dict[str, str]) -> str:
        """Make an image of it; returns the image's id. One that cannot be made is removed again."""
        image = self.cloud.compute.create_server_image(self.get(), name, metadata=properties, wait=False)
        while True:
            found = self.cloud.image.get_image(image.id)
            if found.status == "active":
                return found.id
            if found.status not in ("queued", "saving", "importing") or time.monotonic() > self.deadline:
                self.cloud.image.delete_image(found, ignore_missing=True)
                raise PygridError(f"the image {name} was {found.status} and is removed again")
            time.sleep(PAUSE_SECONDS)


def flavor_of(server: Any) -> str:
    """Name of the flavor of a server."""
    flavor = server.flavor or {}
    return flavor.get("original_name") or flavor.get("name") or flavor.get("id") or ""


def apply(parameters: dict[str, Any], is_check: bool) -> dict[str, Any]:
    """Do what is wanted; returns the module's result."""
    with openstack.connect(region_name=parameters["region"] or None) as cloud:
        server = Server(cloud, parameters["id"], parameters["seconds"])
        result: dict[str, Any] = {"changed": False}
        if parameters["flavor"]:
            found = server.get()
            result["changed"] = flavor_of(found) != parameters["flavor"] or found.status != "ACTIVE"
            if result["changed"] and not is_check:
                server.give(parameters["flavor"])
            result["flavor"] = parameters["flavor"]
        if parameters["image"]:
            result["changed"] = True
            if not is_check:
                result["image"] = server.keep(parameters["image"], parameters["image_properties"])
        return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "id": {"type": "str", "required": True},
            "flavor": {"type": "str"},
            "image": {"type": "str"},
            "image_properties": {"type": "dict", "default": {}},
            "seconds": {"type": "int", "default": 900},
            "region": {"type": "str", "default": ""},
        },
        required_one_of=[("flavor", "image")],
        supports_check_mode=True,
    )
    if not HAS_SDK:
        module.fail_json(msg=missing_required_lib("openstacksdk"))
    try:
        module.exit_json(**apply(module.params, module.check_mode))
    except PygridError as error:
        module.fail_json(msg=str(error))
    except exceptions.SDKException as error:
        module.fail_json(msg=f"OpenStack: {error}")


if __name__ == "__main__":
    main()
