# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that answers DescribeInstances with bytes that moto sent, so that clients are measured and not the server.

    python ec2_replay.py PORT PAGE

PAGE is moto's answer for as many instances as a page of EC2 holds. Further pages are the same with other names, ids
and addresses. A client's endpoint says what the account is: http://127.0.0.1:PORT/INSTANCES/REGIONS/MILLISECONDS, with
so many milliseconds before each answer. ``/calls`` answers with how many calls came since it was asked last.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

PAGE_SIZE = 1000
REGION = re.compile(r"Credential=[^/]+/[0-9]+/([a-z0-9-]+)/")
ITEM = re.compile(rb"<item>\s*<reservationId>.*?</instancesSet>.*?</item>", re.DOTALL)
_calls = 0
_lock = threading.Lock()


def regions(count: int) -> list[str]:
    """Names of regions: one of them has an endpoint like any other."""
    return [f"eu-test-{number}" for number in range(1, count + 1)]


@cache
def page(source: Path, number: int, size: int, token: str, region: str) -> bytes:
    """The answer with so many instances of the page of this number."""
    text = source.read_bytes()
    items = ITEM.findall(text)[:size]
    head, tail = text[: text.index(b"<reservationSet>") + 16], text[text.index(b"</reservationSet>") :]
    body = b"".join(items)
    # Names are node-00000, ids i-…, addresses 10.…: each page has its own.
    body = re.sub(rb"node-[0-9]{2}", b"node-%02d" % number, body)
    body = re.sub(rb"\bi-[0-9a-f]{3}", b"i-%03x" % number, body)
    body = re.sub(rb"\b10\.[0-9]+\.", b"10.%d." % number, body)
    body = body.replace(b"<availabilityZone>us-east-1", f"<availabilityZone>{region}".encode())
    return head + body + tail.replace(b"</reservationSet>", b"</reservationSet>" + token.encode(), 1)


def answer(source: Path, account: tuple[int, int], region: str, asked: dict[str, list[str]]) -> bytes:
    """What an account with so many instances in so many regions says."""
    instances, count = account
    if asked["Action"] != ["DescribeInstances"]:
        raise ValueError(f"not recorded: {asked['Action']}")
    number = regions(count).index(region)
    here = instances // count
    first = int(asked.get("NextToken", ["0"])[0])
    size = min(PAGE_SIZE, here - first)
    following = first + size
    token = f"<nextToken>{following}</nextToken>" if following < here else ""
    pages_before = number * -(-here // PAGE_SIZE)
    return page(source, pages_before + first // PAGE_SIZE, size, token, region)


class Handler(BaseHTTPRequestHandler):
    """Keeps connections open, as EC2 does."""

    protocol_version = "HTTP/1.1"
    source: Path

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        global _calls
        with _lock:
            count, _calls = _calls, 0
        self._send(str(count).encode())

    def do_POST(self) -> None:
        global _calls
        with _lock:
            _calls += 1
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        instances, count, milliseconds = map(int, self.path.strip("/").split("/"))
        found = REGION.search(self.headers["Authorization"])
        content = answer(self.source, (instances, count), found[1] if found else "", body)
        time.sleep(milliseconds / 1000)
        self._send(content)

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    Handler.source = Path(sys.argv[2])
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
