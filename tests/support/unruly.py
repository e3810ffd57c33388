# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy in front of an API server that misbehaves when it is told to, as networks and clouds do."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Of these a body is sent one byte at a time.
SLOW_BYTE_SECONDS = 0.5
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Fault:
    """What happens to a request: an answer of its own (``status``, ``body``), or a whole one that breaks (``how``)."""

    how: str = ""
    status: int = 0
    body: str = ""
    content_type: str = "text/xml"


TRUNCATED, SLOW, RESET = Fault("truncated"), Fault("slow"), Fault("reset")


@dataclass(frozen=True)
class Request:
    """A request as it came. ``headers``: by names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


@dataclass
class UnrulyProxy:
    """A proxy and what it saw.

    ``upstream``: host and port, or a socket in the file system;
    ``choose``: returns what is to happen to a request, if anything; ``rewrite``: what is sent on instead of a request;
    ``tls``: to listen with HTTPS, for SDKs that want nothing else.
    """

    upstream: tuple[str, int] | Path
    choose: Callable[[Request], Fault | None] = lambda _request: None
    rewrite: Callable[[Request], Request] = lambda request: request
    latency_seconds: float = 0.0
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[UnrulyProxy]:
        """Listen on a port of the loopback address."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments: object) -> None:
                """Tests look at what was asked, not at a log."""

            def handle_request(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, body)
                proxy.requests.append(request)
                fault = proxy.choose(request)
                time.sleep(proxy.latency_seconds)
                if fault and fault.how == "reset":
                    self.close_connection = True
                    return
                if fault and fault.status:
                    answer = (fault.status, [("Content-Type", fault.content_type)], fault.body.encode())
                else:
                    answer = proxy._forward(request)
                self._send(*answer, fault)

            def _send(self, status: int, headers: list[tuple[str, str]], content: bytes, fault: Fault | None) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):  # who asked may have gone
                    if fault and fault.how == "truncated":
                        self.wfile.write(content[: len(content) // 2])
                        self.close_connection = True
                    elif fault and fault.how == "slow":
                        for byte in content:
                            self.wfile.write(bytes([byte]))
                            self.wfile.flush()
                            time.sleep(SLOW_BYTE_SECONDS)
                    else:
                        self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            if self.tls:
                server.socket = self.tls.wrap_socket(server.socket, server_side=True)
            self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield self
            finally:
                server.shutdown()

    def _forward(self, came: Request) -> tuple[int, list[tuple[str, str]], bytes]:
        if isinstance(self.upstream, Path):
            connection = http.client.HTTPConnection("localhost", timeout=300)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self.upstream))
        else:
            connection = http.client.HTTPConnection(*self.upstream, timeout=300)
        with contextlib.closing(connection):
            request = self.rewrite(came)
            headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
            headers["X-Forwarded-Host"] = request.headers["host"]
            connection.request(request.method, request.path, request.body.encode(), headers)
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            return answer.status, kept, self._as_ours(answer.read())

    def _as_ours(self, content: bytes) -> bytes:
        """What a server says of its own address, so that further requests come by here too."""
        if isinstance(self.upstream, Path):
            return content
        host, port = self.upstream
        return content.replace(f"http://{host}:{port}".encode(), self.url.encode())
