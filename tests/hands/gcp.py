# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The books of a double of Google Compute Engine (gcp_server), which Google's own description checks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.auth.transport.requests import AuthorizedSession
from google.oauth2.service_account import Credentials

from tests.lab.lab import Lab

from .cloud import Booked, Plugged
from .gcp_books import PROJECT, ROOT, resolve
from .gcp_server import Identity

PORT = 5001
REGION = "europe-west4"


def identity(lab: Lab) -> Identity:
    return Identity(lab.folder / "cloud" / "google")


def serve(lab: Lab) -> tuple[list[str], int]:
    """The command that runs the API in the lab's network, and its port."""
    folder = identity(lab).key.parent
    words = ["--folder", str(folder), "--host", lab.network.address(1), "--port", str(PORT)]
    return [sys.executable, "-m", "tests.hands.gcp_server", *words], PORT


def environment(lab: Lab) -> dict[str, str]:
    """How everybody's libraries find the API."""
    return identity(lab).environment(PORT, lab.network.address(1))


class Account:
    """Reads what the API says, as the account of the tests."""

    def __init__(self, identity: Identity, proxy: str) -> None:
        credentials = Credentials.from_service_account_file(str(identity.key), always_use_jwt_access=True)
        self._session = AuthorizedSession(credentials, default_host="compute.googleapis.com")
        self._session.proxies = {"https": proxy}
        self._session.verify = str(identity.bundle)
        self._session.trust_env = False

    def ask(self, verb: str, path: str, **query: str) -> dict[str, Any]:
        """Put a question; ``path`` without the project."""
        answer = self._session.request(verb, f"{ROOT}projects/{PROJECT}/{path}", params=query)
        answer.raise_for_status()
        return answer.json()

    def all(self, kind: str) -> list[dict[str, Any]]:
        """All things of a kind: of instances and disks those of all zones."""
        if kind in ("instances", "disks"):
            items = self.ask("GET", f"aggregated/{kind}")["items"]
            return [thing for answer in items.values() for thing in answer.get(kind, [])]
        scope = "global" if kind in ("networks", "firewalls", "images") else f"regions/{REGION}"
        return self.ask("GET", f"{scope}/{kind}").get("items", [])


class Compute:
    """Reads what Google Compute Engine says. Made and used in the lab's network."""

    def __init__(self, lab: Lab) -> None:
        self._account = Account(identity(lab), environment(lab)["HTTPS_PROXY"])
        self._sizes: dict[str, dict[str, Any]] = {}
        #: Hosts of the lab by the ids of their disks, which images name as their source and which may be gone.
        self._hosts: dict[str, str] = {}

    def machines(self) -> Iterable[Booked]:
        disks = {disk["selfLink"]: disk for disk in self._account.all("disks")}
        for machine in self._account.all("instances"):
            boot, *others = machine["disks"]
            name = host_of(machine)
            self._hosts[disks[boot["source"]]["id"]] = name
            size = self._size(machine["machineType"])
            metadata = {item["key"]: item["value"] for item in machine.get("metadata", {}).get("items", [])}
            yield Booked(
                name=name,
                address=machine["networkInterfaces"][0]["networkIP"],
                runs=machine["status"] in ("PROVISIONING", "STAGING", "RUNNING")
                and machine.get("labels", {}).get("hands") != "never-boots",
                image=disks[boot["source"]]["sourceImageId"],
                size=size["name"],
                memory_mb=size["memoryMb"],
                processors=size["guestCpus"],
                user_data=as_the_guest_agent_does(metadata),
                volumes=tuple(_plugged(disk, disks[disk["source"]]) for disk in others),
            )

    def images(self) -> Mapping[str, str]:
        images = [image for image in self._account.all("images") if image["status"] == "READY"]
        sources = {image["id"]: self._hosts.get(image["sourceDiskId"]) for image in images}
        return {image: host for image, host in sources.items() if host}

    def volumes(self) -> Iterable[str]:
        return [volume_of(disk) for disk in self._account.all("disks")]

    def _size(self, link: str) -> dict[str, Any]:
        if link not in self._sizes:
            place = resolve(link)
            self._sizes[link] = self._account.ask("GET", f"{place.scope}/machineTypes/{place.name}")
        return self._sizes[link]


def host_of(machine: Mapping[str, Any]) -> str:
    """Name of the lab's host: a machine that takes the place of another one has its name, and another id."""
    return f"gcp-{machine['id']}"


def volume_of(disk: Mapping[str, Any]) -> str:
    return f"disk-{disk['id']}"


def _plugged(disk: Mapping[str, Any], resource: Mapping[str, Any]) -> Plugged:
    letter = "abcdefgh"[disk["index"]]
    return Plugged(volume_of(resource), int(resource["sizeGb"]), f"sd{letter}", f"google-{disk['deviceName']}")


def as_the_guest_agent_does(metadata: Mapping[str, str]) -> str:
    """What cloud-init has to do in the place of Google's agent: an account for each key, which becomes root by sudo."""
    users = [
        {
            "name": user, "sudo": "ALL=(ALL) NOPASSWD:ALL", "shell": "/bin/bash", "lock_passwd": True,
            "ssh_authorized_keys": [key],
        }
        for user, _colon, key in _entries(metadata.get("ssh-keys", ""))
    ]  # fmt: skip
    return f"#cloud-config\n{json.dumps({'users': users})}\n"


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.splitlines():
        yield line.partition(":")


open_books = Compute
