# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which workers may use a domain's queue: workers.json, read again whenever it changes.

Cures fault 2: upstream's port asks nobody who he is, and every message carries the node's private key.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from .errors import NodeError
from .files import read_private_text

log = logging.getLogger("pygrid_node.queue")


class AllowList:
    """Names of the workers by their CURVE public key (Z85).

    A file that cannot be read or is damaged changes nothing: half an edit must not throw every worker out. A file that
    is not there allows nobody.

    Args:
        path: workers.json, {"<worker name>": "<public key>"}, writable by nobody else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._signature: tuple[int, ...] | None = None
        self._names: dict[str, str] = {}

    def name_of(self, key: str) -> str | None:
        """The worker that owns this key, or None when it is not (or no longer) on the list."""
        with self._lock:
            self._refresh()
            return self._names.get(key)

    def names(self) -> dict[str, str]:
        """All workers on the list: {public key: name}."""
        with self._lock:
            self._refresh()
            return dict(self._names)

    def callback(self, domain: str, key: bytes) -> bool:
        """What pyzmq's authenticator asks for each new connection (`configure_curve_callback`)."""
        name = self.name_of(key.decode("ascii"))
        if name is None:
            log.warning("refused a queue connection: its key %s is on no list", key.decode("ascii"))
        return name is not None

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            signature: tuple[int, ...] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            if self._signature != ():
                log.warning("%s is missing: no worker is allowed", self._path)
            self._signature, self._names = (), {}
            return
        except OSError as error:
            log.error("cannot look at %s: %s", self._path, error.strerror)
            return
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._names = _parse(read_private_text(self._path, "workers"))
        except (NodeError, ValueError) as error:
            log.error("keeping the former list of workers: %s", error)
            return
        log.info("workers allowed on the queue: %s", ", ".join(sorted(self._names.values())) or "none")


def _parse(text: str) -> dict[str, str]:
    document = json.loads(text)
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document.values()):
        raise ValueError("workers file: must be a JSON object of names and keys")
    names = {key: name for name, key in document.items()}
    if len(names) != len(document):
        raise ValueError("workers file: two workers have the same key")
    return names
