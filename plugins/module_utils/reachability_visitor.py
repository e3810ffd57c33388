# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying whether connections get through, and telling apart the ways in which they do not."""

from __future__ import annotations

import errno
import hmac
import json
import os
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.reachability_listener import answer_to

MOST_AT_ONCE = 32
LONGEST_ANSWER = 1024
# The kernel gives up on a neighbour that is not there after about three seconds; a firewall says no at once.
AT_ONCE_SECONDS = 1.0


@dataclass(frozen=True)
class Visit:
    """What became of one connection.

    ``result``: ``ok``, ``open`` (something answers, nothing was asked), ``other`` (the answer is not our listener's),
    ``refused`` (nothing listens there), ``rejected`` (a firewall says no), ``filtered`` (no answer at all),
    ``no route`` or ``no address`` (the name does not resolve). ``seen_from`` is where the other side saw it come from
    and ``let_in`` whether its firewall will accept that.
    """

    address: str
    port: int
    result: str
    detail: str = ""
    seen_from: str | None = None
    let_in: bool | None = None


def visit_all(targets: Iterable[dict[str, Any]], timeout_seconds: float) -> list[dict[str, Any]]:
    """Try all targets (``address``, ``port`` and, where a listener of ours waits, ``token``) side by side."""
    targets = list(targets)
    if not targets:
        return []

    def one(target: dict[str, Any]) -> dict[str, Any]:
        return asdict(visit(target["address"], target["port"], target.get("token"), timeout_seconds))

    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(targets))) as pool:
        return list(pool.map(one, targets))


def visit(address: str, port: int, token: str | None, timeout_seconds: float) -> Visit:
    """Connect to one target, on whichever of its addresses answers."""
    try:
        places = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Visit(address, port, "no address", str(getattr(error, "strerror", error)))
    last = Visit(address, port, "no address")
    for family, kind, protocol, _name, place in places:
        started = time.monotonic()
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(timeout_seconds)
                connection.connect(place)
                return _ask(connection, address, port, token)
        except socket.timeout:
            # not TimeoutError, which is another class before Python 3.10
            last = Visit(address, port, "filtered", f"no answer from {place[0]} within {timeout_seconds:g} s")
        except OSError as error:
            at_once = time.monotonic() - started < AT_ONCE_SECONDS
            last = Visit(address, port, _result_of(error, at_once), f"{place[0]}: {os.strerror(error.errno or 0)}")
    return last


def _result_of(error: OSError, at_once: bool) -> str:
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused"
    if error.errno == errno.EACCES or (error.errno == errno.EHOSTUNREACH and at_once):
        return "rejected"
    return "filtered" if error.errno == errno.ETIMEDOUT else "no route"


def _ask(connection: socket.socket, address: str, port: int, token: str | None) -> Visit:
    """Find out whether it is our listener that took the connection."""
    if not token:
        return Visit(address, port, "open")
    try:
        connection.sendall(token.encode() + b"\n")
        text = b""
        while not text.endswith(b"\n") and len(text) < LONGEST_ANSWER:
            part = connection.recv(LONGEST_ANSWER)
            if not part:
                break
            text += part
        said = json.loads(text)
        if hmac.compare_digest(str(said["answer"]), answer_to(token)):
            return Visit(address, port, "ok", "", said["seen_from"], said["let_in"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Visit(address, port, "other", "another program answers there")
