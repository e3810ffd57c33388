# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talking to a running node over its control socket (HTTP over a unix socket, only its own account may)."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, whatever the length of its path.

    ``sun_path`` holds 107 bytes, a home folder may be longer: the socket is reached through a descriptor
    of its folder, ``/proc/self/fd/N/name``.
    """

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


class NodeUnavailable(PygridError):
    """Nobody listens on the control socket, or the answer did not come in time."""


def request(
    path: Path, method: str, url: str, body: Any = None, timeout_seconds: float = 5.0
) -> tuple[int, dict[str, Any]]:
    """Send one request to the control socket ``path``; returns (HTTP status, parsed JSON object).

    Raises NodeUnavailable when the node does not answer.
    """
    connection = UnixConnection(path, timeout_seconds)
    try:
        payload = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, url, body=payload, headers=headers)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
        status = response.status
    except (OSError, http.client.HTTPException) as error:
        raise NodeUnavailable(f"no answer on {path}: {error}") from error
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {"error": text[:500]}
    return status, answer if isinstance(answer, dict) else {"answer": answer}


def call(path: Path, method: str, url: str, body: Any = None, timeout_seconds: float = 60.0) -> dict[str, Any]:
    """Like :func:`request`, but anything except success is a PygridError with the node's own words."""
    status, answer = request(path, method, url, body, timeout_seconds)
    if status >= 400:
        raise PygridError(str(answer.get("error") or answer))
    return answer
