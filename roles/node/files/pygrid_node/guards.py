# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Closes holes of the stock server before it is built: who may rewrite routes, and what a database error may quote."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

# S/service/network/network_service.py registers all of these for guests (fault 7): whoever reaches the port can send a
# domain's traffic elsewhere. exchange_credentials_with makes a node call, and store, any address a guest names.
GUARDED_METHODS = (
    "update_peer",
    "add_route",
    "delete_route",
    "update_route_priority",
    "exchange_credentials_with",
)
# These a peer may call for its own entry: the call is signed with the key that the entry was approved with.
_OWN_ENTRY_METHODS = ("update_peer", "add_route", "delete_route", "update_route_priority")


def may_change_routes(role_level: int, required_level: int, caller_key: str, entry_key: str | None) -> bool:
    """Whether a caller may change a peer entry: by role, or because the entry is the caller's own.

    Args:
        role_level: the caller's role as a number, higher is more.
        required_level: the level of a data owner.
        caller_key: the key that signed the call.
        entry_key: the key stored with the entry, None when there is no such entry.
    """
    return role_level >= required_level or (entry_key is not None and caller_key == entry_key)


def guard_routes() -> None:
    """Require a data owner's role, or the peer's own key, for everything that changes a peer's routes."""
    from syft.service.network.network_service import NetworkService

    for name in GUARDED_METHODS:
        method = getattr(NetworkService, name)
        if not hasattr(method, "__pygrid_guarded__"):
            setattr(NetworkService, name, _guarded(name, method))


def _guarded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    from syft.service.user.user_roles import ServiceRole
    from syft.types.errors import SyftException

    @functools.wraps(method)
    def guarded(self: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        level = context.role.value if context.role is not None else ServiceRole.NONE.value
        entry_key = None
        if name in _OWN_ENTRY_METHODS and level < ServiceRole.DATA_OWNER.value:
            entry_key = _entry_key(self, context, name, args, kwargs)
        if not may_change_routes(level, ServiceRole.DATA_OWNER.value, str(context.credentials), entry_key):
            logger.warning("refused network.%s: the caller has no right to change routes", name)
            raise SyftException(public_message=f"network.{name} needs the role of a data owner")
        return method(self, context, *args, **kwargs)

    guarded.__pygrid_guarded__ = True  # type: ignore[attr-defined]
    return guarded


def _entry_key(service: Any, context: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The key of the peer entry that a call is about."""
    if name != "update_peer":
        key = kwargs.get("peer_verify_key", args[0] if args else None)
        return str(key) if key is not None else None
    update = kwargs.get("peer_update", args[0] if args else None)
    if update is None:
        return None
    result = service.stash.get_by_uid(context.server.verify_key, update.id)
    if result.is_err():
        return None
    peer = result.ok()
    # A peer may move, but not take another one's name: guests choose domains by name. An unset name is not text.
    renamed = isinstance(update.name, str) and update.name != peer.name
    return None if renamed else str(peer.verify_key)


def hide_parameters(engine: Any) -> None:
    """Keep the values of a failed statement (password hashes, keys) out of the exception's text and so out of logs."""
    engine.hide_parameters = True
