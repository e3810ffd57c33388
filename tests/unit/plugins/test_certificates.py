# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates from key to renewal, with the real openssl on one side and a real CA on the other."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ansible_collections.openmined.pygrid.plugins.filter import certificates as filters
from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_files import Folder, Wanted, describe
from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_reading import blocks, parse
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.modules.certificate import Machine

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
DAY = datetime.timedelta(days=1)
USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


def pem(thing: Any) -> str:
    return thing.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def alternative(names: list[str]) -> x509.SubjectAlternativeName:
    entries = []
    for name in names:
        try:
            entries.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            entries.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(entries)


@dataclass
class Authority:
    """A CA; ``issuer`` is another one for an intermediate."""

    name: str = "grid CA"
    issuer: Authority | None = None

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.issue(self.name, self.key.public_key(), authority=True, by=self.issuer or self)

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    def issue(
        self,
        name: str,
        key: Any,
        names: list[str] | None = None,
        days: float = 90,
        usage: str = "server",
        authority: bool = False,
        by: Authority | None = None,
    ) -> x509.Certificate:
        by = by or self
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject(name))
            .issuer_name(subject(by.name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(alternative(names), critical=False)
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([USAGES[usage]]), critical=False)
        return builder.sign(by.key, hashes.SHA256())

    def sign(self, request: str, days: float = 90, usage: str = "server") -> str:
        asked = x509.load_pem_x509_csr(request.encode())
        try:
            value = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = [str(name.value) for name in value]
        except x509.ExtensionNotFound:
            names = []
        name = asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return pem(self.issue(name, asked.public_key(), names, days, usage))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "pygrid")
    folder.tls.mkdir(parents=True)
    return folder


def wanted(folder: Folder, **arguments: Any) -> Wanted:
    given = {
        "name": "alice", "file": str(folder.tls / "alice.pem"), "key_file": None,
        "names": ["alice.example", "10.0.0.1"], "usage": "server", "source": "grid_ca", "group": None, "reload": None,
        "chain": None,
    }  # fmt: skip
    return Wanted.from_arguments({**given, **arguments})


def reason(one: Wanted, authority: Authority, days: int = 30, later: float = 0) -> str | None:
    return describe(one, authority.pem, days, time.time() + later * 86400)["reason"]


def installed(folder: Folder, authority: Authority, **arguments: Any) -> Wanted:
    """A certificate that went the whole way: key and request here, signature there, file here."""
    days = arguments.pop("days", 90)
    one = wanted(folder, **arguments)
    machine = Machine(folder)
    request = machine.request(one)["request"]
    machine.install(one, authority.sign(request, days, one.usage), None)
    return one


def test_a_certificate_is_good_from_its_making_until_it_is_about_to_expire(
    folder: Folder, authority: Authority
) -> None:
    one = wanted(folder)
    assert reason(one, authority) == "there is none"
    one = installed(folder, authority)
    record = describe(one, authority.pem, 30, time.time())
    assert record["reason"] is None
    assert (record["days_left"], record["names"]) == (89, ["10.0.0.1", "alice.example"])
    assert record["not_after"].endswith("Z")
    assert stat.S_IMODE(one.file.stat().st_mode) == 0o600
    assert not one.pending_key.exists()
    assert reason(one, authority, later=59) is None
    assert "expires" in (reason(one, authority, later=61) or "")


def test_key_and_certificate_may_be_two_files(folder: Folder, authority: Authority) -> None:
    one = installed(folder, authority, name="database", key_file=str(folder.tls / "database.key"))
    assert reason(one, authority) is None
    assert "PRIVATE" not in one.file.read_text()
    assert stat.S_IMODE(one.file.stat().st_mode) == 0o644
    assert stat.S_IMODE((folder.tls / "database.key").stat().st_mode) == 0o600


def test_a_client_certificate_has_no_names_and_is_none_for_a_server(folder: Folder, authority: Authority) -> None:
    one = installed(folder, authority, name="client alice", usage="client", names=[])
    assert reason(one, authority) is None
    assert parse(one.file.read_text()).names == ()
    assert reason(wanted(folder, names=[]), authority) == "it is not from the grid CA"


def test_other_names_another_ca_and_open_rights_are_seen(folder: Folder, authority: Authority) -> None:
    one = installed(folder, authority)
    assert "alice.example" in (reason(wanted(folder, names=["bob.example"]), authority) or "")
    assert reason(one, Authority()) == "it is not from the grid CA"
    one.file.chmod(0o644)
    assert reason(one, authority) == "others could read its key"


