# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates of a machine as files: which ones there are to be, what is wrong with them, how they are written."""

from __future__ import annotations

import contextlib
import grp
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_reading import (
    blocks,
    is_issued_by,
    iso_time,
    key_fits,
    normal_name,
    parse,
    trust_bundle,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text

WANTED_ARGUMENTS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "file": {"type": "path", "required": True},
    "key_file": {"type": "path"},
    "names": {"type": "list", "elements": "str", "default": []},
    "usage": {"type": "str", "choices": ["server", "client"], "default": "server"},
    "source": {"type": "str", "choices": ["grid_ca", "files", "acme"], "default": "grid_ca"},
    "group": {"type": "str"},
    "reload": {"type": "str"},
    "chain": {"type": "str"},
}


@dataclass(frozen=True)
class Wanted:
    """One certificate that a machine is to have.

    Attributes:
        file: the chain; the private key is in it, too, unless ``key_file`` is given.
        names: all alternative names, and no others.
        group: a group that may read the key (PostgreSQL insists on reading it itself).
        reload: the systemd unit that has to be told of a new certificate.
        chain: the very chain that has to be in place (only for one's own files).
    """

    name: str
    file: Path
    key_file: Path | None
    names: tuple[str, ...]
    usage: str
    source: str
    group: str | None
    reload: str | None
    chain: str | None

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Wanted:
        return cls(
            name=arguments["name"],
            file=Path(arguments["file"]),
            key_file=Path(arguments["key_file"]) if arguments["key_file"] else None,
            names=tuple(sorted({normal_name(name) for name in arguments["names"]})),
            usage=arguments["usage"],
            source=arguments["source"],
            group=arguments["group"],
            reload=arguments["reload"],
            chain=arguments["chain"],
        )

    @property
    def common_name(self) -> str:
        """What the subject says: for a client that is who it is."""
        # An ACME server wants one of the names there.
        return self.names[0] if self.source == "acme" and self.names else self.name.rpartition(" ")[2]

    @property
    def secret_file(self) -> Path:
        """The file that holds the private key."""
        return self.key_file or self.file

    @property
    def pending_key(self) -> Path:
        """Where the key of a request waits for its certificate."""
        return self.file.parent / f".{self.file.name}.key"

    @property
    def group_id(self) -> int:
        """Of the group that may read the key; that of the one who runs this when that group does not exist (yet)."""
        try:
            return grp.getgrnam(self.group).gr_gid if self.group else os.getegid()
        except KeyError:
            return os.getegid()

    @property
    def mode(self) -> int:
        """Of the file with the private key."""
        return 0o600 if self.group_id == os.getegid() else 0o640


@dataclass(frozen=True)
class Folder:
    """The collection's folder on a machine (``/etc/pygrid``)."""

    root: Path

    @property
    def authority(self) -> Path:
        return self.root / "grid-ca.pem"

    @property
    def trust(self) -> Path:
        return self.root / "trust.pem"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def pending_reload(self) -> Path:
        """Names the units that have yet to be told of a new certificate, also after a run that was killed before."""
        return self.tls / ".reload"

    def pending_units(self) -> list[str]:
        return (read_text(self.pending_reload) or "").split()

    def trust_texts(self, authorities: str, trusted: str) -> dict[Path, str]:
        """What has to stand in the two files that tell whom to trust."""
        return {
            self.authority: "\n".join(blocks(authorities)) + "\n",
            self.trust: trust_bundle(authorities + trusted),
        }

    def trust_differs(self, authorities: str, trusted: str) -> bool:
        """Whether one of the two files is missing, old, or not readable for all."""
        return any(
            read_text(path) != text or stat.S_IMODE(path.stat().st_mode) != 0o644
            for path, text in self.trust_texts(authorities, trusted).items()
        )


def why_not(wanted: Wanted, issuer: str, renew_days: int, now: float) -> str | None:
    """One phrase on why the certificate has to be replaced; None when it is as it should be."""
    pem = read_text(wanted.file)
    if pem is None or not wanted.secret_file.exists():
        return "there is none"
    if wanted.chain is not None and blocks(pem) != blocks(wanted.chain):
        return "it is not the one of the controller"
    certificate = parse(pem)
    if certificate is None:
        return "it cannot be read"
    if not key_fits(wanted.file, wanted.key_file):
        return "its key does not fit"
    found = wanted.secret_file.stat()
    if (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) != (wanted.mode, os.geteuid(), wanted.group_id):
        return "others could read its key"
    if wanted.source == "files":
        return None
    if certificate.names != wanted.names:
        return f"it is for {', '.join(certificate.names) or 'nobody'} and not for {', '.join(wanted.names) or 'nobody'}"
    if certificate.days_left(now) < renew_days:
        return f"it expires at {iso_time(certificate.not_after)}"
    from_grid = bool(issuer) and is_issued_by(pem, issuer, wanted.usage)
    if wanted.source == "grid_ca" and not from_grid:
        return "it is not from the grid CA"
    if wanted.source == "acme" and from_grid:
        return "it is the grid CA's stand-in until the ACME server has issued one"
    return None


def describe(wanted: Wanted, issuer: str, renew_days: int, now: float) -> dict[str, Any]:
    """The record of one certificate that certificate_info returns; holds nothing secret."""
    certificate = parse(read_text(wanted.file) or "")
    return {
        "name": wanted.name,
        "source": wanted.source,
        "file": str(wanted.file),
        "exists": certificate is not None,
        "names": list(certificate.names) if certificate else [],
        "not_before": iso_time(certificate.not_before) if certificate else None,
        "not_after": iso_time(certificate.not_after) if certificate else None,
        "days_left": certificate.days_left(now) if certificate else None,
        "issuer": certificate.issuer if certificate else None,
        "fingerprint": certificate.fingerprint if certificate else None,
        "reason": why_not(wanted, issuer, renew_days, now),
    }


@contextlib.contextmanager
def draft(target: Path, text: str, mode: int, group_id: int = -1) -> Iterator[Path]:
    """A synced file beside ``target`` with its final rights, for the caller to check and rename; else it goes away."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchown(stream.fileno(), -1, group_id)
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
