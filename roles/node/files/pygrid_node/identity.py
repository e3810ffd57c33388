# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""identity.json: who a node is, and its secrets. Born on the host that needs them, mode 0600.

This module never imports syft: creating an identity must take milliseconds, not seconds.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import NodeError
from .files import create_private_text, read_private_text

MINIMUM_PASSWORD_LENGTH = 12
# syft's own default first (S/server/env.py), then what people type instead of thinking.
DEFAULT_PASSWORDS = ("changethis", "changeme", "password", "openmined", "letmein", "secret", "admin", "pygrid", "syft")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PUBLIC = ("uid", "verify_key", "root_email", "queue_public_key")
_FIELDS = {
    "network": ("uid", "private_key", "verify_key", "root_email", "root_password"),
    "domain": (
        "uid", "private_key", "verify_key", "root_email", "root_password", "queue_public_key", "queue_secret_key",
    ),
    "worker": ("uid", "queue_public_key", "queue_secret_key"),
}  # fmt: skip
_OWN_VALUES = ("uid", "private_key", "root_email", "root_password")


@dataclass(frozen=True, repr=False)
class Identity:
    """A node's identity; which fields are set depends on its kind (see _FIELDS)."""

    uid: str
    private_key: str | None = None
    verify_key: str | None = None
    root_email: str | None = None
    root_password: str | None = None
    queue_public_key: str | None = None
    queue_secret_key: str | None = None

    def public(self) -> dict[str, str]:
        """The part that may be shown."""
        return {key: value for key, value in asdict(self).items() if key in _PUBLIC and value is not None}

    def secrets(self) -> list[str]:
        """The values that must appear in no log."""
        return [value for key, value in asdict(self).items() if key not in _PUBLIC and value is not None]

    def __repr__(self) -> str:
        return f"Identity(uid={self.uid!r})"


def create_identity(path: Path, kind: str, own: Mapping[str, Any] | None = None) -> tuple[Identity, bool]:
    """Create the identity file unless there is one.

    Args:
        path: the file; its folder must exist.
        kind: network, domain or worker.
        own: values the user brings (uid, private_key, root_email, root_password); the rest is random.

    Returns:
        The identity on disk, and whether this call created it.

    Raises:
        NodeError: a value is unusable, or the file there is unusable or belongs to another identity than `own` says.
    """
    own = _checked_own_values(kind, own or {})
    if not path.exists():
        identity = _new_identity(kind, own)
        text = json.dumps({key: getattr(identity, key) for key in _FIELDS[kind]}, indent=2) + "\n"
        if create_private_text(path, text):
            return identity, True
    identity = load_identity(path, kind)
    for key, value in own.items():
        if getattr(identity, key) != value:
            raise NodeError(f"identity {path}: exists already, with another {key} than the one given")
    return identity, False


def load_identity(path: Path, kind: str | None = None) -> Identity:
    """Read and validate an identity file; `kind` None takes the kind from the fields that are there.

    Raises:
        NodeError: missing, readable by others, incomplete, inconsistent, or with a default or weak secret.
    """
    try:
        document = json.loads(read_private_text(path, "identity"))
    except ValueError:
        # The parser's message would quote the content.
        raise NodeError(f"identity {path}: not valid JSON") from None
    try:
        if not isinstance(document, dict):
            raise NodeError("must be a JSON object")
        return _checked(document, kind or _kind_of(document))
    except NodeError as error:
        raise NodeError(f"identity {path}: {error}") from None


def _kind_of(document: Mapping[str, Any]) -> str:
    if "private_key" not in document:
        return "worker"
    return "domain" if "queue_secret_key" in document else "network"


def _checked_own_values(kind: str, own: Mapping[str, Any]) -> dict[str, str]:
    own = {key: value for key, value in own.items() if value is not None}
    unknown = sorted(set(own) - set(_OWN_VALUES))
    if unknown:
        raise NodeError(f"unknown key {unknown[0]!r}; known are {', '.join(_OWN_VALUES)}")
    for key, value in own.items():
        if key not in _FIELDS[kind]:
            raise NodeError(f"a {kind} has no {key}")
        if not isinstance(value, str):
            raise NodeError(f"{key} must be text")
    if "uid" in own:
        own["uid"] = _uid(own["uid"])
    if "private_key" in own:
        own["private_key"] = own["private_key"].lower()
        _verify_key(own["private_key"])
    if "root_email" in own:
        _check_email(own["root_email"])
    if "root_password" in own:
        _check_password(own["root_password"])
    return own


def _new_identity(kind: str, own: Mapping[str, str]) -> Identity:
    values: dict[str, str] = {"uid": uuid.uuid4().hex}
    if kind != "worker":
        values["private_key"] = secrets.token_hex(32)
        values["root_email"] = "root@pygrid.example"
        values["root_password"] = secrets.token_urlsafe(24)
    values.update(own)
    if kind != "worker":
        values["verify_key"] = _verify_key(values["private_key"])
    if kind != "network":
        import zmq

        public, secret = zmq.curve_keypair()
        values["queue_public_key"], values["queue_secret_key"] = public.decode(), secret.decode()
    return Identity(**values)


def _checked(document: Mapping[str, Any], kind: str) -> Identity:
    unknown = sorted(set(document) - set(_FIELDS[kind]))
    if unknown:
        raise NodeError(f"unknown key {unknown[0]!r} for a {kind}")
    for key in _FIELDS[kind]:
        value = document.get(key)
        if not isinstance(value, str) or not value:
            raise NodeError(f"{key} is missing")
    values = dict(document)
    values["uid"] = _uid(values["uid"])
    if "private_key" in values and _verify_key(values["private_key"]) != values["verify_key"]:
        raise NodeError("verify_key does not belong to private_key")
    if "root_email" in values:
        _check_email(values["root_email"])
        _check_password(values["root_password"])
    if "queue_secret_key" in values:
        _check_queue_keys(values["queue_public_key"], values["queue_secret_key"])
    return Identity(**values)


def _uid(value: str) -> str:
    """The 32 hex digits of a version-4 UUID: syft <= 0.9.1 breaks on other versions, and a guessable one is no id."""
    try:
        uid = uuid.UUID(value)
    except ValueError:
        raise NodeError("uid must be a version-4 UUID") from None
    if uid.version != 4:
        raise NodeError(f"uid must be a version-4 UUID, not version {uid.version}")
    return uid.hex


def _verify_key(private_key: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", private_key):
        raise NodeError("private_key must be 64 lower-case hex digits")
    if len(set(bytes.fromhex(private_key))) < 8:
        raise NodeError("private_key is not random")
    from nacl.signing import SigningKey

    return SigningKey(bytes.fromhex(private_key)).verify_key.encode().hex()


def _check_email(value: str) -> None:
    if not _EMAIL.fullmatch(value):
        raise NodeError("root_email is not an email address")


def _check_password(value: str) -> None:
    if value.strip().lower() in DEFAULT_PASSWORDS:
        raise NodeError("root_password is a default password; choose another one")
    if len(value) < MINIMUM_PASSWORD_LENGTH:
        raise NodeError(f"root_password is shorter than {MINIMUM_PASSWORD_LENGTH} characters")
    if len(set(value)) < 4:
        raise NodeError("root_password is not random")


def _check_queue_keys(public: str, secret: str) -> None:
    import zmq

    try:
        derived = zmq.curve_public(secret.encode("ascii")).decode()
    except (ValueError, zmq.ZMQError):
        raise NodeError("queue_secret_key is not a Z85 CURVE key") from None
    if derived != public:
        raise NodeError("queue_public_key does not belong to queue_secret_key")
