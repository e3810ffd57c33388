# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The books of a double of Google Compute Engine: what there is, and what Google does when somebody changes it.

What Google refuses is refused: names and labels that it does not have, what is used by something else, a size for a
machine that runs, labels that somebody else has changed, and whatever is not ready as an operation is at work on it.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Thing = dict[str, Any]

ROOT = "https://www.googleapis.com/compute/v1/"
PROJECT = "heart-study"
# Whose images everybody may use.
DEBIAN = "debian-cloud"
REGIONS = {"europe-west4": ("a", "b", "c"), "us-east1": ("b", "c", "d")}
# vCPUs and MB of memory.
MACHINE_TYPES = {
    "e2-small": (2, 2048),
    "e2-medium": (2, 4096),
    "e2-standard-2": (2, 8192),
    "e2-standard-4": (4, 16384),
    "e2-standard-8": (8, 32768),
}
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL, LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
# Kind as it is called in answers.
KINDS = {
    "addresses": "address", "disks": "disk", "firewalls": "firewall", "images": "image", "instances": "instance",
    "networks": "network", "routers": "router", "subnetworks": "subnetwork",
}  # fmt: skip
# The first addresses of a subnet are Google's, and in a lab those of the controller.
FIRST_ADDRESS = 4


class Refused(Exception):
    """An answer that is an error. ``reason``: Google's word for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass(frozen=True)
class Place:
    """Where a thing is: ``scope`` is global, zones/… or regions/…"""

    project: str
    scope: str
    kind: str
    name: str

    @property
    def link(self) -> str:
        return f"{ROOT}projects/{self.project}/{self.scope}/{self.kind}/{self.name}"


@dataclass
class Work:
    """An operation that has not ended. ``finish`` does what it is for, at the time ``due``."""

    operation: Thing
    place: Place
    due: float
    finish: Callable[[], None]


@dataclass
class Fault:
    """An operation of a kind that comes to a bad end. ``containing``: only where the place has this in its link."""

    method: str
    code: str
    containing: str = ""


@dataclass
class Books:
    """Everything that there is.

    ``seconds``: how long operations take. ``power_seconds``: how long a machine takes to stop or to start, so that
    hands have done what the API says when it says so.
    """

    seconds: float = 0.3
    power_seconds: float = 0.3
    things: dict[Place, Thing] = field(default_factory=dict)
    operations: dict[str, Thing] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _works: list[Work] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(4_000_000_000_000_000_001))
    _publics: Iterator[int] = field(default_factory=lambda: itertools.count(10))
    _privates: int = 0

    def __post_init__(self) -> None:
        image = Place(DEBIAN, "global", "images", "debian-12-bookworm-v20260910")
        self.add(image, {"family": "debian-12", "diskSizeGb": "10", "status": "READY", "architecture": "X86_64"})
        older = Place(DEBIAN, "global", "images", "debian-12-bookworm-v20260801")
        state = {"state": "DEPRECATED", "replacement": image.link}
        self.add(older, {"family": "debian-12", "diskSizeGb": "10", "status": "READY", "deprecated": state})

    # Finding

    def settle(self) -> None:
        """Let every operation that is due end."""
        for work in [work for work in self._works if work.due <= time.monotonic()]:
            self._works.remove(work)
            work.operation |= {"status": "DONE", "progress": 100, "endTime": now()}
            try:
                work.finish()
            except Refused as error:
                told = {"errors": [{"code": error.reason, "message": error.message}]}
                work.operation |= {"error": told, "httpErrorStatusCode": error.status, "httpErrorMessage": "ERROR"}

    def find(self, place: Place) -> Thing:
        """A thing by its name or its id."""
        if place in self.things:
            return self.things[place]
        for other, thing in self.things.items():
            if thing["id"] == place.name and (other.scope, other.kind) == (place.scope, place.kind):
                return thing
        raise Refused(404, "notFound", f"The resource '{place.link.removeprefix(ROOT)}' was not found")

    def place_of(self, thing: Thing) -> Place:
        return resolve(thing["selfLink"])

    def of_kind(self, kind: str, project: str = PROJECT) -> list[Thing]:
        return [thing for place, thing in self.things.items() if (place.kind, place.project) == (kind, project)]

    def refer(self, link: str, kind: str, field_name: str) -> Thing:
        """The thing that a request names, which has to be there and ready."""
        place = resolve(link)
        if place.kind != kind:
            raise Refused(400, "invalid", f"Invalid value for field '{field_name}': '{link}'.")
        if kind == "machineTypes":
            return machine_type(place)
        thing = self.find(place)
        self.see_ready(place)
        return thing

    def see_ready(self, place: Place) -> None:
        if any(work.place == place for work in self._works):
            raise Refused(400, "resourceNotReady", f"The resource '{place.link.removeprefix(ROOT)}' is not ready")

    # Changing

    def add(self, place: Place, thing: Thing) -> Thing:
        identity = {
            "id": str(next(self._numbers)), "name": place.name, "selfLink": place.link, "creationTimestamp": now(),
            "kind": f"compute#{KINDS[place.kind]}",
        }  # fmt: skip
        scope, _slash, name = place.scope.partition("/")
        if name:
            identity[scope[:-1]] = f"{ROOT}projects/{place.project}/{place.scope}"
        self.things[place] = {**thing, **identity}
        return self.things[place]

    def begin(self, method: str, place: Place, finish: Callable[[], None], seconds: float = 0) -> Thing:
        """Begin an operation."""
        number = str(next(self._numbers))
        scope, _slash, where = place.scope.partition("/")
        operation = {
            "kind": "compute#operation", "id": number, "name": f"operation-{number}", "status": "RUNNING",
            "operationType": method.rpartition(".")[2], "targetLink": place.link, "progress": 0, "insertTime": now(),
            "targetId": self.things[place]["id"] if place in self.things else "0",
            "selfLink": f"{ROOT}projects/{place.project}/{place.scope}/operations/operation-{number}",
        }  # fmt: skip
        if where:
            operation[scope[:-1]] = f"{ROOT}projects/{place.project}/{place.scope}"
        fault = next((one for one in self.faults if one.method == method and one.containing in place.link), None)
        if fault:

            def fail() -> None:
                if method.endswith(".insert"):
                    self._forget(place)
                raise Refused(503, fault.code, f"{fault.code}: of the test, for {place.link}")

            finish = fail
        self.operations[operation["name"]] = operation
        self._works.append(Work(operation, place, time.monotonic() + (seconds or self.seconds), finish))
        return operation

    def insert(self, method: str, place: Place, body: Thing) -> Thing:
        """Begin to make a thing."""
        if not NAME.fullmatch(place.name):
            raise Refused(400, "invalid", f"Invalid value for field 'resource.name': '{place.name}'.")
        if place in self.things:
            raise Refused(409, "alreadyExists", f"The resource '{place.link.removeprefix(ROOT)}' already exists")
        see_labels(body.get("labels") or {})
        thing = {name: value for name, value in body.items() if name not in ("kind", "status")}
        if place.kind in ("disks", "images", "instances", "addresses"):
            thing["labelFingerprint"] = fingerprint(body.get("labels"))
        begun, ready = getattr(self, f"_insert_{place.kind}")(place, thing)
        self.add(place, {**thing, **begun})
        return self.begin(method, place, lambda: self.things[place].update(ready))

    def delete(self, method: str, place: Place) -> Thing:
        """Begin to take a thing away, unless something uses it."""
        thing = self.find(place)
        place = self.place_of(thing)
        self.see_ready(place)
        user = next(self._users(place), None)
        if user:
            shown = place.link.removeprefix(ROOT)
            raise Refused(400, "resourceInUseByAnotherResource", f"'{shown}' is already being used by '{user}'")
        if place.kind == "instances":
            thing["status"] = "STOPPING"
        return self.begin(method, place, lambda: self._forget(place))

    def _users(self, place: Place) -> Iterator[str]:
        """Links of things that would be left without this one."""
        thing = self.things[place]
        if place.kind in ("disks", "addresses"):
            yield from thing.get("users", [])
        if place.kind in ("networks", "subnetworks"):
            for other in self.things.values():
                named = {other.get("network"), *(one.get("network") for one in other.get("networkInterfaces", []))}
                named |= {one.get("subnetwork") for one in other.get("networkInterfaces", [])}
                if place.link in named:
                    yield other["selfLink"]

    def _forget(self, place: Place) -> None:
        thing = self.things.pop(place)
        if place.kind != "instances":
            return
        for disk in thing["disks"]:
            if disk["autoDelete"]:
                self.things.pop(resolve(disk["source"]))
            else:
                self.things[resolve(disk["source"])].pop("users", None)
        for address in self.of_kind("addresses"):
            if place.link in address.get("users", []):
                address.pop("users")
                address["status"] = "RESERVED"

    # Each of these returns what a thing has at once, and what it has when it is ready.

    def _insert_networks(self, _place: Place, thing: Thing) -> tuple[Thing, Thing]:
        return {"autoCreateSubnetworks": thing.get("autoCreateSubnetworks", True)}, {}

    def _insert_subnetworks(self, _place: Place, thing: Thing) -> tuple[Thing, Thing]:
        network = self.refer(thing["network"], "networks", "resource.network")
        wanted = ipaddress.ip_network(thing["ipCidrRange"])
        for other in self.of_kind("subnetworks"):
            if other["network"] == network["selfLink"] and wanted.overlaps(ipaddress.ip_network(other["ipCidrRange"])):
                raise Refused(400, "invalid", f"IP CIDR range {wanted} conflicts with {other['selfLink']}")
        return {"network": network["selfLink"], "gatewayAddress": str(wanted[1])}, {}

    def _insert_firewalls(self, _place: Place, thing: Thing) -> tuple[Thing, Thing]:
        network = self.refer(thing["network"], "networks", "resource.network")
        versions = {ipaddress.ip_network(cidr).version for cidr in thing.get("sourceRanges", [])}
        if len(versions) > 1:
            raise Refused(400, "invalid", "sourceRanges cannot have both IPv4 and IPv6")
        for tag in [*thing.get("sourceTags", []), *thing.get("targetTags", [])]:
            if not NAME.fullmatch(tag):
                raise Refused(400, "invalid", f"'{tag}' is no network tag")
        return {"network": network["selfLink"], "direction": "INGRESS", "disabled": False}, {}

    def _insert_routers(self, _place: Place, thing: Thing) -> tuple[Thing, Thing]:
        return {"network": self.refer(thing["network"], "networks", "resource.network")["selfLink"]}, {}

    def _insert_addresses(self, _place: Place, _thing: Thing) -> tuple[Thing, Thing]:
        return {"address": self._public(), "networkTier": "PREMIUM", "status": "RESERVING"}, {"status": "RESERVED"}

    def _insert_disks(self, place: Place, thing: Thing) -> tuple[Thing, Thing]:
        kind = resolve(thing.get("type") or f"{place.scope}/diskTypes/pd-standard")
        return {"type": kind.link, "status": "CREATING", "sizeGb": str(thing["sizeGb"])}, {"status": "READY"}

    def _insert_images(self, _place: Place, thing: Thing) -> tuple[Thing, Thing]:
        disk = self.refer(thing["sourceDisk"], "disks", "resource.sourceDisk")
        for user in disk.get("users", []):
            if self.things[resolve(user)]["status"] != "TERMINATED":
                raise Refused(
                    400, "invalid", f"The disk resource '{disk['selfLink']}' is already being used by '{user}'"
                )
        begun = {"sourceDiskId": disk["id"], "diskSizeGb": disk["sizeGb"], "status": "PENDING", "sourceType": "RAW"}
        return begun, {"status": "READY"}

    def _insert_instances(self, place: Place, thing: Thing) -> tuple[Thing, Thing]:
        see_scheduling(thing.get("scheduling") or {})
        for tag in (thing.get("tags") or {}).get("items", []):
            if not NAME.fullmatch(tag):
                raise Refused(400, "invalid", f"'{tag}' is no network tag")
        kind = self.refer(thing["machineType"], "machineTypes", "resource.machineType")
        if kind["zone"] != place.scope.partition("/")[2]:
            raise Refused(400, "invalid", f"{thing['machineType']} is of another zone")
        interfaces = [self._interface(place, one) for one in thing["networkInterfaces"]]
        disks = [self._disk(place, index, one) for index, one in enumerate(thing["disks"])]
        begun = {
            "disks": disks, "networkInterfaces": interfaces, "machineType": kind["selfLink"], "status": "PROVISIONING",
            "deletionProtection": thing.get("deletionProtection", False), "canIpForward": False,
            "shieldedInstanceConfig": {
                "enableSecureBoot": False, "enableVtpm": True, "enableIntegrityMonitoring": True,
            },
            "scheduling": {
                "automaticRestart": True, "preemptible": False, "onHostMaintenance": "MIGRATE",
                **(thing.get("scheduling") or {}),
            },
        }  # fmt: skip
        return begun, {"status": "RUNNING"}

    def _interface(self, place: Place, wanted: Thing) -> Thing:
        subnetwork = self.refer(wanted["subnetwork"], "subnetworks", "resource.networkInterfaces[0].subnetwork")
        if not place.scope.startswith(f"zones/{resolve(subnetwork['selfLink']).scope.partition('/')[2]}-"):
            raise Refused(400, "invalid", f"{subnetwork['selfLink']} is of another region")
        configs = [self._access(place, one) for one in wanted.get("accessConfigs", [])]
        interface = {
            "name": "nic0", "network": subnetwork["network"], "subnetwork": subnetwork["selfLink"],
            "networkIP": self._private(ipaddress.ip_network(subnetwork["ipCidrRange"])), "fingerprint": "abcdefabcdef",
        }  # fmt: skip
        return {**interface, "accessConfigs": configs} if configs else interface

    def _access(self, place: Place, wanted: Thing) -> Thing:
        """A public address: one that was reserved, which has to be free, or any."""
        public = wanted.get("natIP")
        if public:
            mine = [one for one in self.of_kind("addresses") if one["address"] == public]
            if not mine or mine[0]["status"] != "RESERVED":
                raise Refused(400, "invalid", f"External IP address {public} is not reserved, or in use")
            mine[0] |= {"status": "IN_USE", "users": [place.link]}
        return {
            "name": wanted.get("name", "External NAT"), "type": "ONE_TO_ONE_NAT", "natIP": public or self._public(),
            "networkTier": "PREMIUM", "kind": "compute#accessConfig",
        }  # fmt: skip

    def _disk(self, place: Place, index: int, wanted: Thing) -> Thing:
        begin = wanted.get("initializeParams")
        if begin is None:
            return self._plugged(place, wanted, index)
        image = self.refer(begin["sourceImage"], "images", "resource.disks[0].initializeParams.sourceImage")
        if int(begin.get("diskSizeGb", image["diskSizeGb"])) < int(image["diskSizeGb"]):
            raise Refused(400, "invalid", f"a disk of {begin['diskSizeGb']} GB is smaller than {image['selfLink']}")
        own = Place(place.project, place.scope, "disks", begin.get("diskName") or place.name)
        disk = self.add(own, {
            "sizeGb": str(begin.get("diskSizeGb") or image["diskSizeGb"]), "type": resolve(begin["diskType"]).link,
            "status": "READY", "sourceImage": image["selfLink"], "sourceImageId": image["id"], "users": [place.link],
        })  # fmt: skip
        return attached(disk, {"deviceName": "persistent-disk-0", **wanted}, index)

    def _plugged(self, place: Place, wanted: Thing, index: int) -> Thing:
        """A disk that is there, in a machine of its zone; a second machine may not write to it."""
        disk = self.refer(wanted["source"], "disks", "resource.source")
        if resolve(disk["selfLink"]).scope != place.scope:
            raise Refused(400, "invalid", f"{disk['selfLink']} is of another zone than {place.link}")
        if disk.get("users"):
            message = f"The disk resource '{disk['selfLink']}' is already being used by '{disk['users'][0]}'"
            raise Refused(400, "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", message)
        disk["users"] = [place.link]
        return attached(disk, {"deviceName": f"persistent-disk-{index}", **wanted}, index)

    def _public(self) -> str:
        return f"203.0.113.{next(self._publics) % 250 + 1}"

    def _private(self, network: ipaddress.IPv4Network) -> str:
        """The next address that nobody has: one that was given back may still be in use for a moment."""
        used = {one["networkIP"] for machine in self.of_kind("instances") for one in machine["networkInterfaces"]}
        room = network.num_addresses - FIRST_ADDRESS - 2
        for _number in range(room):
            address = str(network[FIRST_ADDRESS + self._privates % room])
            self._privates += 1
            if address not in used:
                return address
        raise Refused(400, "IP_SPACE_EXHAUSTED", f"{network} has no address left")

    # What is done to a thing that is there; each returns what is true at the end.

    def change(self, method: str, place: Place, query: dict[str, str], body: Thing) -> Thing:
        """Begin to change a thing."""
        thing = self.find(place)
        place = self.place_of(thing)
        self.see_ready(place)
        words = re.sub(r"([A-Z])", r"_\1", method.rpartition(".")[2]).lower()
        begun, ready = getattr(self, f"_{words}")(place, thing, query, body)
        thing.update(begun)
        seconds = self.power_seconds if words in ("stop", "start") else self.seconds
        return self.begin(method, place, lambda: thing.update(ready), seconds)

    def _stop(self, _place: Place, thing: Thing, _query: Thing, _body: Thing) -> tuple[Thing, Thing]:
        return ({"status": "STOPPING"} if thing["status"] == "RUNNING" else {}), {"status": "TERMINATED"}

    def _start(self, _place: Place, _thing: Thing, _query: Thing, _body: Thing) -> tuple[Thing, Thing]:
        return {"status": "STAGING"}, {"status": "RUNNING"}

    def _set_machine_type(self, place: Place, thing: Thing, _query: Thing, body: Thing) -> tuple[Thing, Thing]:
        if thing["status"] != "TERMINATED":
            raise Refused(400, "invalid", f"{place.link}: the instance must be stopped before its type is changed")
        kind = self.refer(body["machineType"], "machineTypes", "machineType")
        return {}, {"machineType": kind["selfLink"]}

    def _set_labels(self, _place: Place, thing: Thing, _query: Thing, body: Thing) -> tuple[Thing, Thing]:
        if body.get("labelFingerprint") != thing["labelFingerprint"]:
            raise Refused(412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed")
        labels = body.get("labels") or {}
        see_labels(labels)
        return {}, {"labels": labels, "labelFingerprint": fingerprint(labels)}

    def _set_deletion_protection(self, _place: Place, _thing: Thing, query: Thing, _body: Thing) -> tuple[Thing, Thing]:
        return {}, {"deletionProtection": query.get("deletionProtection", "true") == "true"}

    def _attach_disk(self, place: Place, thing: Thing, _query: Thing, body: Thing) -> tuple[Thing, Thing]:
        return {}, {"disks": [*thing["disks"], self._plugged(place, body, len(thing["disks"]))]}

    def _add_access_config(self, place: Place, thing: Thing, query: Thing, body: Thing) -> tuple[Thing, Thing]:
        interface = thing["networkInterfaces"][0]
        if query["networkInterface"] != "nic0" or interface.get("accessConfigs"):
            raise Refused(400, "invalid", "At most one access config currently supported.")
        return {}, {"networkInterfaces": [{**interface, "accessConfigs": [self._access(place, body)]}]}

    def _delete_access_config(self, place: Place, thing: Thing, query: Thing, _body: Thing) -> tuple[Thing, Thing]:
        interface = thing["networkInterfaces"][0]
        for config in interface.get("accessConfigs", []):
            for address in self.of_kind("addresses"):
                if address["address"] == config["natIP"] and place.link in address.get("users", []):
                    address.pop("users")
                    address["status"] = "RESERVED"
        kept = [one for one in interface.get("accessConfigs", []) if one["name"] != query["accessConfig"]]
        return {}, {"networkInterfaces": [{**interface, "accessConfigs": kept}]}


def machine_type(place: Place) -> Thing:
    if place.name not in MACHINE_TYPES:
        message = f"Machine type with name '{place.name}' does not exist in {place.scope.replace('zones/', 'zone ')}."
        raise Refused(400, "invalid", f"Invalid value for field 'resource.machineType': {message}")
    processors, memory = MACHINE_TYPES[place.name]
    return {
        "name": place.name, "guestCpus": processors, "memoryMb": memory, "selfLink": place.link,
        "zone": place.scope.partition("/")[2], "kind": "compute#machineType", "id": "1",
    }  # fmt: skip


def attached(disk: Thing, wanted: Thing, index: int) -> Thing:
    return {
        "kind": "compute#attachedDisk", "source": disk["selfLink"], "deviceName": wanted["deviceName"], "index": index,
        "autoDelete": wanted.get("autoDelete", False), "boot": wanted.get("boot", False), "type": "PERSISTENT",
        "mode": "READ_WRITE", "diskSizeGb": disk["sizeGb"], "interface": "SCSI",
    }  # fmt: skip


def resolve(link: str) -> Place:
    """From any of the ways in which Google lets people name a thing."""
    found = re.fullmatch(
        r"(?:https://(?:www|compute)\.googleapis\.com/compute/v1/)?(?:projects/([^/]+)/)?"
        r"(global|(?:zones|regions)/[^/]+)/([A-Za-z]+)/([^/]+)",
        link,
    )
    if not found:
        raise Refused(400, "invalid", f"Invalid value: '{link}'. The URL is malformed.")
    return Place(found[1] or PROJECT, found[2], found[3], found[4])


def see_labels(labels: dict[str, str]) -> None:
    for name, value in labels.items():
        if not LABEL.fullmatch(name) or not LABEL_VALUE.fullmatch(value):
            raise Refused(400, "invalid", f"Invalid value for field 'resource.labels': '{name}: {value}'.")


def see_scheduling(scheduling: Thing) -> None:
    if scheduling.get("preemptible") and scheduling.get("automaticRestart", True):
        raise Refused(400, "invalid", "Scheduling must have preemptible be false when AutomaticRestart is true.")


def fingerprint(labels: dict[str, str] | None) -> str:
    return f"{hash(frozenset((labels or {}).items())) & 0xFFFFFFFF:08x}"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000-00:00", time.gmtime())
