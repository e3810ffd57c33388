# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running API servers on the loopback address."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .runtime import free_port

START_SECONDS = 60


@contextlib.contextmanager
def server(log: Path, *command: str, port: int, environment: dict[str, str] | None = None) -> Iterator[int]:
    """Run a server until the end of the block; yields its port as soon as it answers."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None, f"{command[0]} ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < end, f"{command[0]} does not answer: {log.read_text()[-2000:]}"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def moto_server(log: Path) -> Iterator[int]:
    """Run a server that answers as AWS does; yields its port."""
    port = free_port()
    with server(log, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), port=port) as answering:
        yield answering


@dataclass(frozen=True)
class Asked:
    """A request of a client. ``headers``: by names in any case; ``query``: the first value of each."""

    path: str
    query: dict[str, str]
    headers: Message


@contextlib.contextmanager
def json_server(answer: Callable[[Asked], tuple[int, dict[str, Any]]]) -> Iterator[int]:
    """Answer GET on a port of the loopback address with a status and a document; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(asked.query).items()}
            status, document = answer(Asked(asked.path, query, self.headers))
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Tests look at what was asked, not at a log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()
