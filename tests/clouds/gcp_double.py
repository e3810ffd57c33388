# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lists instances as Google Compute Engine does, and checks both sides with Google's description.

The description is the discovery document that Google ships in its package google-api-python-client: a parameter that
the method does not have is refused with 400, and an answer that does not fit its schema becomes a 500.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.servers import Asked

ACCOUNT = "inventory@heart-study.iam.gserviceaccount.com"
TYPES = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "object": dict, "array": list}


@cache
def description() -> dict[str, Any]:
    """Google's own, of Compute Engine."""
    return json.loads(files("googleapiclient").joinpath("discovery_cache/documents/compute.v1.json").read_text())


def misfits(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """What of a value does not fit a schema; names that the schema does not have are misfits, too."""
    if "$ref" in schema:
        schema = description()["schemas"][schema["$ref"]]
    kind = schema.get("type", "any")
    if kind != "any" and not isinstance(value, TYPES[kind]):
        yield f"{where} is {value!r}, no {kind}"
    elif kind == "array":
        for number, item in enumerate(value):
            yield from misfits(item, schema["items"], f"{where}[{number}]")
    elif kind == "object":
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, item in value.items():
            if name not in known and others is None:
                yield f"{where} has {name}, which there is not"
            else:
                yield from misfits(item, known.get(name, others), f"{where}.{name}")
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}, which it cannot be"


class Compute:
    """Instances by project and zone, for one service account.

    ``unreachable``: zones that do not answer; ``key``: the account's, with which Google's SDK signs what it shows.
    """

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.instances: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.unreachable: list[str] = []

    def add(self, project: str, zone: str, name: str, labels: dict[str, str], public: str = "", **more: Any) -> None:
        """Make an instance. ``more``: what else is true of it, in Google's words."""
        zones = self.instances.setdefault(project, {})
        number = sum(map(len, zones.values())) + 1
        base = f"https://www.googleapis.com/compute/v1/projects/{project}/zones/{zone}"
        interface: dict[str, Any] = {"networkIP": f"10.2.{number // 250}.{number % 250 + 1}", "name": "nic0"}
        if public:
            interface["accessConfigs"] = [{"type": "ONE_TO_ONE_NAT", "natIP": public, "name": "External NAT"}]
        zones.setdefault(zone, []).append({
            "id": str(1000 + number), "name": name, "status": "RUNNING", "zone": base, "labels": labels,
            "machineType": f"{base}/machineTypes/e2-standard-4", "networkInterfaces": [interface],
            "kind": "compute#instance", **more,
        })  # fmt: skip

    def service_account(self, project: str) -> dict[str, str]:
        """What Google gives people as the key file of a service account."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account", "project_id": project, "private_key": private.decode(), "private_key_id": "1",
            "client_email": ACCOUNT, "client_id": "1", "token_uri": "http://127.0.0.1:9/token",
        }  # fmt: skip

    def knows(self, authorization: str) -> bool:
        """Whether it is a signed token of the account that has not run out (RFC 7519)."""
        try:
            signed, _dot, signature = authorization.removeprefix("Bearer ").rpartition(".")
            self.key.public_key().verify(_decoded(signature), signed.encode(), PKCS1v15(), SHA256())
            claims = json.loads(_decoded(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            return False
        return claims["iss"] == ACCOUNT and claims["exp"] > time.time()

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        method = description()["resources"]["instances"]["methods"]["aggregatedList"]
        project = path.removeprefix("/compute/v1/projects/").partition("/")[0]
        if path != f"/{description()['servicePath']}{method['path'].replace('{project}', project)}":
            return _error(404, "notFound", f"there is no {path}")
        unknown = set(query) - set(method["parameters"]) - set(description()["parameters"])
        if unknown:
            return _error(400, "badRequest", f"no parameters of the method: {unknown}")
        if project not in self.instances:
            return _error(403, "forbidden", f"Required 'compute.instances.list' permission for '{project}'")
        document = self._page(project, query)
        wrong = list(misfits(document, method["response"], "answer"))
        return _error(500, "internalError", "; ".join(wrong)) if wrong else (200, document)

    def _page(self, project: str, query: dict[str, str]) -> dict[str, Any]:
        label = query.get("filter", "").removeprefix("labels.").removesuffix(":*")
        found = [
            (zone, instance)
            for zone, instances in self.instances[project].items()
            for instance in instances
            if not label or label in instance["labels"]
        ]
        size, begin = int(query.get("maxResults", 500)), int(query.get("pageToken", 0))
        items: dict[str, Any] = {"zones/europe-west9-a": _warning("NO_RESULTS_ON_PAGE", "There are no results")}
        for zone, instance in found[begin : begin + size]:
            items.setdefault(f"zones/{zone}", {"instances": []})["instances"].append(instance)
        for zone in self.unreachable:
            items[f"zones/{zone}"] = _warning("UNREACHABLE", f"{zone} did not answer")
        document = {"kind": "compute#instanceAggregatedList", "id": f"projects/{project}", "items": items}
        if begin + size < len(found):
            document["nextPageToken"] = str(begin + size)
        return document

    def asked(self, request: Asked) -> tuple[int, dict[str, Any]]:
        """Answer a request of somebody with a signed token."""
        if not self.knows(request.headers.get("Authorization") or ""):
            return _error(401, "required", "Request had invalid authentication credentials.")
        return self.answer(request.path, request.query)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _warning(code: str, message: str) -> dict[str, Any]:
    return {"warning": {"code": code, "message": message, "data": []}}


def _error(status: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": status, "message": message, "errors": [{"message": message, "reason": reason}]}}
