# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""API servers of clouds, made by others, on the loopback address."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.hands.digitalocean_books import Books
from tests.hands.digitalocean_server import serve_api, serve_books
from tests.support.runtime import free_port
from tests.support.servers import moto_server, server

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Authority:
    """A certificate authority that only the tests trust; ``bundle`` is its certificate."""

    bundle: Path
    context: ssl.SSLContext

    def surroundings(self) -> dict[str, str]:
        """Variables with which clients trust it."""
        return {"REQUESTS_CA_BUNDLE": str(self.bundle), "SSL_CERT_FILE": str(self.bundle)}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """For API servers whose clients want HTTPS."""
    made, bundle = trustme.CA(), tmp_path_factory.mktemp("authority") / "ca.pem"
    made.cert_pem.write_to_path(bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("127.0.0.1").configure_cert(context)
    return Authority(bundle, context)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server that answers as AWS does."""
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as port:
        yield port


@pytest.fixture(scope="session")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server that answers as Rackspace's cloud does, which is an OpenStack of theirs; made by Rackspace."""
    port, folder = free_port(), tmp_path_factory.mktemp("mimic")
    listen = f"tcp:port={port}:interface=127.0.0.1"
    words = [sys.executable, "-m", "twisted", "--log-file", str(folder / "twisted.log"), "mimic", "--listen", listen]
    with server(folder / "log", *words, port=port) as answering:
        yield answering


@dataclass(frozen=True)
class Prism:
    """A proxy that checks requests and answers with the description of an API; made by Stoplight, from npm."""

    program: Path
    descriptions: Path

    def description(self, cloud: str) -> Path:
        """The vendor's own description, gzipped."""
        return self.descriptions / f"{cloud}-openapi.json.gz"

    @contextlib.contextmanager
    def before(self, cloud: str, upstream: int, folder: Path) -> Iterator[int]:
        """Stand before a server; what does not fit the description becomes an error. Yields the port."""
        plain = folder / f"{cloud}.json"
        plain.write_bytes(gzip.decompress(self.description(cloud).read_bytes()))
        port = free_port()
        words = [str(self.program), "proxy", "--errors", "-h", "127.0.0.1", "-p", str(port), str(plain)]
        with server(folder / "prism.log", *words, f"http://127.0.0.1:{upstream}", port=port):
            yield port


@pytest.fixture(scope="session")
def prism() -> Prism:
    """Prism, which `make clouds` installs, and the descriptions, which are not ours to hand on."""
    program = Path(os.environ.get("PYGRID_TEST_PRISM", "prism"))
    descriptions = Path(os.environ.get("PYGRID_API_DESCRIPTIONS", CHECKOUT.parent / "shared" / "specs"))
    if shutil.which(program) is None:
        pytest.skip("prism (npm: @stoplight/prism-cli) is not there; PYGRID_TEST_PRISM may name it")
    if not descriptions.is_dir():
        pytest.skip("PYGRID_API_DESCRIPTIONS names no folder with the vendors' descriptions")
    return Prism(program, descriptions)


@pytest.fixture(scope="session")
def digitalocean(
    tmp_path_factory: pytest.TempPathFactory, prism: Prism, authority: Authority
) -> Iterator[tuple[Books, str]]:
    """Books of an account of DigitalOcean, and where its API is, which prism checks."""
    books = Books(delay_seconds=0.2)
    kept = serve_books(books, ("127.0.0.1", 0))
    with prism.before("digitalocean", kept.server_address[1], tmp_path_factory.mktemp("digitalocean")) as checked:
        answering = serve_api(("127.0.0.1", checked), ("127.0.0.1", 0), authority.context)
        yield books, f"https://127.0.0.1:{answering.server_address[1]}"
        answering.shutdown()
    kept.shutdown()