def test_names_are_compared_as_what_they_mean(folder: Folder, authority: Authority) -> None:
    one = installed(folder, authority, names=["Alice.Example", "2001:DB8:0::1", "10.0.0.1"])
    assert reason(one, authority) is None
    assert reason(wanted(folder, names=["10.0.0.1", "[2001:db8::1]", "alice.example"]), authority) is None


def test_a_damaged_file_is_replaced(folder: Folder, authority: Authority) -> None:
    one = installed(folder, authority)
    text = one.file.read_text()
    one.file.write_text(text.replace(blocks(text)[0], ""))
    assert reason(one, authority) == "it cannot be read"
    other = ec.generate_private_key(ec.SECP256R1())
    one.file.write_text(blocks(text)[0] + "\n" + key_pem(other))
    assert reason(one, authority) == "its key does not fit"


def test_a_chain_for_another_key_never_replaces_a_good_one(folder: Folder, authority: Authority) -> None:
    one = installed(folder, authority)
    before = one.file.read_text()
    machine = Machine(folder)
    stale = machine.request(one)["request"]
    machine.request(one)  # as a second run does after one that was killed
    with pytest.raises(PygridError, match="does not fit"):
        machine.install(one, authority.sign(stale), None)
    assert one.file.read_text() == before
    assert sorted(path.name for path in folder.tls.iterdir()) == [".alice.pem.key", "alice.pem"]


def test_an_acme_certificate_waits_behind_a_stand_in(folder: Folder, authority: Authority) -> None:
    one = installed(folder, authority, source="acme", names=["alice.example"])
    assert "stand-in" in (reason(one, authority) or "")
    public = Authority("public CA")
    request = Machine(folder).request(one)["request"]
    assert x509.load_pem_x509_csr(request.encode()).subject == subject("alice.example")
    Machine(folder).install(one, public.sign(request), None)
    assert reason(one, authority) is None


def test_two_cas_are_trusted_while_the_grid_changes(folder: Folder, authority: Authority) -> None:
    new = Authority()
    machine = Machine(folder)
    machine.trust(authority.pem, "")
    assert folder.trust_differs(new.pem + authority.pem, "")
    machine.trust(new.pem + authority.pem, "")
    assert not folder.trust_differs(new.pem + authority.pem, "")
    assert blocks(folder.authority.read_text()) == [new.pem.strip(), authority.pem.strip()]
    assert blocks(folder.trust.read_text())[-2:] == blocks(folder.authority.read_text())


def test_removing_leaves_what_is_not_ours(folder: Folder, authority: Authority) -> None:
    one = installed(folder, authority)
    machine = Machine(folder)
    machine.trust(authority.pem, "")
    (folder.root / "somebody.txt").write_text("else")
    machine.remove(one)
    machine.remove_everything()
    assert [path.name for path in folder.root.iterdir()] == ["somebody.txt"]


# What the controller looks at before it signs.


@pytest.fixture
def request_text(folder: Folder) -> str:
    return Machine(folder).request(wanted(folder))["request"]


def test_a_request_for_what_was_wanted_is_signed(request_text: str) -> None:
    asked = {"name": "alice", "names": ["10.0.0.1", "alice.example"]}
    assert filters.checked_request(request_text, asked) == request_text


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "alice", "names": ["alice.example"]},
        {"name": "alice", "names": ["10.0.0.1", "alice.example", "bob.example"]},
        {"name": "bob", "names": ["10.0.0.1", "alice.example"]},
        {"name": "client alice", "names": ["10.0.0.1", "alice.example"], "usage": "client"},
    ],
)
def test_a_request_for_something_else_is_refused(request_text: str, asked: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="is the host still yours"):
        filters.checked_request(request_text, asked)


