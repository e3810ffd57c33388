#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.association."""

from __future__ import annotations

DOCUMENTATION = r"""
module: association
short_description: Join a Domain to a Network, or leave it
version_added: 0.1.0
description:
  - Joining takes both sides. The Domain asks (V(requested)), the Network's owner approves (V(approved), run on the
    Network's host for exactly the Domains named) and the Domain waits until both see each other (V(present)).
  - Leaving (V(absent)) is done on each side.
  - V(checked) sees that peers are there for this node, also those on trial, which let nobody else in yet.
  - Each side is asked over the control socket of its own running node, so no password leaves a host.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes
options:
  state:
    description: V(approved) is for the Network, V(requested) and V(present) are for the Domain, the others for both.
    type: str
    choices: [requested, approved, present, absent, checked]
    default: present
  network_url:
    description: URL under which the Domain reaches the Network. It is stored on the Domain as the route to the Network.
    type: str
  own_url:
    description: URL under which the Network reaches this Domain. The Network stores it as its route.
    type: str
  network_uid:
    description: Id of the Network; joining another one that answers at O(network_url) is refused.
    type: str
  domains:
    description: Domains to approve, each with C(uid) and C(url). Requests of others stay pending.
    type: list
    elements: dict
    default: []
  peer_uid:
    description: Id of the node to leave; for V(absent).
    type: str
  peers:
    description:
      - The peers to check, each with C(name), C(uid) and C(door), the URL at which it answers its peers at any time;
        an empty one stands for its own URL.
    type: list
    elements: dict
    default: []
  timeout_seconds:
    description: How long V(present) waits until both sides see each other, and V(checked) for all peers together.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Ask the Network to let alice in
  openmined.pygrid.association:
    name: alice
    state: requested
    network_url: http://127.0.0.1:7000
    own_url: http://127.0.0.1:5000

- name: See that the Network reaches alice
  openmined.pygrid.association:
    name: net
    state: checked
    peers:
      - {name: alice, uid: 7f6bb8e1b5d94c58a4b2a1a0f9f3e4d2, door: ""}
"""

RETURN = r"""
association:
  description: What this side knows after the call - C(peers) with uid, name, url and status, and C(pending) requests.
  returned: when the node runs
  type: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.control import NodeUnavailable, call
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import NodePaths, open_home

POLL_SECONDS = 0.5
STATES = ["requested", "approved", "present", "absent", "checked"]


class Side:
    """The associations of one running node."""

    def __init__(self, node: NodePaths, parameters: dict[str, Any], dry_run: bool) -> None:
        self._node = node
        self._parameters = parameters
        self._dry_run = dry_run
        self._network_uid: str | None = None

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return call(self._node.control_socket, method, f"/control/association{path}", body)

    def seen(self) -> dict[str, Any]:
        """Peers and pending requests as this side knows them."""
        return self._call("GET", "")

    def _peer(self, uid: str | None) -> dict[str, Any] | None:
        return next((peer for peer in self.seen()["peers"] if peer["uid"] == uid), None)

    def request(self) -> bool:
        """Ask the Network; False when it already knows this Domain under the URL that is to be stored."""
        body = {
            key: self._parameters[key] for key in ("network_url", "own_url", "network_uid") if self._parameters[key]
        }
        if self._dry_run:
            return self._peer(self._parameters["network_uid"]) is None
        answer = self._call("POST", "/request", body)
        self._network_uid = answer["network"]["uid"]
        return answer["status"] != "associated"

    def approve(self) -> bool:
        """Approve the pending requests of exactly the named Domains."""
        wanted = {domain["uid"]: domain for domain in self._parameters["domains"]}
        pending = {request["uid"] for request in self.seen()["pending"]}
        if not self._dry_run:
            self._call("POST", "/approve", {"domains": list(wanted.values())})
        return bool(pending & set(wanted))

    def wait_until_active(self) -> bool:
        """Ask if that was not done yet, then wait until the Network is a peer that answers."""
        changed = self.request()
        end = time.monotonic() + self._parameters["timeout_seconds"]
        while not self._dry_run:
            peer = self._peer(self._network_uid)
            if peer and peer["status"] == "ACTIVE":
                break
            if time.monotonic() > end:
                raise PygridError(self._why_not(peer))
            time.sleep(POLL_SECONDS)
        return changed

    def check(self) -> bool:
        """See that each of the peers answers and knows this node."""
        end = time.monotonic() + self._parameters["timeout_seconds"]
        missing = {peer["name"]: peer for peer in self._parameters["peers"]}
        while missing and not self._dry_run:
            reasons = []
            for name, peer in list(missing.items()):
                try:
                    self._call("POST", "/check", {"uid": peer["uid"], "door": peer["door"]})
                    del missing[name]
                except PygridError as error:
                    reasons.append(f"it does not reach {name}: {error}")
            if missing and time.monotonic() > end:
                raise PygridError("; ".join(reasons))
            time.sleep(POLL_SECONDS if missing else 0)
        return False

    def _why_not(self, peer: dict[str, Any] | None) -> str:
        network, own = self._parameters["network_url"], self._parameters["own_url"]
        return (
            f"not joined to {network} after {self._parameters['timeout_seconds']} s:"
            f" seen from here the Network is {peer['status'] if peer else 'unknown'}."
            f" Has the Network's owner approved the Domain, and is {own} reachable from the Network's host?"
        )

    def leave(self) -> bool:
        """Forget the peer on this side."""
        uid = self._parameters["peer_uid"]
        if self._peer(uid) is None:
            return False
        if not self._dry_run:
            self._call("POST", "/leave", {"uid": uid})
        return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "state": {"type": "str", "choices": STATES, "default": "present"},
            "network_url": {"type": "str"},
            "own_url": {"type": "str"},
            "network_uid": {"type": "str"},
            "domains": {"type": "list", "elements": "dict", "default": []},
            "peer_uid": {"type": "str"},
            "peers": {"type": "list", "elements": "dict", "default": []},
            "timeout_seconds": {"type": "int", "default": 60},
        },
        required_if=[
            ("state", "requested", ("network_url", "own_url")),
            ("state", "present", ("network_url", "own_url")),
            ("state", "absent", ("peer_uid",)),
        ],
        supports_check_mode=True,
    )
    state = module.params["state"]
    node = open_home(module.params["home"], module.params["scope"]).node(module.params["name"])
    side = Side(node, module.params, module.check_mode)
    verbs = {
        "requested": side.request,
        "approved": side.approve,
        "present": side.wait_until_active,
        "absent": side.leave,
        "checked": side.check,
    }
    try:
        changed = verbs[state]()
        module.exit_json(changed=changed, association=side.seen())
    except NodeUnavailable as error:
        # Before the first deploy there is nothing to ask; check mode then tells what a deploy would do.
        if module.check_mode:
            module.exit_json(changed=state != "absent")
        module.fail_json(msg=f"{node.name} does not answer: {error}")
    except PygridError as error:
        module.fail_json(msg=f"{node.name}: {error}")


if __name__ == "__main__":
    main()
