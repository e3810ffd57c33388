# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for certificates: which ones a machine needs, and what is looked at before the controller signs or sends."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import account_name
from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_reading import blocks, normal_name

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

DIRECTORY = Path("/etc/pygrid")
INGRESS_UNIT = "pygrid-ingress.service"
DATABASE_UNIT = "postgresql.service"
LOCAL_NAMES = ("localhost", "127.0.0.1")
# What a request may ask for: the names, and that it is a server's or a client's.
ALLOWED = {"2.5.29.17", "2.5.29.37", "2.5.29.15"}  # subjectAltName, extendedKeyUsage, keyUsage

Grid = Mapping[str, Any]
Variables = Mapping[str, Any]


def machine_certificates(
    grid: Grid, host: str, hostvars: Variables, default_source: str, possible: bool = False
) -> list[dict[str, Any]]:
    """The certificates that the machine of ``host`` is to have, as certificate_info takes them.

    possible: also those that it may have from the time of other settings.
    """
    location = grid["nodes"][host]["location"]
    machine = grid["hosts"][location]
    certificates = []
    for name in machine["nodes"]:
        node = grid["nodes"][name]
        if node["ingress"]:
            certificates.append(_of_ingress(node, hostvars[name], default_source))
        if node["kind"] != "network" and (possible or _wants_client_certificates(grid)):
            file = DIRECTORY / "nodes" / node["name"] / "client.pem"
            certificates.append(
                {
                    "name": f"client {node['name']}",
                    "file": str(file),
                    "usage": "client",
                    # Read by the node itself for each connection, so that a renewal needs no restart.
                    "group": account_name(node["name"]),
                }
            )
    if possible or machine["database_port"]:
        certificates.append(
            {
                "name": "database",
                "file": str(DIRECTORY / "tls" / "database.pem"),
                "key_file": str(DIRECTORY / "tls" / "database.key"),
                "names": list(dict.fromkeys([machine["reach"], *LOCAL_NAMES])),
                "group": "postgres",
                "reload": DATABASE_UNIT,
            }
        )
    return certificates


def _of_ingress(node: Mapping[str, Any], variables: Variables, default_source: str) -> dict[str, Any]:
    source = variables.get("pygrid_tls_source", default_source)
    wanted = {
        "name": node["name"],
        "file": str(DIRECTORY / "tls" / f"{node['name']}.pem"),
        "names": node["ingress"]["names"],
        "source": source,
        "reload": INGRESS_UNIT,
    }
    if source == "acme":
        # Public ACME servers vouch for names only.
        wanted["names"] = [name for name in node["ingress"]["names"] if not _is_address(name)]
    if source == "files":
        wanted["chain"] = _certificates(variables.get("pygrid_tls_certificate_file"))
    return wanted


def _wants_client_certificates(grid: Grid) -> bool:
    network = grid["nodes"].get(grid["network"]) or {}
    return bool((network.get("ingress") or {}).get("client_certificates"))


def certificate_problems(grid: Grid, host: str, hostvars: Variables, default_source: str) -> list[str]:
    """A sentence for each node of the machine whose own certificate files or ACME names cannot be used."""
    problems = []
    for name in grid["hosts"][grid["nodes"][host]["location"]]["nodes"]:
        node, variables = grid["nodes"][name], hostvars[name]
        source = variables.get("pygrid_tls_source", default_source) if node["ingress"] else "grid_ca"
        if source == "files":
            problem = _problem_of_files(node["ingress"]["names"][:1], variables)
            problems += [f"{name}: {problem}"] if problem else []
        if source == "acme" and _is_address(node["ingress"]["server_name"]):
            problems.append(
                f"{name}: pygrid_tls_source is acme, and its URL {node['url']} has an address instead of a name;"
                f" set pygrid_{node['kind']}_url to a URL with a public name, or pygrid_tls_source to grid_ca"
            )
    return problems


