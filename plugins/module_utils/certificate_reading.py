# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading certificates on a host with openssl and the standard library, so that a host needs no Python package."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.addresses import is_address
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
DAY_SECONDS = 86400
# Where Debian's and Red Hat's families keep the certificates that every program of the host trusts.
SYSTEM_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))


@dataclass(frozen=True)
class Certificate:
    """What a certificate says of itself. Times are seconds since the epoch."""

    names: tuple[str, ...]
    not_before: float
    not_after: float
    issuer: str
    fingerprint: str

    def days_left(self, now: float) -> int:
        """Whole days until it expires, negative once it has."""
        return int((self.not_after - now) // DAY_SECONDS)


def iso_time(seconds: float) -> str:
    """The moment as people and JSON write it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def blocks(text: str | None) -> list[str]:
    """The certificates in a PEM text, in their order, without the comments between them."""
    return [block.replace("\r\n", "\n") for block in BLOCK.findall(text or "")]


def normal_name(name: str) -> str:
    """One spelling for each name or address, so that lists of them can be compared."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower()


def alternative_name(name: str) -> str:
    """``name`` as openssl wants it in a request: an address is an IP entry, all else a DNS entry."""
    normal = normal_name(name)
    return f"IP:{normal}" if is_address(normal) else f"DNS:{normal}"


def openssl(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run openssl; whatever is secret goes in by file or standard input.

    Raises:
        PygridError: there is no openssl on this host.
    """
    program = shutil.which("openssl")
    if program is None:
        raise PygridError("the program openssl is missing on this host; install the distribution's package openssl")
    return subprocess.run(
        [program, *arguments], input=text or "", capture_output=True, text=True, timeout=60, check=False
    )


def parse(pem: str) -> Certificate | None:
    """The first certificate of a PEM text; None when there is none that can be read."""
    found = blocks(pem)
    if not found:
        return None
    answer = openssl(
        *("x509", "-noout", "-startdate", "-enddate", "-issuer"),
        *("-nameopt", "RFC2253", "-ext", "subjectAltName"),
        text=found[0],
    )
    fields = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    if "notAfter" not in fields:
        return None
    return Certificate(
        names=tuple(sorted(_alternative_names(answer.stdout))),
        not_before=ssl.cert_time_to_seconds(fields["notBefore"]),
        not_after=ssl.cert_time_to_seconds(fields["notAfter"]),
        issuer=fields["issuer"].strip(),
        fingerprint=fingerprint(found[0]),
    )


def fingerprint(pem: str) -> str:
    """SHA-256 of the first certificate of a PEM text, in hexadecimal; empty when there is none."""
    found = blocks(pem)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found[0])).hexdigest() if found else ""


def _alternative_names(text: str) -> Iterator[str]:
    for entry in re.findall(r"(?:DNS|IP Address):([^,\s]+)", text):
        yield normal_name(entry)


def is_issued_by(pem: str, authority: str, usage: str) -> bool:
    """Whether the first certificate of ``pem``, helped by the others in it, leads to ``authority`` today.

    usage: server or client, which it has to be made for.
    """
    found = blocks(pem)
    with _as_file(authority) as trusted, _as_file("\n".join(found)) as chain, _as_file(found[0]) as leaf:
        answer = openssl(
            *("verify", "-no-CApath", "-CAfile", trusted, "-untrusted", chain, "-purpose", f"ssl{usage}", leaf)
        )
    return answer.returncode == 0


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        yield stream.name


def key_fits(certificate_file: Path, key_file: Path | None) -> bool:
    """Whether a server could start with this pair; without ``key_file`` the key is in ``certificate_file`` too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password: an encrypted key is an error here, never a question on the terminal.
        context.load_cert_chain(certificate_file, key_file, password="")
    except (ssl.SSLError, OSError, ValueError):
        return False
    return True


def trust_bundle(trusted: str) -> str:
    """What nodes of this host trust: the certificates of the system, and ``trusted``."""
    system = next((bundle for bundle in SYSTEM_BUNDLES if bundle.is_file()), None)
    own = "\n".join(blocks(trusted)) + "\n"
    return (system.read_text(encoding="utf-8", errors="replace").rstrip("\n") + "\n" if system else "") + own
