# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that keeps Droplets as DigitalOcean does; prism stands before it and checks both sides.

python digitalocean_double.py PORT DESCRIPTION DROPLETS

DESCRIPTION: DigitalOcean's own (OpenAPI, gzipped): a Droplet looks as its example does. DROPLETS is a file with a JSON
list of {name, region, tags, private, public}. What this server answers is only as good as prism finds it.
"""

from __future__ import annotations

import copy
import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

TOKEN = "dop_v1_of_the_tests"
EXAMPLE = ("components", "examples", "droplets_all", "value", "droplets", 0)


def droplets(description: Path, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Droplets as the description shows one, each with what is wanted of it."""
    example: Any = json.loads(gzip.decompress(description.read_bytes()))
    for key in EXAMPLE:
        example = example[key]
    made = []
    for number, entry in enumerate(wanted, 1):
        droplet = copy.deepcopy(example)
        droplet |= {"id": number, "name": entry["name"], "tags": entry["tags"], "status": "active"}
        droplet["region"]["slug"] = entry["region"]
        addresses = [address for address in droplet["networks"]["v4"] if entry.get(address["type"])]
        droplet["networks"]["v4"] = [{**address, "ip_address": entry[address["type"]]} for address in addresses]
        droplet["networks"]["v6"] = []
        made.append(droplet)
    return made


def main() -> None:
    """Serve until ended."""
    port, description, source = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    everything = droplets(description, json.loads(source.read_text()))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer(401, {"id": "unauthorized", "message": "Unable to authenticate you"})
            elif asked.path != "/v2/droplets":
                self.answer(404, {"id": "not_found", "message": "The resource you were accessing could not be found."})
            else:
                self.answer(200, self.page({name: values[0] for name, values in parse_qs(asked.query).items()}))

        def page(self, asked: dict[str, str]) -> dict[str, Any]:
            found = [droplet for droplet in everything if asked.get("tag_name") in (None, *droplet["tags"])]
            size, number = int(asked.get("per_page", 20)), int(asked.get("page", 1))
            pages = {}
            if number * size < len(found):
                query = urlencode({**asked, "page": number + 1})
                pages["next"] = f"http://127.0.0.1:{port}/v2/droplets?{query}"
            return {
                "droplets": found[(number - 1) * size : number * size],
                "links": {"pages": pages} if pages else {},
                "meta": {"total": len(found)},
            }

        def answer(self, status: int, document: dict[str, Any]) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Only prism is of interest."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