def test_a_request_to_become_a_ca_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject("alice"))
        .add_extension(alternative(["alice.example"]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    asked = {"name": "alice", "names": ["alice.example"]}
    assert filters.checked_request(pem(builder.sign(key, hashes.SHA256())), asked)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    with pytest.raises(AnsibleFilterError):
        filters.checked_request(pem(builder.sign(key, hashes.SHA256())), asked)


# Which certificates there are to be.


def grid(**ingress: Any) -> dict[str, Any]:
    def node(name: str, kind: str, location: str, own: dict[str, Any] | None) -> dict[str, Any]:
        url = f"https://{own['server_name']}" if own else ""
        return {"host": name, "name": name, "kind": kind, "location": location, "url": url, "ingress": own}

    network = {
        "names": ["net.example", "10.0.0.1"],
        "server_name": "net.example",
        "client_certificates": False,
        **ingress,
    }
    alice = {"names": ["alice.example"], "server_name": "alice.example", "client_certificates": False}
    return {
        "network": "net",
        "nodes": {
            "net": node("net", "network", "one", network),
            "alice": node("alice", "domain", "one", alice),
            "w1": node("w1", "worker", "two", None),
        },
        "hosts": {
            "one": {"nodes": ["net", "alice"], "reach": "10.0.0.1", "database_port": 5432},
            "two": {"nodes": ["w1"], "reach": "10.0.0.2", "database_port": None},
        },
    }


HOSTVARS: dict[str, dict[str, Any]] = {"net": {}, "alice": {}, "w1": {}}


def names_of(found: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in found]


def test_a_machine_gets_what_its_nodes_need() -> None:
    assert names_of(filters.machine_certificates(grid(), "alice", HOSTVARS, "grid_ca")) == ["net", "alice", "database"]
    assert filters.machine_certificates(grid(), "w1", HOSTVARS, "grid_ca") == []
    asking = grid(client_certificates=True)
    assert names_of(filters.machine_certificates(asking, "net", HOSTVARS, "grid_ca"))[2:] == [
        "client alice",
        "database",
    ]
    assert names_of(filters.machine_certificates(asking, "w1", HOSTVARS, "grid_ca")) == ["client w1"]


def test_acme_is_for_names_and_not_for_addresses() -> None:
    network = filters.machine_certificates(grid(), "net", HOSTVARS, "acme")[0]
    assert network["names"] == ["net.example"]
    assert filters.certificate_problems(grid(), "net", HOSTVARS, "acme") == []
    (problem,) = filters.certificate_problems(grid(server_name="10.0.0.1"), "net", HOSTVARS, "acme")
    assert "pygrid_network_url" in problem


def test_a_stand_in_is_issued_once_and_good_ones_are_left_alone() -> None:
    found = filters.machine_certificates(
        grid(), "alice", {**HOSTVARS, "alice": {"pygrid_tls_source": "acme"}}, "grid_ca"
    )
    good = {"reason": None, "exists": True}
    state = {"certificates": [{"name": name, **good} for name in ("net", "alice", "database")]}
    assert filters.certificates_to_issue(found, state) == {"grid_ca": [], "files": [], "acme": []}
    renewed = filters.certificates_to_issue(found, state, renew=True)
    assert (names_of(renewed["grid_ca"]), names_of(renewed["acme"])) == (["net", "database"], ["alice"])
    state["certificates"][1] = {"name": "alice", "reason": "there is none", "exists": False}
    assert names_of(filters.certificates_to_issue(found, state)["grid_ca"]) == ["alice"]
    state["certificates"][1] = {"name": "alice", "reason": "it is a stand-in", "exists": True}
    waiting = filters.certificates_to_issue(found, state)
    assert (names_of(waiting["grid_ca"]), names_of(waiting["acme"])) == ([], ["alice"])


def test_a_node_takes_its_own_along_and_the_last_one_everything() -> None:
    first = filters.certificates_to_remove(grid(), "net", HOSTVARS, "grid_ca", ["net"])
    assert (names_of(first["certificates"]), first["everything"]) == (["net"], False)
    second = filters.certificates_to_remove(grid(), "alice", HOSTVARS, "grid_ca", ["alice", "w1"])
    assert names_of(second["certificates"]) == ["alice", "client alice"]  # the latter from the time of other settings
    last = filters.certificates_to_remove(grid(), "net", HOSTVARS, "grid_ca", ["net", "alice", "w1"])
    assert last["everything"]
    assert "database" in names_of(last["certificates"])


# The operator's own files.


@dataclass
class Own:
    """Files of an operator: a root, an intermediate, and a node's certificate from that."""

    folder: Path
    names: list[str]
    days: float = 100

    def __post_init__(self) -> None:
        self.root = Authority("Hospital Root")
        self.between = Authority("Hospital Intermediate", issuer=self.root)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.leaf = pem(self.between.issue("alice", self.key.public_key(), self.names, self.days))
        self.write(chain=self.leaf + self.between.pem, key=key_pem(self.key), ca=self.root.pem)

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / f"{name}.pem").write_text(text)

    def problem(self) -> str | None:
        own = {
            "pygrid_tls_source": "files",
            "pygrid_tls_certificate_file": str(self.folder / "chain.pem"),
            "pygrid_tls_key_file": str(self.folder / "key.pem"),
            "pygrid_tls_ca_file": str(self.folder / "ca.pem"),
        }
        found = filters.certificate_problems(grid(), "alice", {**HOSTVARS, "alice": own}, "grid_ca")
        return found[0] if found else None


@pytest.mark.parametrize("names", [["alice.example"], ["*.example"], ["ALICE.example", "other.example"]])
def test_files_that_fit_are_taken(tmp_path: Path, names: list[str]) -> None:
    assert Own(tmp_path, names).problem() is None


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    assert "expired at" in (Own(tmp_path, ["alice.example"], days=-1).problem() or "")


@pytest.mark.parametrize("names", [["bob.example"], ["*.sub.example"], ["example"]])
def test_a_certificate_for_another_name_is_refused(tmp_path: Path, names: list[str]) -> None:
    assert "is reached as alice.example" in (Own(tmp_path, names).problem() or "")


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    own = Own(tmp_path, ["alice.example"])
    own.write(key=key_pem(ec.generate_private_key(ec.SECP256R1())))
    assert "does not belong" in (own.problem() or "")


def test_an_incomplete_or_foreign_chain_is_refused(tmp_path: Path) -> None:
    own = Own(tmp_path, ["alice.example"])
    own.write(chain=own.leaf)
    assert "add the intermediate certificates" in (own.problem() or "")
    own.write(chain=own.leaf + Authority("Hospital Intermediate").pem)
    assert "do not follow from one another" in (own.problem() or "")
    own.write(chain=own.leaf + own.between.pem, ca=Authority("Hospital Root").pem)
    assert "no CA of" in (own.problem() or "")


def test_a_missing_file_is_named_by_its_variable(tmp_path: Path) -> None:
    own = Own(tmp_path, ["alice.example"])
    (tmp_path / "ca.pem").unlink()
    assert "pygrid_tls_ca_file names no file" in (own.problem() or "")


def test_a_key_in_the_wrong_file_goes_nowhere(tmp_path: Path) -> None:
    own = Own(tmp_path, ["alice.example"])
    own.write(chain=own.leaf + own.between.pem + key_pem(own.key), ca=own.root.pem + key_pem(own.key))
    variables = {
        "pygrid_tls_source": "files",
        "pygrid_tls_certificate_file": str(tmp_path / "chain.pem"),
        "pygrid_tls_ca_file": str(tmp_path / "ca.pem"),
    }
    hostvars = {**HOSTVARS, "alice": variables}
    sent = str(filters.machine_certificates(grid(), "alice", hostvars, "grid_ca"))
    assert "BEGIN CERTIFICATE" in sent
    assert "PRIVATE" not in sent + filters.further_authorities(grid(), hostvars)


def test_the_thumbprint_is_that_of_the_standard() -> None:
    # RFC 7638 by hand for a key whose numbers begin with a zero byte is where shortcuts fail, so one is searched for.
    key = next(
        key
        for key in (ec.generate_private_key(ec.SECP256R1()) for _number in range(20000))
        if key.public_key().public_numbers().x < 1 << 248
    )
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    x, y = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (point[1:33], point[33:]))
    text = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    expected = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    assert filters.acme_thumbprint(key_pem(key)) == expected


