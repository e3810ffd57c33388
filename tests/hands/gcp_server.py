# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A double of Google Compute Engine that keeps books, and is checked on both sides with Google's description.

The description is the discovery document in Google's package google-api-python-client: a method, a parameter or a field
of a request that it does not have is refused, and an answer that does not fit its schema becomes a 500.

Modules of google.cloud know Google's addresses and no others. So this is a proxy (HTTPS_PROXY) that opens no way to
Google but is Google itself, with certificates of an authority that only the tests trust (REQUESTS_CA_BUNDLE).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import trustme
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from tests.clouds.gcp_double import description, misfits

from .gcp_books import DEBIAN, MACHINE_TYPES, PROJECT, REGIONS, Books, Place, Refused, Thing, machine_type

HOSTS = ("compute.googleapis.com", "www.googleapis.com", "oauth2.googleapis.com", "iamcredentials.googleapis.com")
ACCOUNT = f"provision@{PROJECT}.iam.gserviceaccount.com"
TOKEN_SECONDS = 3600
# How long hands have to stop a host, or to boot one and to plug its volumes in.
HANDS_SECONDS = 10
FILTER = re.compile(r"\(?(labels\.[a-z0-9_-]+|[a-z][A-Za-z]*) ?(=|:) ?\"?([^\"()]*)\"?\)?")


