# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at before the controller signs a request or sends somebody's own certificate to a machine.

Apart from the filters, because cryptography takes a fifth of a second to load and few tasks need it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.addresses import is_address
from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_reading import normal_name

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
except ImportError:  # a grid on one's own machine has no certificates and needs none
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

# What a request may ask for: the names, and that it is a server's or a client's.
ALLOWED = {"2.5.29.17", "2.5.29.37", "2.5.29.15"}  # subjectAltName, extendedKeyUsage, keyUsage


@dataclass(frozen=True)
class Chain:
    """A certificate that somebody brings: names of the files on the controller and what is in them (PEM)."""

    file: str
    certificates: str
    ca_file: str
    authorities: str
    key: str


def problem_of_chain(names: list[str], chain: Chain) -> str | None:
    """What a client would complain about, in the order in which it is to be mended."""
    try:
        certificates = x509.load_pem_x509_certificates(chain.certificates.encode())
        authorities = x509.load_pem_x509_certificates(chain.authorities.encode())
        key = serialization.load_pem_private_key(chain.key.encode(), None)
    except (ValueError, TypeError):
        return f"{chain.file}, {chain.ca_file} and the private key have to be PEM, and the key one without a passphrase"
    if certificates[0].public_key() != key.public_key():
        return f"the private key does not belong to the certificate {chain.file}; name the pair that belongs together"
    return (
        _problem_of_time(certificates, chain.file)
        or _problem_of_names(certificates[0], names, chain.file)
        or _problem_of_path(certificates, authorities, chain.file, chain.ca_file)
    )


def _problem_of_time(chain: list[x509.Certificate], file: str) -> str | None:
    now = datetime.datetime.now(datetime.timezone.utc)
    for certificate in chain:
        if certificate.not_valid_after_utc <= now:
            return (
                f"the certificate in {file} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it"
            )
        if certificate.not_valid_before_utc > now:
            start = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M}"
            return f"the certificate in {file} is not valid before {start} UTC; is the controller's clock right?"
    return None


def _problem_of_names(leaf: x509.Certificate, names: list[str], file: str) -> str | None:
    present = _names_in(leaf)
    absent = [name for name in names if not _covers(present, normal_name(name))]
    if not absent:
        return None
    known = ", ".join(sorted(present)) or "no name"
    reached = ", ".join(absent)
    return f"the certificate {file} is for {known}, but the node is reached as {reached}; have one issued for that"


def _problem_of_path(
    chain: list[x509.Certificate], authorities: list[x509.Certificate], file: str, ca_file: str
) -> str | None:
    for certificate, issuer in itertools.pairwise(chain):
        if not _is_from(certificate, issuer):
            return (
                f"the certificates in {file} do not follow from one another; put the node's own first, then its issuer"
            )
    if chain[-1] in authorities or any(_is_from(chain[-1], authority) for authority in authorities):
        return None
    return (
        f"no CA of {ca_file} issued the last certificate in {file} (that one is from"
        f" {chain[-1].issuer.rfc4514_string()}); add the intermediate certificates to {file}, or the CA to {ca_file}"
    )


def _is_from(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names_in(certificate: x509.Certificate | x509.CertificateSigningRequest) -> set[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return {normal_name(str(name.value)) for name in extension.value}


def _covers(present: set[str], name: str) -> bool:
    """A name itself, or the wildcard of the domain it is directly in."""
    return name in present or (not is_address(name) and f"*.{name.partition('.')[2]}" in present)


def is_honest(request: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a request asks for what was wanted, and no more."""
    usages = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
    asked = x509.load_pem_x509_csr(request.encode())
    extensions = {extension.oid: extension.value for extension in asked.extensions}
    names = {normal_name(name) for name in wanted.get("names") or []}
    usage = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    subject = [attribute.value for attribute in asked.subject]
    subjects = names if wanted.get("source") == "acme" else {str(wanted["name"]).rpartition(" ")[2]}
    return (
        asked.is_signature_valid
        and isinstance(asked.public_key(), ec.EllipticCurvePublicKey)
        and {oid.dotted_string for oid in extensions} <= ALLOWED
        and _names_in(asked) == names
        and usage is not None
        and list(usage) == [usages[wanted.get("usage", "server")]]
        and len(subject) == 1
        and subject[0] in subjects
    )


def thumbprint(key: str) -> str:
    """RFC 7638: the thumbprint of a P-256 key (PEM)."""
    public = serialization.load_pem_private_key(key.encode(), None).public_key().public_numbers()
    numbers = {name: _base64url(getattr(public, name).to_bytes(32, "big")) for name in ("x", "y")}
    text = json.dumps({"crv": "P-256", "kty": "EC", **numbers}, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(text.encode()).digest())


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