# The grid CA on the controller.


def test_the_state_of_the_grid_ca_is_right_at_every_step_of_a_change(tmp_path: Path) -> None:
    def state() -> tuple[str, int, bool, bool]:
        found = filters.grid_authority(str(tmp_path))
        return found["certificate"], found["trusted"].count("CA;"), found["former"], found["next"]

    def write(where: str, *names: str) -> None:
        (tmp_path / where).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / where / name).write_text(f"{where}'s CA;")

    assert state() == ("", 0, False, False)
    write("current", "grid-ca.pem")
    assert state() == ("current's CA;", 1, False, False)
    write("next", "grid-ca.pem")
    assert state() == ("current's CA;", 1, False, False)  # not complete without the link
    write("next", "link.pem")
    assert state() == ("current's CA;", 2, False, True)
    (tmp_path / "current").rename(tmp_path / "former")
    assert state() == ("next's CA;", 2, True, True)  # killed between the two renames
    (tmp_path / "next").rename(tmp_path / "current")
    assert state() == ("next's CA;", 2, True, False)
    assert filters.grid_authority(str(tmp_path))["link"] == "next's CA;"
    shutil.rmtree(tmp_path / "former")
    assert state() == ("next's CA;", 1, False, False)
    assert filters.grid_authority(str(tmp_path))["link"] == ""
