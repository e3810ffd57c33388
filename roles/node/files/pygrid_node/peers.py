# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers of a network or domain: signed calls to them, and the check that says which of them answer."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

import requests
from syft.client.api import SignedSyftAPICall, SyftAPICall
from syft.serde.deserialize import _deserialize
from syft.serde.serialize import _serialize
from syft.service.network.network_service import ServerPeerAssociationStatus
from syft.service.network.routes import HTTPServerRoute
from syft.service.network.server_peer import ServerPeer, ServerPeerConnectionStatus, ServerPeerUpdate
from syft.service.response import SyftError, SyftSuccess
from syft.types.datetime import DateTime
from syft.util.util import verify_tls

from . import peer_door
from .errors import NodeError

logger = logging.getLogger(__name__)

KINDS = {"gateway": "network", "datasite": "domain"}
DEFAULT_PORTS = {"http": 80, "https": 443}
TIMEOUT_SECONDS = 5.0
INTERVAL_SECONDS = 10.0
# A peer that does not see us yet is asked sooner: an association shows within a second or two on both sides.
_SOON_SECONDS = (0.5, 1.0, 1.0, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class PeerState:
    """One peer as health and status show it."""

    name: str
    uid: str
    kind: str
    url: str
    status: str

    def brief(self) -> dict[str, str]:
        return {"name": self.name, "uid": self.uid, "status": self.status}

    def full(self) -> dict[str, str]:
        return {"name": self.name, "uid": self.uid, "kind": self.kind, "url": self.url, "status": self.status}


def route_url(route: Any) -> str:
    """The base URL of an HTTP route, as people write it: without the port that its scheme implies."""
    implied = DEFAULT_PORTS.get(route.protocol) == route.port
    return f"{route.protocol}://{route.host_or_ip}" + ("" if implied else f":{route.port}")


def peer_url(peer: ServerPeer) -> str:
    """Where a peer is reached: its route of highest priority; empty without an HTTP route."""
    if not peer.server_routes:
        return ""
    route = peer.pick_highest_priority_route()
    return route_url(route) if isinstance(route, HTTPServerRoute) else ""


def uid_text(uid: Any) -> str:
    """A syft UID as the 32 hex digits that settings and identity use."""
    return str(uid).replace("-", "")


def fetch_metadata(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """GET <url>/api/v2/metadata.

    Raises:
        NodeError: naming the URL and why it does not answer as a PyGrid node.
    """
    try:
        response = requests.get(f"{url}/api/v2/metadata", timeout=timeout_seconds, verify=verify_tls())
        response.raise_for_status()
        document = response.json()
    except ValueError:
        raise NodeError(f"{url} answers, but not as a PyGrid node") from None
    except requests.RequestException as error:
        raise NodeError(f"cannot reach {url} from this node: {_cause(error)}") from None
    if not isinstance(document, dict) or not {"id", "verify_key", "name", "server_type"} <= set(document):
        raise NodeError(f"{url} answers, but not as a PyGrid node")
    return document


def _cause(error: BaseException) -> str:
    """The innermost reason of an exception of requests, which wraps three deep."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    reason: Any = error.args[0] if error.args else error
    reason = getattr(reason, "reason", reason)
    return str(reason).split("object at", 1)[-1].split(": ", 1)[-1]


def call_peer(
    server: Any,
    peer: ServerPeer,
    path: str,
    arguments: dict[str, Any],
    timeout_seconds: float = TIMEOUT_SECONDS,
    door: str | None = None,
) -> Any:
    """Call a service of another node as this node, and check that the answer is signed with that node's key.

    One request instead of upstream's client, which first fetches the whole API, and never times out.

    Args:
        door: URL of the place where the peer answers its peers though it may let nobody else in; "" is below its own.

    Raises:
        NodeError: not reachable, refused, or signed by somebody else.
    """
    url = door or peer_url(peer)
    place = "/api/v2/api_call" if door is None else peer_door.PATH
    call = SyftAPICall(server_uid=peer.id, path=path, args=[], kwargs=arguments).sign(server.signing_key)
    try:
        response = requests.post(
            f"{url}{place}",
            data=_serialize(call, to_bytes=True),
            timeout=timeout_seconds,
            verify=verify_tls(),
        )
        response.raise_for_status()
    except requests.RequestException as error:
        raise NodeError(f"cannot reach {url} from this node: {_cause(error)}") from None
    try:
        answer = _deserialize(response.content, from_bytes=True)
    except Exception:  # whatever the bytes of a stranger make the decoder do
        raise NodeError(f"{url} answers, but not as a PyGrid node") from None
    if not isinstance(answer, SignedSyftAPICall) or not answer.is_valid or answer.credentials != peer.verify_key:
        raise NodeError(f"{url} answers with another key than that of {peer.name}")
    data = answer.message.data
    if isinstance(data, SyftError):
        raise NodeError(f"{url} refused {path}: {data.message}")
    return data.value if isinstance(data, SyftSuccess) else data


class PeerMonitor:
    """Asks every peer whether it answers and knows us, and keeps the result in the database and in memory.

    Replaces upstream's PeerHealthCheckTask, whose thread dies on the first unexpected error and whose stop waits for
    its sleep (fault 6). A peer that hangs delays neither the other peers nor a stop.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._states: dict[str, PeerState] = {}
        self._eager = 0

    def start(self) -> None:
        """Start checking in the background."""
        threading.Thread(target=self._run, name="pygrid-peers", daemon=True).start()

    def stop(self) -> None:
        """Stop checking; returns at once."""
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Check now, and for a while more often: an association is about to change."""
        self._eager = 0
        self._wake.set()

    def states(self) -> list[PeerState]:
        """The peers as last seen, by name; no database, no network."""
        with self._lock:
            return sorted(self._states.values(), key=lambda state: (state.name, state.uid))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.check_all()
            except Exception as error:
                logger.warning("peer check failed: %s: %s", type(error).__name__, error)
            self._wake.wait(self._pause_seconds())
            self._wake.clear()

    def _pause_seconds(self) -> float:
        waiting = any(state.status in ("INACTIVE", "UNKNOWN") for state in self.states())
        if not waiting or self._eager >= len(_SOON_SECONDS):
            return INTERVAL_SECONDS
        self._eager += 1
        return _SOON_SECONDS[self._eager - 1]

    def check_all(self) -> None:
        """Check every peer, all at the same time; returns when each has answered or its time is over."""
        peers = self._server.services.network.stash.get_all(self._server.verify_key).unwrap()
        known = {uid_text(peer.id) for peer in peers}
        with self._lock:
            self._states = {uid: state for uid, state in self._states.items() if uid in known}
        threads = [threading.Thread(target=self._check_safely, args=(peer,), daemon=True) for peer in peers]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 2 * TIMEOUT_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _check_safely(self, peer: ServerPeer) -> None:
        try:
            self.check(peer)
        except Exception as error:
            logger.warning("peer check of %s failed: %s: %s", peer.name, type(error).__name__, error)

    def check(self, peer: ServerPeer) -> PeerState:
        """Ask one peer, store and return what it said."""
        status, message = self._ask(peer)
        update = ServerPeerUpdate(
            id=peer.id, ping_status=status, ping_status_message=message, pinged_timestamp=DateTime.now()
        )
        if not self._stop.is_set():
            self._server.services.network.stash.update(self._server.verify_key, update, has_permission=True).unwrap()
        state = PeerState(
            name=peer.name,
            uid=uid_text(peer.id),
            kind=KINDS.get(peer.server_type.value, peer.server_type.value),
            url=peer_url(peer),
            status=status.value,
        )
        with self._lock:
            before = self._states.get(state.uid)
            self._states[state.uid] = state
        if before is None or before.status != state.status:
            logger.info("peer %s at %s is %s", state.name, state.url, state.status)
        return state

    def forget(self, uid: str) -> None:
        """Take a deleted peer out of what `states` shows."""
        with self._lock:
            self._states.pop(uid, None)

    def reach(self, peer: ServerPeer, door: str) -> None:
        """See that a peer answers at its door, which is open on trial too, and knows this node.

        Args:
            door: as for `call_peer`.

        Raises:
            NodeError: why it does not.
        """
        status, message = self._ask(peer, door)
        if status != ServerPeerConnectionStatus.ACTIVE:
            raise NodeError(message)

    def _ask(self, peer: ServerPeer, door: str | None = None) -> tuple[ServerPeerConnectionStatus, str]:
        try:
            answer = call_peer(self._server, peer, peer_door.CALL, {"peer_id": self._server.id}, door=door)
        except NodeError as error:
            return ServerPeerConnectionStatus.TIMEOUT, str(error)
        if answer == ServerPeerAssociationStatus.PEER_ASSOCIATED:
            return ServerPeerConnectionStatus.ACTIVE, f"Peer '{peer.name}' is active"
        return ServerPeerConnectionStatus.INACTIVE, f"Peer '{peer.name}' answers, but does not know this node"