class Identity:
    """Files in a folder: the key of a service account, and an authority with a certificate for Google's names."""

    def __init__(self, folder: Path) -> None:
        self.key, self.bundle, self.certificate = (folder / name for name in ("key.json", "ca.pem", "google.pem"))
        if not self.key.exists():
            self._make(folder)
        told = json.loads(self.key.read_text())
        private = serialization.load_pem_private_key(told["private_key"].encode(), None)
        assert isinstance(private, rsa.RSAPrivateKey)
        self._public = private.public_key()
        self._tokens: dict[str, float] = {}

    def _make(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.bundle)
        authority.issue_cert(*HOSTS).private_key_and_cert_chain_pem.write_to_path(self.certificate)
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        told = {
            "type": "service_account", "project_id": PROJECT, "private_key": private.decode(), "private_key_id": "1",
            "client_email": ACCOUNT, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
        }  # fmt: skip
        self.key.touch(mode=0o600)
        self.key.write_text(json.dumps(told))

    def environment(self, port: int, host: str = "127.0.0.1") -> dict[str, str]:
        """Variables with which Google's libraries come here."""
        return {
            "HTTPS_PROXY": f"http://{host}:{port}",
            "REQUESTS_CA_BUNDLE": str(self.bundle),
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.key),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
        }

    def token(self, assertion: str) -> Thing:
        """A token for who shows a signed request (RFC 7523)."""
        if not self.signed(assertion):
            raise Refused(400, "invalid_grant", "Invalid JWT Signature.")
        token = secrets.token_urlsafe()
        self._tokens[token] = time.time() + TOKEN_SECONDS
        return {"access_token": token, "expires_in": TOKEN_SECONDS, "token_type": "Bearer"}

    def knows(self, authorization: str) -> bool:
        shown = authorization.removeprefix("Bearer ")
        return self._tokens.get(shown, 0) > time.time() or self.signed(shown)

    def signed(self, shown: str) -> bool:
        """Whether it is a signed token of the account that has not run out (RFC 7519)."""
        try:
            signed, _dot, signature = shown.rpartition(".")
            self._public.verify(decoded(signature), signed.encode(), PKCS1v15(), SHA256())
            claims = json.loads(decoded(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            return False
        return claims["iss"] == ACCOUNT and claims["exp"] > time.time()


@dataclass(frozen=True)
class Method:
    """A method of the description."""

    id: str
    verb: str
    path: re.Pattern[str]
    parameters: dict[str, Any]
    request: dict[str, Any] | None
    response: dict[str, Any]


@cache
def methods() -> tuple[Method, ...]:
    found = []
    for resource in description()["resources"].values():
        for method in resource.get("methods", {}).values():
            path = re.sub(r"\{\+?([A-Za-z]+)\}", r"(?P<\1>[^/]+)", method.get("flatPath", method["path"]))
            found.append(
                Method(
                    method["id"],
                    method["httpMethod"],
                    re.compile(path),
                    method.get("parameters", {}),
                    method.get("request"),
                    method.get("response", {}),
                )
            )
    return tuple(found)


class Google:
    """Answers requests out of its books, one after the other."""

    def __init__(self, identity: Identity, books: Books | None = None) -> None:
        self.identity, self.books = identity, books or Books()
        #: Ids of the methods that were asked for, for tests that look at what was done.
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def answer(self, verb: str, url: str, authorization: str, content: bytes) -> tuple[int, Thing]:
        try:
            asked = urlsplit(url)
            if asked.path == "/token":
                return 200, self.identity.token(parse_qs(content.decode())["assertion"][0])
            if not self.identity.knows(authorization):
                raise Refused(401, "required", "Request had invalid authentication credentials.")
            query = {name: values[0] for name, values in parse_qs(asked.query, keep_blank_values=True).items()}
            body = json.loads(content) if content and content != b"null" else {}
            method, words = self._method(verb, unquote(asked.path), query, body)
            with self._lock:
                self.books.settle()
                self.asked.append(method.id)
                document = self._do(method, words, query, body)
            wrong = list(misfits(document, method.response, "answer"))
            if wrong:
                raise Refused(500, "internalError", "; ".join(wrong))
            return 200, document
        except Refused as error:
            told = {"code": error.status, "message": error.message}
            return error.status, {"error": {**told, "errors": [{"message": error.message, "reason": error.reason}]}}

    def _method(self, verb: str, path: str, query: Thing, body: Thing) -> tuple[Method, dict[str, str]]:
        rest = path.removeprefix(f"/{description()['servicePath']}")
        for method in methods():
            match = method.path.fullmatch(rest)
            if not match or method.verb != verb:
                continue
            unknown = set(query) - set(method.parameters) - set(description()["parameters"])
            wrong = [f"{name} is no parameter of {method.id}" for name in unknown]
            words = match.groupdict()
            for name, value in {**words, **query}.items():
                told = method.parameters.get(name, {})
                if "pattern" in told and not re.fullmatch(told["pattern"], value):
                    wrong.append(f"{name} cannot be {value!r}")
                if told.get("type") == "boolean" and value.lower() not in ("true", "false"):
                    wrong.append(f"{name} is {value!r}, no boolean")
            if method.request:
                wrong += misfits(flexible(body), method.request, "request")
            if wrong:
                raise Refused(400, "badRequest", "; ".join(wrong))
            return method, words
        raise Refused(404, "notFound", f"there is no {verb} {path}")

    def _do(self, method: Method, words: dict[str, str], query: Thing, body: Thing) -> Thing:
        _compute, kind, verb = method.id.split(".")
        project = words["project"]
        if project != PROJECT and not (project == DEBIAN and kind == "images" and verb in ("get", "list")):
            raise Refused(403, "forbidden", f"Required '{method.id}' permission for '{project}'")
        scope = next((f"{one}s/{words[one]}" for one in ("zone", "region") if one in words), "global")
        self._see_scope(scope)
        if kind.endswith("Operations"):
            return self._operation(verb, words["operation"])
        if verb == "list":
            return self._list(kind, project, scope, query)
        if verb == "aggregatedList":
            return self._aggregated(kind, project, query)
        name = words.get("resource") or words.get(KEYS.get(kind, "")) or body.get("name", "")
        place = Place(project, scope, kind, name)
        if kind == "machineTypes":
            return machine_type(place)
        if verb == "get":
            return self.books.find(place)
        if verb == "insert":
            return self.books.insert(method.id, place, body)
        if verb == "delete":
            return self.books.delete(method.id, place)
        return self.books.change(method.id, place, query, body)

    def _see_scope(self, scope: str) -> None:
        zones = {f"zones/{region}-{letter}" for region, letters in REGIONS.items() for letter in letters}
        if scope != "global" and scope not in zones | {f"regions/{region}" for region in REGIONS}:
            raise Refused(404, "notFound", f"The resource '{scope}' was not found")

    def _operation(self, verb: str, name: str) -> Thing:
        operation = self.books.operations.get(name)
        if operation is None:
            raise Refused(404, "notFound", f"There is no operation {name}")
        end = time.monotonic() + self.books.seconds * 3
        while verb == "wait" and operation["status"] != "DONE" and time.monotonic() < end:
            time.sleep(0.05)
            self.books.settle()
        return operation

    def _list(self, kind: str, project: str, scope: str, query: Thing) -> Thing:
        if kind == "machineTypes":
            items = [machine_type(Place(project, scope, kind, name)) for name in MACHINE_TYPES]
        else:
            items = [
                thing
                for place, thing in self.books.things.items()
                if (place.kind, place.project, place.scope) == (kind, project, scope) and fits(thing, query)
            ]
        document = {"kind": f"compute#{kind[:-1]}List", "id": f"projects/{project}/{scope}/{kind}"}
        # Google leaves an empty list out.
        return {**document, "items": items} if items else document

    def _aggregated(self, kind: str, project: str, query: Thing) -> Thing:
        items: Thing = {}
        for region, letters in REGIONS.items():
            for scope in [f"zones/{region}-{letter}" for letter in letters]:
                found = self._list(kind, project, scope, query).get("items")
                warning = {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results", "data": []}
                items[scope] = {kind: found} if found else {"warning": warning}
        return {"kind": f"compute#{kind[:-1]}AggregatedList", "id": f"projects/{project}", "items": items}


#: The parameter of a path that names a thing of a kind.
KEYS = {
    "addresses": "address", "disks": "disk", "firewalls": "firewall", "images": "image", "instances": "instance",
    "networks": "network", "routers": "router", "subnetworks": "subnetwork", "machineTypes": "machineType",
}  # fmt: skip


def flexible(value: Any) -> Any:
    """As Google reads requests: numbers are taken for int64, of which the description says that they are strings."""
    if isinstance(value, dict):
        return {name: str(item) if name in LONG else flexible(item) for name, item in value.items() if item is not None}
    return [flexible(item) for item in value] if isinstance(value, list) else value


LONG = {"sizeGb", "diskSizeGb"}


def fits(thing: Thing, query: Thing) -> bool:
    """Whether a thing is one that the filter asks for."""
    if not query.get("filter"):
        return True
    match = FILTER.fullmatch(query["filter"])
    if not match:
        raise Refused(400, "invalid", f"Invalid value for field 'filter': '{query['filter']}'.")
    name, _operator, value = match.groups()
    has = thing.get("labels", {}).get(name.removeprefix("labels.")) if "." in name else thing.get(name)
    return has is not None if value == "*" else has == value


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Handler(BaseHTTPRequestHandler):
    """A proxy for one client after another; what comes through it never leaves."""

    protocol_version = "HTTP/1.1"
    google: ClassVar[Google]
    context: ClassVar[ssl.SSLContext]

    def do_CONNECT(self) -> None:
        host = self.path.partition(":")[0]
        if host not in HOSTS:
            self.send_error(403, f"{host} is not Google's")
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = Writer(self.connection)
        self.close_connection = False

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        authorization = self.headers.get("Authorization") or ""
        status, document = self.google.answer(self.command, self.path, authorization, content)
        encoded = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _answer

    def log_message(self, form: str, *arguments: object) -> None:
        if arguments and not str(arguments[0]).startswith("CONNECT"):
            print(time.strftime("%H:%M:%S"), form % arguments, flush=True)


class Writer:
    """Writes to a socket at once."""

    closed = False

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection

    def write(self, content: bytes) -> int:
        self._connection.sendall(content)
        return len(content)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self.closed = True


def listener(google: Google, host: str, port: int) -> ThreadingHTTPServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(google.identity.certificate)
    handler = type("OfGoogle", (Handler,), {"google": google, "context": context})
    ThreadingHTTPServer.daemon_threads = True
    return ThreadingHTTPServer((host, port), handler)


@contextlib.contextmanager
def running(google: Google) -> Iterator[int]:
    """Answer on a port of the loopback address, which is yielded."""
    with listener(google, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.hands.gcp_server", description=__doc__)
    for name in ("folder", "host"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    books = Books(power_seconds=HANDS_SECONDS)
    with listener(Google(Identity(Path(given.folder)), books), given.host, given.port) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
