# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blobs as objects of an S3 bucket, which a Domain and its Workers use alike; with a cache like that of the channel."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, SSLError
from urllib3.exceptions import HTTPError

from .blob_cache import BlobCache
from .blob_store import BlobError, BlobMissing, checked_url, digest_of
from .errors import NodeError
from .files import read_private_text

_DIGEST = "sha256"  # the name of the metadata that says what a content must be
_DOWNLOADS = 3  # a connection that breaks in the middle of a content is tried again so often; botocore retries the rest
_ATTEMPTS = 8  # with pauses of up to 20 s: a server that is restarted is away for less
_MISSING = ("404", "NoSuchKey", "NotFound")
_CONFIG = {
    "signature_version": "s3v4",
    "connect_timeout": 10,
    "read_timeout": 60,
    "s3": {"addressing_style": "path"},  # a server of one's own has no certificate for a name for each bucket
}


@dataclass(frozen=True)
class S3Credentials:
    """Where the bucket is, and the keys to it: s3.json."""

    endpoint: str
    region: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    prefix: str = ""


def load_s3_credentials(path: Path) -> S3Credentials:
    """Read and validate s3.json.

    Raises:
        NodeError: missing, readable by everybody, or with a wrong, missing or unknown key.
    """
    try:
        document = json.loads(read_private_text(path, "S3 credentials"))
    except ValueError:
        raise NodeError(f"S3 credentials {path}: not valid JSON") from None  # the parser would quote the content
    try:
        return _checked(document)
    except NodeError as error:
        raise NodeError(f"S3 credentials {path}: {error}") from None


def _checked(document: Any) -> S3Credentials:
    if not isinstance(document, Mapping):
        raise NodeError("must be a JSON object")
    values: dict[str, str] = {}
    for key in ("endpoint", "region", "bucket", "access_key", "secret_key"):
        value = document.get(key)
        if not isinstance(value, str) or not value.strip():
            raise NodeError(f"{key} is missing")
        values[key] = value
    values["prefix"] = document.get("prefix") or ""
    unknown = sorted(set(document) - set(values))
    if unknown:
        raise NodeError(f"unknown key {unknown[0]!r}")
    values["endpoint"] = checked_url(values["endpoint"], "endpoint")
    prefix = values["prefix"]
    if not isinstance(prefix, str) or prefix.startswith("/") or ".." in prefix.split("/"):
        raise NodeError("prefix must be text like grid/alice")
    values["prefix"] = prefix.rstrip("/") + "/" if prefix else ""
    return S3Credentials(**values)


class S3Store:
    """One object for each blob.

    Args:
        credentials: the bucket and its keys.
        cache: this node's copies.
        trust_file: PEM file of the authorities that may vouch for the server; None for the system's.
    """

    def __init__(self, credentials: S3Credentials, cache: BlobCache, trust_file: Path | None = None) -> None:
        self._where, self._cache = credentials, cache
        self._trust_file = trust_file
        self._client = self._connect(_ATTEMPTS)

    def _connect(self, attempts: int) -> Any:
        """A client; its connections are made when they are needed."""
        where = self._where
        # A session of its own: boto3's default one would look for keys all over the machine.
        session = boto3.session.Session(where.access_key, where.secret_key, region_name=where.region)
        return session.client(
            "s3",
            endpoint_url=where.endpoint,
            verify=str(self._trust_file) if self._trust_file else True,
            config=Config(**_CONFIG, retries={"mode": "standard", "max_attempts": attempts}),
        )

    def read(self, name: str) -> bytes:
        held = self._cache.version(name)
        if held:
            digest = self._digest(self._call("head_object", name))
            data = self._cache.get(name, held) if digest == held else None
            if data is not None:
                return data
        for tries_left in reversed(range(_DOWNLOADS)):
            answer = self._call("get_object", name)
            digest = self._digest(answer)
            try:
                data = answer["Body"].read()
                break
            except (BotoCoreError, HTTPError, OSError) as error:
                if not tries_left:
                    raise self._error(error) from None
        if digest_of(data) != digest:
            raise BlobError(f"blob {name} in {self._place} is damaged: its content is not what was written")
        self._cache.put(name, digest, data)
        return data

    def write(self, name: str, data: bytes) -> None:
        digest = digest_of(data)
        try:
            # In parts when it is large, and unseen until the last part is there.
            self._client.upload_fileobj(
                io.BytesIO(data), self._where.bucket, self._key(name), ExtraArgs={"Metadata": {_DIGEST: digest}}
            )
        except (Boto3Error, BotoCoreError, ClientError, OSError) as error:
            raise self._error(error) from None
        self._cache.put(name, digest, data)

    def delete(self, name: str) -> None:
        self._cache.drop(name)
        self._call("head_object", name)  # to delete what is not there is no error in S3, but one for upstream
        self._call("delete_object", name)

    def problem(self) -> str:
        try:
            client = self._connect(1)
            client.list_objects_v2(Bucket=self._where.bucket, Prefix=self._where.prefix, MaxKeys=1)
        except (BotoCoreError, ClientError, OSError) as error:
            return str(self._error(error))
        return ""

    @property
    def _place(self) -> str:
        return f"bucket {self._where.bucket} at {self._where.endpoint}"

    def _key(self, name: str) -> str:
        return f"{self._where.prefix}{name}"

    def _call(self, operation: str, name: str) -> dict[str, Any]:
        try:
            return getattr(self._client, operation)(Bucket=self._where.bucket, Key=self._key(name))
        except ClientError as error:
            if _code(error) in _MISSING:
                self._cache.drop(name)
                raise BlobMissing(name) from None
            raise self._error(error) from None
        except (BotoCoreError, OSError) as error:
            raise self._error(error) from None

    def _digest(self, answer: Mapping[str, Any]) -> str:
        digest = answer["Metadata"].get(_DIGEST)
        if not digest:
            raise BlobError(f"an object in {self._place} has no {_DIGEST}: it was not written by a node")
        return str(digest)

    def _error(self, error: Exception) -> BlobError:
        """One line for what went wrong; botocore's own texts name the endpoint, but never a key's secret."""
        if isinstance(error, ClientError):
            text = f"{_code(error)}: {error.response.get('Error', {}).get('Message', '')}"
        elif isinstance(error, SSLError):
            text = "it has no certificate this node trusts"
        else:
            text = f"{type(error).__name__}: {error}"
        return BlobError(" ".join(f"cannot use {self._place}: {text}".split())[:400])


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
