# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What syft's own HTTP clients need to speak TLS with a grid: ports that are kept, and a certificate to show.

Which authorities are trusted is a matter of the environment (REQUESTS_CA_BUNDLE), which requests reads by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def keep_ports() -> None:
    """Let a node reach https URLs on other ports than 443; syft must be imported.

    Upstream copies a URL by parsing its text, and its parser says 443 whatever port an https URL has
    (S/types/server_url.py, from_url and __copy__). When with_path() of https://host:8443 keeps its port, this may go.
    """
    from syft.types.server_url import ServerURL

    def copied(self: Any) -> Any:
        return ServerURL(self.protocol, self.host_or_ip, self.port, self.path, self.query)

    ServerURL.__copy__ = copied  # type: ignore[method-assign]


def show_client_certificate(file: Path) -> None:
    """Let this process show a certificate to servers that ask for one (mutual TLS towards the Network).

    syft and the runtime make sessions of requests in several places, requests one for each call: so it is the session
    that learns it. requests uses it for https only, and reads the file for each new connection, so that a renewed
    certificate needs no restart.

    Args:
        file: PEM, the certificate and its private key.
    """
    from requests import Session

    original = Session.__init__

    def with_certificate(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.cert = str(file)

    Session.__init__ = with_certificate  # type: ignore[method-assign]
