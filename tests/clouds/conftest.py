# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""API servers of clouds, made by others, on the loopback address."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

CHECKOUT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


def free_port() -> int:
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def server(log: Path, *command: str, port: int, environment: dict[str, str] | None = None) -> Iterator[int]:
    """Run a server until the end of the block; returns when its port answers."""
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
    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    with server(log, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), port=port) as answering:
        yield answering


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
