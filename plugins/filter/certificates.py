# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for certificates: which ones a machine needs, who issues them, and whom to trust."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import account_name
from ansible_collections.openmined.pygrid.plugins.module_utils.addresses import is_address
from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_reading import blocks

DIRECTORY = Path("/etc/pygrid")
INGRESS_UNIT = "pygrid-ingress.service"
DATABASE_UNIT = "postgresql.service"
LOCAL_NAMES = ("localhost", "127.0.0.1")

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
        wanted["names"] = [name for name in node["ingress"]["names"] if not is_address(name)]
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
        if source == "acme" and is_address(node["ingress"]["server_name"]):
            problems.append(
                f"{name}: pygrid_tls_source is acme, and its URL {node['url']} has an address instead of a name;"
                f" set pygrid_{node['kind']}_url to a URL with a public name, or pygrid_tls_source to grid_ca"
            )
    return problems


def _problem_of_files(names: list[str], variables: Variables) -> str | None:
    """A sentence on why the certificate that somebody brings cannot be used."""
    given = {"pygrid_tls_certificate_file": "", "pygrid_tls_ca_file": "", "pygrid_tls_key_file": ""}
    given.update({variable: str(variables[variable]) for variable in given if variables.get(variable)})
    if variables.get("pygrid_tls_key"):
        del given["pygrid_tls_key_file"]
    missing = [variable for variable, file in given.items() if not file or not Path(file).expanduser().is_file()]
    if missing:
        return f"pygrid_tls_source is files, but {' and '.join(missing)} names no file on the controller"
    file, ca_file = given["pygrid_tls_certificate_file"], given["pygrid_tls_ca_file"]
    checks = _checks()
    chain = checks.Chain(file, _text(file), ca_file, _text(ca_file), _key_of(variables))
    return checks.problem_of_chain(names, chain)


def checked_request(request: str, wanted: Mapping[str, Any]) -> str:
    """The request, if it asks for what was wanted and no more: a machine must not get what is not its own.

    Raises:
        AnsibleFilterError: it asks for something else.
    """
    if not _checks().is_honest(request, wanted):
        raise AnsibleFilterError(
            f"the request for {wanted['name']} asks for more than that: it is not signed; is the host still yours?"
        )
    return request


def acme_thumbprint(key: str) -> str:
    """What an ACME account answers challenges with: the thumbprint (RFC 7638) of its P-256 key, which is no secret."""
    return _checks().thumbprint(key)


def _checks() -> ModuleType:
    """What reads certificates. Loaded only by the few tasks that need it, since cryptography is slow to load."""
    from ansible_collections.openmined.pygrid.plugins.plugin_utils import certificate_checks

    if not certificate_checks.HAS_CRYPTOGRAPHY:
        raise AnsibleFilterError(
            "the controller lacks the Python package cryptography, which certificates are read with:"
            " run by way of make with I=<inventory>, or install it beside Ansible"
        )
    return certificate_checks


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
