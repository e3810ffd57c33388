# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Joining a domain to a network and leaving it again: the operations below /control/association.

They run inside the node with its own root rights, so no password travels. Each may be repeated without harm. The URLs
given are what is stored as routes; whatever was stored before for that peer is replaced, because upstream only appends
a changed route behind the old one and keeps using the old one (S/service/network/server_peer.py, update_route).
"""

from __future__ import annotations

import logging
import secrets
import threading
from typing import Any
from urllib.parse import urlsplit

import requests
from syft.abstract_server import ServerType
from syft.server.credentials import SyftVerifyKey
from syft.service.context import AuthedServiceContext
from syft.service.network.association_request import AssociationRequestChange
from syft.service.network.network_service import ServerPeerAssociationStatus
from syft.service.network.routes import HTTPServerRoute
from syft.service.network.server_peer import ServerPeer, ServerPeerUpdate
from syft.service.request.request import RequestStatus
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.uid import UID

from .errors import NodeError
from .peers import DEFAULT_PORTS, PeerMonitor, call_peer, fetch_metadata, peer_url, route_url, uid_text

logger = logging.getLogger(__name__)

_STATUS = {
    ServerPeerAssociationStatus.PEER_ASSOCIATED: "associated",
    ServerPeerAssociationStatus.PEER_ASSOCIATION_PENDING: "pending",
    ServerPeerAssociationStatus.PEER_NOT_FOUND: "unknown",
}


def parse_route(url: str) -> HTTPServerRoute:
    """The route for a base URL such as https://alice.example:8443.

    Upstream's own parser replaces the port of every https URL by 443 (S/types/server_url.py), so it is not used.

    Raises:
        NodeError: not an http(s) URL, or with a path, or a name that means another host to everybody else.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        raise NodeError(f"{url!r} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise NodeError(f"{url!r} must look like http://host:port or https://host:port")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise NodeError(f"{url!r} must have no path: a node answers at the root of its host and port")
    if parts.hostname == "localhost" or parts.hostname.endswith(".localhost"):
        raise NodeError(f"{url!r} names localhost, which is another machine to every peer; give an address")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return HTTPServerRoute(host_or_ip=host, protocol=parts.scheme, port=port, priority=1)


def parse_uid(text: Any) -> UID:
    """A UID from its hex digits, with or without dashes; raises NodeError."""
    try:
        return UID.from_string(str(text))
    except (SyftException, ValueError):
        raise NodeError(f"{text!r} is not a node's uid") from None


class Associations:
    """The association operations of one running node.

    Args:
        server: the running network or domain.
        monitor: its peer monitor, told about every change.
    """

    def __init__(self, server: Any, monitor: PeerMonitor) -> None:
        self._server = server
        self._monitor = monitor
        self._lock = threading.Lock()  # two callers at once would file two requests

    def request(self, network_url: str, own_url: str, network_uid: str | None = None) -> dict[str, Any]:
        """Ask a network to accept this domain.

        Returns:
            {"status": "requested" | "pending" | "associated", "network": {"name", "uid"}}

        Raises:
            NodeError: a URL is unusable or not reachable, or another node answers there than expected.
        """
        route, own_route = parse_route(network_url), parse_route(own_url)
        with self._lock:
            metadata = self._network_at(route_url(route), network_uid)
            self._check_own_url(route_url(own_route))
            peer = ServerPeer(
                id=parse_uid(metadata["id"]),
                name=metadata["name"],
                verify_key=SyftVerifyKey.from_string(metadata["verify_key"]),
                server_type=ServerType.GATEWAY,
                admin_email="",
                server_routes=[route],
            )
            before = self._association_at(peer)
            if before != "associated":
                self._ask(peer, own_route)
            after = self._association_at(peer)
            if after == "unknown":
                raise NodeError(f"the network {peer.name} at {route_url(route)} did not keep the request")
            self._save_peer(peer, route)
        self._monitor.wake()
        status = "requested" if before == "unknown" and after == "pending" else after
        return {"status": status, "network": {"name": peer.name, "uid": uid_text(peer.id)}}

    def approve(self, domains: list[dict[str, Any]]) -> dict[str, Any]:
        """Approve the pending requests of exactly these domains; one that is a peer already gets the URL given.

        Args:
            domains: each {"uid", "url"} and optionally "verify_key", which a request must then be signed with.

        Returns:
            {"approved": [uid], "peers": [...], "missing": [{"uid", "reason"}]}
        """
        approved, missing = [], []
        with self._lock:
            for domain in domains:
                uid, route = parse_uid(domain.get("uid")), parse_route(str(domain.get("url")))
                try:
                    self._approve(uid, route, domain.get("verify_key"))
                    approved.append(uid_text(uid))
                except NodeError as error:
                    missing.append({"uid": uid_text(uid), "reason": str(error)})
        self._monitor.wake()
        return {"approved": approved, "peers": self.listing()["peers"], "missing": missing}

    def listing(self) -> dict[str, Any]:
        """{"peers": [{"name", "uid", "kind", "url", "status"}], "pending": [{"uid", "name", "url"}]}"""
        seen = {state.uid: state for state in self._monitor.states()}
        peers = []
        for peer in self._peers():
            state = seen.get(uid_text(peer.id))
            peers.append(
                {
                    "name": peer.name,
                    "uid": uid_text(peer.id),
                    "kind": {"gateway": "network", "datasite": "domain"}.get(peer.server_type.value, "unknown"),
                    "url": peer_url(peer),
                    "status": state.status if state else "UNKNOWN",
                }
            )
        pending = [
            {
                "uid": uid_text(change.remote_peer.id),
                "name": change.remote_peer.name,
                "url": peer_url(change.remote_peer),
            }
            for request, change in self._requests()
            if request.get_status(self._context()) == RequestStatus.PENDING
        ]
        return {"peers": peers, "pending": pending}

    def leave(self, uid: str) -> dict[str, Any]:
        """Delete a peer and its requests on this side; {"left": whether there was anything to delete}."""
        peer_uid = parse_uid(uid)
        context = self._context()
        with self._lock:
            known = any(peer.id == peer_uid for peer in self._peers())
            if known:
                self._server.services.network.delete_peer_by_id(context, peer_uid)
            requests = [request for request, change in self._requests() if change.remote_peer.id == peer_uid]
            for request in requests:
                self._server.services.request.delete_by_uid(context, request.id)
        self._monitor.forget(uid_text(peer_uid))
        return {"left": known or bool(requests), "uid": uid_text(peer_uid)}

    def check(self, uid: str, door: str) -> dict[str, Any]:
        """See that a peer is there for this node, which it may be for nobody else yet (peers.PeerMonitor.reach)."""
        peer_uid = parse_uid(uid)
        peer = next((peer for peer in self._peers() if peer.id == peer_uid), None)
        if peer is None:
            raise NodeError(f"{uid_text(peer_uid)} is no peer of this node")
        self._monitor.reach(peer, door)
        return {}

    def _context(self) -> AuthedServiceContext:
        return AuthedServiceContext(server=self._server, credentials=self._server.verify_key, role=ServiceRole.ADMIN)

    def _peers(self) -> list[ServerPeer]:
        return self._server.services.network.stash.get_all(self._server.verify_key).unwrap()

    def _requests(self) -> list[tuple[Any, AssociationRequestChange]]:
        requests = self._server.services.request.stash.get_all(self._server.verify_key).unwrap()
        return [
            (request, change)
            for request in requests
            for change in request.changes
            if isinstance(change, AssociationRequestChange)
        ]

    def _network_at(self, url: str, expected_uid: str | None) -> dict[str, Any]:
        metadata = fetch_metadata(url)
        if metadata["server_type"] != ServerType.GATEWAY.value:
            raise NodeError(f"{url} is a {metadata['server_type']} called {metadata['name']}, not a network")
        if expected_uid and parse_uid(metadata["id"]) != parse_uid(expected_uid):
            raise NodeError(f"{url} is the network {uid_text(metadata['id'])}, not {expected_uid}")
        return metadata

    def _check_own_url(self, url: str) -> None:
        metadata = fetch_metadata(url)
        if parse_uid(metadata["id"]) != self._server.id:
            raise NodeError(f"{url} is {metadata['name']} ({uid_text(metadata['id'])}), not this node")

    def _association_at(self, network: ServerPeer) -> str:
        arguments = {"peer_id": self._server.id}
        return _STATUS[call_peer(self._server, network, "network.check_peer_association", arguments)]

    def _ask(self, network: ServerPeer, own_route: HTTPServerRoute) -> None:
        own_peer: ServerPeer = self._server.settings.to(ServerPeer)
        own_peer.server_routes = [own_route]
        arguments = {
            "peer": own_peer,
            "challenge": secrets.token_bytes(16),
            "self_server_route": network.server_routes[0],
            "verify_key": network.verify_key,
        }
        # With auto-approval the network calls back before it answers, hence the longer time.
        call_peer(self._server, network, "network.add_peer", arguments, timeout_seconds=30)

    def _save_peer(self, peer: ServerPeer, route: HTTPServerRoute) -> None:
        stash = self._server.services.network.stash
        for known in self._peers():
            if known.id == peer.id and known.verify_key != peer.verify_key:
                raise NodeError(f"the peer {known.name} is known here with another key; leave it first")
        stash.create_or_update_peer(self._server.verify_key, peer).unwrap()
        self._set_route(peer.id, route)

    def _set_route(self, uid: UID, route: HTTPServerRoute) -> None:
        update = ServerPeerUpdate(id=uid, server_routes=[route])
        self._server.services.network.stash.update(self._server.verify_key, update).unwrap()

    def _approve(self, uid: UID, route: HTTPServerRoute, verify_key: str | None) -> None:
        url = route_url(route)
        peer = next((peer for peer in self._peers() if peer.id == uid), None)
        if peer is None:
            metadata = fetch_metadata(url)
            if parse_uid(metadata["id"]) != uid:
                raise NodeError(f"{url} is {metadata['name']} ({uid_text(metadata['id'])}), not {uid_text(uid)}")
            self._approve_request(uid, url, verify_key or metadata["verify_key"])
            peer = next((peer for peer in self._peers() if peer.id == uid), None)
            if peer is None:
                raise NodeError(f"the approval of {uid_text(uid)} had no effect")
        elif verify_key is not None and str(peer.verify_key) != verify_key:
            raise NodeError(f"the peer {peer.name} is known here with another key; leave it first")
        if peer_url(peer) != url or len(peer.server_routes) != 1:
            self._set_route(uid, route)
            peer.server_routes = [route]
        self._monitor.check(peer)

    def _approve_request(self, uid: UID, url: str, verify_key: str) -> None:
        """Approve the request that this domain itself signed.

        A request's uid is only what its sender claims, so a request with the uid of this domain but another key is a
        stranger's. It is deleted, because upstream answers the domain's own request with it as long as it is pending.
        """
        context = self._context()
        own, foreign = [], []
        for request, change in self._requests():
            if change.remote_peer.id == uid and request.get_status(context) == RequestStatus.PENDING:
                (own if str(change.remote_peer.verify_key) == verify_key else foreign).append((request, change))
        for request, _change in foreign:
            logger.warning("deleted a request in the name of %s that was signed with another key", uid_text(uid))
            self._server.services.request.delete_by_uid(context, request.id)
        if not own:
            hint = "; a request with another key was deleted, ask again" if foreign else ""
            raise NodeError(f"no pending request of {uid_text(uid)}{hint}")
        request, change = own[-1]
        if peer_url(change.remote_peer) != url:
            raise NodeError(f"{uid_text(uid)} asked with the URL {peer_url(change.remote_peer)}, not {url}")
        try:
            self._server.services.request.apply(context, uid=request.id)
        except SyftException as error:
            raise NodeError(f"cannot approve {uid_text(uid)}: {error.public_message}") from None
        except requests.RequestException as error:
            # The last step of upstream is that this node calls itself by the URL that the domain knows it by.
            raise NodeError(f"cannot approve {uid_text(uid)}: this node does not reach its own URL: {error}") from None
