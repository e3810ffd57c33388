# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL uses it: what a server stores, and what a client proves.

A server that holds the verifier can check a password and cannot tell it, so the password stays where it was made.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

METHOD = "SCRAM-SHA-256"
# What PostgreSQL itself takes; a password of 256 random bits needs no slowing down.
ITERATIONS = 4096
# gs2 header of a client without channel binding, and the same as the last message repeats it.
_NO_BINDING = "n,,"
_NO_BINDING_BASE64 = "biws"


def verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """What ``ALTER ROLE ... PASSWORD`` takes in place of the password; the same for the same salt.

    The form is that of pg_authid.rolpassword, ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``.
    """
    keys = _Keys.derive(password, salt, iterations)
    return f"{METHOD}${iterations}:{_encode(salt)}${_encode(keys.stored)}:{_encode(keys.server)}"


@dataclass(frozen=True)
class _Keys:
    client: bytes
    stored: bytes
    server: bytes

    @classmethod
    def derive(cls, password: str, salt: bytes, iterations: int) -> _Keys:
        salted = hashlib.pbkdf2_hmac("sha256", _prepare(password), salt, iterations)
        client = _hmac(salted, b"Client Key")
        return cls(client, hashlib.sha256(client).digest(), _hmac(salted, b"Server Key"))


class ScramLogin:
    """The client's side of one login; no name is sent, for PostgreSQL takes that of the start-up message."""

    def __init__(self, password: str, nonce: str = "") -> None:
        self._password = password
        self._nonce = nonce or secrets.token_urlsafe(18)
        self._first = f"n=,r={self._nonce}"
        self._signature = b""

    def first(self) -> bytes:
        return (_NO_BINDING + self._first).encode()

    def final(self, challenge: bytes) -> bytes:
        """The answer to the server's first message."""
        given = _attributes(challenge)
        nonce, iterations = given.get("r", ""), given.get("i", "")
        if not nonce.startswith(self._nonce) or not iterations.isdigit() or "s" not in given:
            raise PygridError("the server's answer to the login is no SCRAM-SHA-256; is it PostgreSQL?")
        keys = _Keys.derive(self._password, base64.b64decode(given["s"]), int(iterations))
        bare = f"c={_NO_BINDING_BASE64},r={nonce}"
        signed = f"{self._first},{challenge.decode()},{bare}".encode()
        proof = bytes(one ^ other for one, other in zip(keys.client, _hmac(keys.stored, signed)))
        self._signature = _hmac(keys.server, signed)
        return f"{bare},p={_encode(proof)}".encode()

    def check(self, outcome: bytes) -> None:
        """Make sure that the server, too, knows the password's verifier."""
        given = base64.b64decode(_attributes(outcome).get("v", ""))
        if not hmac.compare_digest(given, self._signature):
            raise PygridError("the server cannot prove that it knows the account; another one answers in its place")


def _attributes(message: bytes) -> dict[str, str]:
    return dict(part.split("=", 1) for part in message.decode().split(",") if "=" in part)


def _prepare(password: str) -> bytes:
    """SASLprep (RFC 4013): no effect on ASCII; like PostgreSQL, what it cannot map is taken as it is."""
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(letter) else letter for letter in password if not stringprep.in_table_b1(letter)
    )
    return unicodedata.normalize("NFKC", mapped).encode()


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
