# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The books of an account of DigitalOcean; prism checks its API where it is there."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import trustme

from tests.lab.lab import Lab

from .cloud import Booked, Plugged
from .digitalocean_books import TOKEN

PORT = 8443


def files(lab: Lab) -> tuple[Path, Path]:
    """The certificate of the API with its key, and all authorities that clients are to believe."""
    folder = lab.folder / "cloud"
    return folder / "api.pem", folder / "authorities.pem"


def serve(lab: Lab) -> tuple[list[str], int]:
    """The command that runs the API in the lab's network, and its port."""
    certificate, authorities = files(lab)
    authority, address = trustme.CA(), lab.network.address(1)
    authority.issue_cert(address).private_key_and_cert_chain_pem.write_to_path(certificate)
    known = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    others = Path(known).read_bytes() if known else b""
    authorities.write_bytes(others + b"\n" + authority.cert_pem.bytes())
    prism = os.environ.get("PYGRID_TEST_PRISM", "prism")
    description = Path(os.environ.get("PYGRID_API_DESCRIPTIONS", "")) / "digitalocean-openapi.json.gz"
    checking = [prism, str(description)] if shutil.which(prism) and description.exists() else []
    return [
        sys.executable,
        "-m",
        "tests.hands.digitalocean_server",
        address,
        str(PORT),
        str(certificate),
        *checking,
    ], PORT


def environment(lab: Lab) -> dict[str, str]:
    """How everybody's SDK finds the API."""
    authorities = str(files(lab)[1])
    return {
        "DIGITALOCEAN_API_URL": f"https://{lab.network.address(1)}:{PORT}",
        "DIGITALOCEAN_TOKEN": TOKEN,
        "SSL_CERT_FILE": authorities,
        "REQUESTS_CA_BUNDLE": authorities,
    }


def ask(lab: Lab, path: str, method: str = "GET") -> Any:
    """Ask the books, in the lab's network."""
    url = f"http://{lab.network.address(1)}:{PORT + 1}{path}"
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - it is http
        return json.loads(answer.read() or b"null")


class DigitalOcean:
    """Reads the books. Made and used in the lab's network."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.told: dict[str, Any] = {}

    def machines(self) -> Iterable[Booked]:
        self.told = ask(self.lab, "/books")
        for machine in self.told["machines"]:
            yield Booked(
                name=str(machine["id"]),
                address=machine["address"],
                runs=machine["status"] == "active",
                image=machine["image"],
                size=machine["size"],
                memory_mb=machine["memory_mb"],
                processors=machine["processors"],
                keys=tuple(machine["keys"]),
                user_data=machine["user_data"],
                volumes=tuple(
                    Plugged(
                        volume=volume["id"],
                        gigabytes=volume["gigabytes"],
                        device=f"sd{'abcdefg'[number]}",
                        link=f"scsi-0DO_Volume_{volume['name']}",
                    )
                    for number, volume in enumerate(machine["volumes"])
                ),
            )

    def images(self) -> Mapping[str, str]:
        return dict(self.told["images"])

    def volumes(self) -> Iterable[str]:
        return list(self.told["volumes"])


open_books = DigitalOcean
