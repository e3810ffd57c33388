# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An account of DigitalOcean on two ports: its API by HTTPS, and its books.

python3 -m tests.hands.digitalocean_server ADDRESS PORT CERTIFICATE [PRISM DESCRIPTION]

Where prism is there, it stands between both and checks each request and each answer. The port of the books, PORT + 1,
answers as the API does, by HTTP, and has what the API tells nobody at /books.
"""

from __future__ import annotations

import gzip
import http.client
import json
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from .digitalocean_books import Books

Reply = tuple[int, list[tuple[str, str]], bytes]
NOT_OURS = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "date", "server"}


class Handler(BaseHTTPRequestHandler):
    """Reads a request, and lets somebody answer."""

    protocol_version = "HTTP/1.1"

    def reply(self, body: bytes) -> Reply:
        raise NotImplementedError

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, content = self.reply(body)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = handle_request

    def log_message(self, *_arguments: object) -> None:
        """What matters is in the answers."""


def books_handler(books: Books) -> type[Handler]:
    class BooksHandler(Handler):
        def reply(self, body: bytes) -> Reply:
            asked = urlsplit(self.path)
            headers = [("Content-Type", "application/json")]
            if asked.path == "/books":
                return 200, headers, json.dumps(machines(books)).encode()
            query = {name: values[0] for name, values in parse_qs(asked.query).items()}
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            document = json.loads(body) if body.strip() not in (b"", b"null") else {}
            status, answer = books.answer(self.command, unquote(asked.path), query, document, token)
            if status == 204:
                return status, [], b""
            if status >= 400:
                print(f"{self.command} {self.path} {body.decode()[:500]}: {status} {answer}", flush=True)
            return status, headers, json.dumps(answer).encode()

    return BooksHandler


def forwarder(upstream: tuple[str, int]) -> type[Handler]:
    class Forwarder(Handler):
        def reply(self, body: bytes) -> Reply:
            connection = http.client.HTTPConnection(*upstream, timeout=60)
            try:
                # Modules of community.digitalocean send a body where there is none to send, which prism refuses.
                if self.command == "GET":
                    body = b""
                headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_OURS}
                if not body:
                    headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in NOT_OURS]
                content = answer.read()
                if answer.status >= 400:
                    print(
                        f"{self.command} {self.path} {body.decode()[:500]}: {answer.status} {content.decode()[:1500]}",
                        flush=True,
                    )
                return answer.status, kept, content
            finally:
                connection.close()

    return Forwarder


def machines(books: Books) -> dict[str, Any]:
    """What the hands have to know."""
    books.settle()
    return {
        "machines": [
            {
                "id": one["id"], "address": books.private[one["id"]], "status": one["status"],
                "image": str(one["image"]["id"]), "size": one["size_slug"], "memory_mb": one["memory"],
                "processors": one["vcpus"], "keys": books.public_keys[one["id"]],
                "user_data": books.user_data[one["id"]],
                "volumes": [
                    {"id": volume["id"], "name": volume["name"], "gigabytes": volume["size_gigabytes"]}
                    for volume in books.volumes.values() if one["id"] in volume["droplet_ids"]
                ],
            }
            for one in books.droplets.values()
        ],
        "images": {str(image): str(droplet) for image, droplet in books.sources.items() if image in books.images},
        "volumes": list(books.volumes),
    }  # fmt: skip


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address: ClassVar[bool] = True  # type: ignore[misc]


def serve_books(books: Books, address: tuple[str, int]) -> Server:
    """Answer, in a thread, until shutdown()."""
    server = Server(address, books_handler(books))
    books.url = f"http://{address[0]}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def serve_api(upstream: tuple[str, int], address: tuple[str, int], context: ssl.SSLContext) -> Server:
    """Let others ask by HTTPS what an API answers by HTTP, in a thread, until shutdown()."""
    server = Server(address, forwarder(upstream))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    address, port, certificate, *checking = sys.argv[1:]
    books = Books()
    serve_books(books, (address, int(port) + 1))
    upstream = (address, int(port) + 1)
    if checking:
        program, description = checking
        plain = Path(certificate).parent / "digitalocean.json"
        plain.write_bytes(gzip.decompress(Path(description).read_bytes()))
        words = [program, "proxy", "--errors", "-h", address, "-p", str(int(port) + 2), str(plain)]
        subprocess.Popen([*words, f"http://{address}:{upstream[1]}"])
        upstream = (address, int(port) + 2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    serve_api(upstream, (address, int(port)), context)
    threading.Event().wait()


if __name__ == "__main__":
    main()
