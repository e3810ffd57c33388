# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node's own host keeps of its database: the URL, the password, the verifier that may leave."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils.database_accounts import AccountFiles, find_route
from ansible_collections.openmined.pygrid.plugins.module_utils.database_scram import ScramLogin, verifier
from ansible_collections.openmined.pygrid.plugins.module_utils.database_url import DatabaseUrl, parse_url
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, NodePaths

# RFC 7677, section 3: the password "pencil" with this salt.
RFC_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_VERIFIER = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
WANTED = DatabaseUrl(user="pygrid_alice", password="", host="127.0.0.1", port=5432, database="pygrid_alice")


@pytest.fixture
def node(tmp_path: Path) -> NodePaths:
    node = Home(tmp_path).node("alice")
    node.root.mkdir(parents=True)
    return node


def test_verifier_is_that_of_the_rfc() -> None:
    assert verifier("pencil", RFC_SALT) == RFC_VERIFIER


def test_verifier_of_letters_beyond_ascii() -> None:
    # SASLprep: the ligature and its two letters, the no-break space and the space, are the same password.
    assert verifier("o\ufb03ce\u00a0key", RFC_SALT) == verifier("office key", RFC_SALT)


def test_login_proves_the_password_to_whoever_has_the_verifier() -> None:
    login = ScramLogin("pencil", nonce="abc")
    assert login.first() == b"n,,n=,r=abc"
    challenge = "r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    final = login.final(challenge.encode()).decode()
    bare, _comma, proof = final.rpartition(",p=")
    assert bare == "c=biws,r=abcdef"
    # The server's side, from the verifier alone.
    stored, server = (base64.b64decode(key) for key in RFC_VERIFIER.split("$")[2].split(":"))
    signed = f"n=,r=abc,{challenge},{bare}".encode()
    signature = hmac.new(stored, signed, hashlib.sha256).digest()
    client = bytes(one ^ other for one, other in zip(base64.b64decode(proof), signature, strict=True))
    assert hashlib.sha256(client).digest() == stored
    login.check(b"v=" + base64.b64encode(hmac.new(server, signed, hashlib.sha256).digest()))
    with pytest.raises(PygridError, match="another one answers"):
        login.check(b"v=" + base64.b64encode(b"0" * 32))


def test_login_refuses_a_nonce_that_is_not_its_own() -> None:
    with pytest.raises(PygridError, match="is it PostgreSQL"):
        ScramLogin("pencil", nonce="abc").final(b"r=xyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("mysql://u:p@h:1/d", "begin with postgresql"),
        ("postgresql://u:p@h/d", "lacks port"),
        ("postgresql://h:5432/d", "lacks user and password"),
        ("postgresql://u:p@h:5432", "lacks database"),
        ("postgresql://u:p@h:5432/d?sslmode=disable", "options"),
        ("postgresql://u:p@h:port/d", "no URL"),
    ],
)
def test_urls_that_the_runtime_could_not_use(text: str, missing: str) -> None:
    with pytest.raises(PygridError, match=missing) as caught:
        parse_url(text)
    assert ":p@" not in str(caught.value)


def test_url_keeps_what_needs_quoting() -> None:
    url = parse_url("postgresql://a%40b:p%2Fw@[fd00::1]:6432/data")
    assert (url.user, url.password, url.host, url.port, url.database) == ("a@b", "p/w", "fd00::1", 6432, "data")
    assert url.text == "postgresql://a%40b:p%2Fw@[fd00::1]:6432/data"
    assert "p/w" not in repr(url)
    assert "p%2Fw" not in url.public


def test_password_is_made_once(node: NodePaths) -> None:
    files = AccountFiles(node)
    first = files.own(WANTED, renew=False, dry_run=False)
    assert first.changed
    assert len(parse_url(node.database_url.read_text()).password) >= 32
    assert {file.stat().st_mode & 0o777 for file in node.root.iterdir()} == {0o600}
    again = files.own(WANTED, renew=False, dry_run=False)
    assert not again.changed
    assert again.verifier == first.verifier


def test_password_stays_when_the_database_moves(node: NodePaths) -> None:
    files = AccountFiles(node)
    first = files.own(WANTED, renew=False, dry_run=False)
    moved = files.own(
        DatabaseUrl(user="pygrid_alice", password="", host="db.example", port=6432, database="pygrid_alice"),
        renew=False,
        dry_run=False,
    )
    assert moved.changed
    assert moved.verifier == first.verifier
    assert node.database_url.read_text().endswith("@db.example:6432/pygrid_alice\n")


def test_renewed_password_is_another_one(node: NodePaths) -> None:
    files = AccountFiles(node)
    first = files.own(WANTED, renew=False, dry_run=False)
    assert files.own(WANTED, renew=True, dry_run=True).verifier is None
    assert files.own(WANTED, renew=False, dry_run=False).verifier == first.verifier
    renewed = files.own(WANTED, renew=True, dry_run=False)
    assert renewed.verifier not in (None, first.verifier)
    assert files.own(WANTED, renew=False, dry_run=False).verifier == renewed.verifier


@pytest.mark.parametrize("damaged", ["database.url", "database.salt"])
def test_damaged_files_are_made_anew(node: NodePaths, damaged: str) -> None:
    files = AccountFiles(node)
    files.own(WANTED, renew=False, dry_run=False)
    (node.root / damaged).write_text("?\n")
    assert files.own(WANTED, renew=False, dry_run=False).changed
    assert not files.own(WANTED, renew=False, dry_run=False).changed


def test_given_url_is_kept_and_its_password_is_never_taken_for_ours(node: NodePaths) -> None:
    files = AccountFiles(node)
    own = files.own(WANTED, renew=False, dry_run=False)
    given = "postgresql://u:" + "x" * 40 + "@db.example:5432/data"
    assert files.given(given, dry_run=True).changed
    assert own.verifier == files.own(WANTED, renew=False, dry_run=True).verifier
    account = files.given(given, dry_run=False)
    assert account.verifier is None
    assert node.database_url.read_text() == given + "\n"
    assert not files.given(given, dry_run=False).changed
    files.own(WANTED, renew=False, dry_run=False)
    assert "x" * 40 not in node.database_url.read_text()


def test_dry_run_writes_nothing(node: NodePaths) -> None:
    account = AccountFiles(node).own(WANTED, renew=False, dry_run=True)
    assert account.changed
    assert account.verifier is None
    assert list(node.root.iterdir()) == []


def test_route_tells_both_sides() -> None:
    route = find_route("127.0.0.1", 5432)
    assert route.client == ["127.0.0.1"]
    assert route.server == ["127.0.0.1"]
    with pytest.raises(PygridError, match=r"no-such-host\.invalid.*pygrid_address"):
        find_route("no-such-host.invalid", 5432)