def _problem_of_files(names: list[str], variables: Variables) -> str | None:
    """What a client would complain about, in the order in which it is to be mended."""
    given = {"pygrid_tls_certificate_file": "", "pygrid_tls_ca_file": "", "pygrid_tls_key_file": ""}
    given.update({variable: str(variables[variable]) for variable in given if variables.get(variable)})
    if variables.get("pygrid_tls_key"):
        del given["pygrid_tls_key_file"]
    missing = [variable for variable, file in given.items() if not file or not Path(file).expanduser().is_file()]
    if missing:
        return f"pygrid_tls_source is files, but {' and '.join(missing)} names no file on the controller"
    file, ca_file = given["pygrid_tls_certificate_file"], given["pygrid_tls_ca_file"]
    _need_cryptography()
    try:
        chain = x509.load_pem_x509_certificates(_text(file).encode())
        authorities = x509.load_pem_x509_certificates(_text(ca_file).encode())
        key = serialization.load_pem_private_key(_key_of(variables).encode(), None)
    except (ValueError, TypeError):
        return f"{', '.join(given.values())} have to be PEM files, and the key one without a passphrase"
    if chain[0].public_key() != key.public_key():
        return f"the private key does not belong to the certificate {file}; name the pair that belongs together"
    return (
        _problem_of_time(chain, file)
        or _problem_of_names(chain[0], names, file)
        or _problem_of_path(chain, authorities, file, ca_file)
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
    return name in present or (not _is_address(name) and f"*.{name.partition('.')[2]}" in present)


def checked_request(request: str, wanted: Mapping[str, Any]) -> str:
    """The request, if it asks for what was wanted and no more: a machine must not get what is not its own.

    Raises:
        AnsibleFilterError: it asks for something else.
    """
    _need_cryptography()
    usages = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
    asked = x509.load_pem_x509_csr(request.encode())
    extensions = {extension.oid: extension.value for extension in asked.extensions}
    names = {normal_name(name) for name in wanted.get("names") or []}
    usage = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    subject = [attribute.value for attribute in asked.subject]
    subjects = names if wanted.get("source") == "acme" else {str(wanted["name"]).rpartition(" ")[2]}
    honest = (
        asked.is_signature_valid
        and isinstance(asked.public_key(), ec.EllipticCurvePublicKey)
        and {oid.dotted_string for oid in extensions} <= ALLOWED
        and _names_in(asked) == names
        and usage is not None
        and list(usage) == [usages[wanted.get("usage", "server")]]
        and len(subject) == 1
        and subject[0] in subjects
    )
    if not honest:
        raise AnsibleFilterError(
            f"the request for {wanted['name']} asks for more than that: it is not signed; is the host still yours?"
        )
    return request


def certificates_to_issue(
    wanted: list[dict[str, Any]], state: Mapping[str, Any], renew: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """What certificate_info found wrong, by who is to issue it: grid_ca, files or acme.

    An ACME server can issue a certificate only when the ingress runs, and that needs one to start with: so the grid CA
    issues a stand-in for one that does not exist yet.

    renew: everything that is issued is issued anew.
    """
    read = {one["name"]: one for one in state["certificates"]}
    found: dict[str, list[dict[str, Any]]] = {"grid_ca": [], "files": [], "acme": []}
    for one in wanted:
        source, known = one.get("source", "grid_ca"), read[one["name"]]
        if not known["reason"] and (not renew or source == "files"):
            continue
        found[source].append(one)
        if source == "acme" and not known["exists"]:
            found["grid_ca"].append(one)
    return found


def certificates_to_remove(
    grid: Grid, host: str, hostvars: Variables, default_source: str, going: list[str]
) -> dict[str, Any]:
    """What goes with the nodes ``going`` of the machine of ``host``: everything, when no other node stays there."""
    machine = grid["hosts"][grid["nodes"][host]["location"]]["nodes"]
    found = machine_certificates(grid, host, hostvars, default_source, possible=True)
    if set(machine) <= set(going):
        return {"certificates": found, "everything": True}
    names = {grid["nodes"][node]["name"] for node in machine if node in going}
    theirs = names | {f"client {name}" for name in names}
    return {"certificates": [one for one in found if one["name"] in theirs], "everything": False}


def own_certificates(wanted: list[dict[str, Any]], grid: Grid, hostvars: Variables) -> list[dict[str, Any]]:
    """Certificates of the operator's own files, each with its private key."""
    hosts = {node["name"]: host for host, node in grid["nodes"].items()}
    return [{**one, "key": _key_of(hostvars[hosts[one["name"]]])} for one in wanted]


def signed_certificates(
    wanted: list[dict[str, Any]], answers: list[Mapping[str, Any]], link: str = ""
) -> list[dict[str, Any]]:
    """Certificates with the chains that were issued for them.

    answers: results of the task that signed, one for each request.
    link: what leads from the new grid CA to the former one, while the grid changes from one to the other.
    """
    chains = {answer["item"]["name"]: answer["certificate"] + link for answer in answers}
    return [{**one, "chain": chains[one["name"]]} for one in wanted if one["name"] in chains]


def fetched_certificates(wanted: list[dict[str, Any]], directory: str) -> list[dict[str, Any]]:
    """Certificates with the chains that an ACME server has issued; without those that check mode did not order."""
    fetched = [(one, _text(Path(directory).expanduser() / f"{one['name']}.pem")) for one in wanted]
    return [{**one, "chain": chain} for one, chain in fetched if chain]


def _key_of(variables: Variables) -> str:
    """The text of a variable (from Vault), else of a file."""
    return str(variables.get("pygrid_tls_key") or "") or _text(variables.get("pygrid_tls_key_file"))


def grid_authority(directory: str) -> dict[str, Any]:
    """The grid CA on the controller, without its key.

    Returns ``certificate`` of the one that signs (empty before there is one), ``link`` that leads from it to the former
    one, ``trusted`` with all that are to be trusted, and whether there are ``former`` and ``next`` ones.
    """
    folder = Path(directory).expanduser()
    # Between two renames, where a killed run may have left it, the next one already is the one that signs.
    # It is there once the link is, which is made last.
    following = _text(folder / "next" / "link.pem") and _text(folder / "next" / "grid-ca.pem")
    former = _text(folder / "former" / "grid-ca.pem")
    current = _text(folder / "current" / "grid-ca.pem") or following
    return {
        "certificate": current,
        "link": (_text(folder / "current" / "link.pem") or _text(folder / "next" / "link.pem")) if former else "",
        "trusted": "".join(dict.fromkeys([current, following, former])),
        "former": bool(former),
        "next": bool(following),
    }


def further_authorities(grid: Grid, hostvars: Variables) -> str:
    """The CA certificates of all nodes that do not use the grid CA, for all others to trust."""
    files = {hostvars[host].get("pygrid_tls_ca_file") for host in grid["nodes"]}
    return "".join(_certificates(file) for file in sorted(filter(None, files)))


def _certificates(file: str | None) -> str:
    """The certificates in a file on the controller, without a private key that may be in it as well."""
    return "".join(f"{block}\n" for block in blocks(_text(file)))


def _text(file: str | Path | None) -> str:
    """Content of a file on the controller; empty when there is none."""
    path = Path(str(file)).expanduser() if file else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else ""


def acme_thumbprint(key: str) -> str:
    """What an ACME account answers challenges with: the thumbprint (RFC 7638) of its P-256 key, which is no secret."""
    _need_cryptography()
    public = serialization.load_pem_private_key(key.encode(), None).public_key().public_numbers()
    numbers = {name: _base64url(getattr(public, name).to_bytes(32, "big")) for name in ("x", "y")}
    text = json.dumps({"crv": "P-256", "kty": "EC", **numbers}, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(text.encode()).digest())


def _need_cryptography() -> None:
    if not HAS_CRYPTOGRAPHY:
        raise AnsibleFilterError(
            "the controller lacks the Python package cryptography, which certificates are read with:"
            " run by way of make with I=<inventory>, or install it beside Ansible"
        )


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def certificate_expiry(grid: Grid, hostvars: Variables) -> dict[str, dict[str, Any]]:
    """By inventory name what is known of the certificate that a node shows to the world."""
    found = {}
    for host, node in grid["nodes"].items():
        machine = grid["hosts"][node["location"]]["nodes"]
        states = [(hostvars[other].get("__certificates_state") or {}).get("certificates") or [] for other in machine]
        for one in (one for state in states for one in state):
            if one["name"] == node["name"]:
                found[host] = {key: one[key] for key in ("source", "not_after", "days_left", "reason")}
    return found


class FilterModule:
    """The filters of this file; each has its documentation beside it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "machine_certificates": machine_certificates,
            "certificate_problems": certificate_problems,
            "certificates_to_issue": certificates_to_issue,
            "checked_request": checked_request,
            "certificates_to_remove": certificates_to_remove,
            "own_certificates": own_certificates,
            "signed_certificates": signed_certificates,
            "fetched_certificates": fetched_certificates,
            "grid_authority": grid_authority,
            "further_authorities": further_authorities,
            "acme_thumbprint": acme_thumbprint,
            "certificate_expiry": certificate_expiry,
        }
