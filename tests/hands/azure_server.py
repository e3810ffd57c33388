# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What answers as Azure's Resource Manager does, and keeps its books.

What is said to it and by it has to fit the models of Microsoft's SDK (azure_models.py). Changes take a moment, are
asked after by the address that the answer names, and something that is used cannot be removed, as in Azure.
"""

from __future__ import annotations

import argparse
import copy
import ipaddress
import itertools
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .azure_models import INSTANCE_VIEW, MODELS, misfits, writable

TOKEN, SECRET = "token-of-the-tests", "header-of-the-tests"
SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
LOCATION = "westeurope"
ZONES = ("1", "2", "3")
#: Memory in MB and processors of the sizes that there are.
SIZES = {
    "Standard_B1s": (1024, 1),
    "Standard_B2als_v2": (4096, 2),
    "Standard_B2as_v2": (8192, 2),
    "Standard_B4as_v2": (16384, 4),
}
#: Images that Debian publishes, with the generation of their firmware.
DEBIAN = {("Debian", "debian-12", "12"): "V1", ("Debian", "debian-12", "12-gen2"): "V2"}
VERSIONS = ("0.20251006.2257", "0.20260901.2222")
#: An image takes longer: hands keep what is on its machine in the meantime.
BEGIN_SECONDS, IMAGE_SECONDS, PAGE_SIZE = 0.4, 3.0, 100
#: Azure keeps these of each subnet, beside the last one.
KEPT_ADDRESSES = 4
COMPUTE, NETWORK = "Microsoft.Compute", "Microsoft.Network"
VM, NIC, DISK, IMAGE = (
    f"{COMPUTE}/virtualMachines", f"{NETWORK}/networkInterfaces", f"{COMPUTE}/disks", f"{COMPUTE}/images"
)  # fmt: skip
NET, PIP, NAT, NSG, ASG = (
    f"{NETWORK}/{kind}"
    for kind in (
        "virtualNetworks", "publicIPAddresses", "natGateways", "networkSecurityGroups", "applicationSecurityGroups"
    )
)  # fmt: skip

Document = dict[str, Any]


class Refused(Exception):
    """What Azure says no with."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.document = {"error": {"code": code, "message": message}}


def ids_in(document: Any) -> Iterator[str]:
    """All ids that something speaks of, in small letters."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "id" and isinstance(value, str):
                yield value.lower()
            else:
                yield from ids_in(value)
    elif isinstance(document, list):
        for part in document:
            yield from ids_in(part)


class Azure:
    """Books of one subscription: things by their ids in small letters. Of each, ``kind`` is its type."""

    def __init__(self) -> None:
        self.things: dict[str, Document] = {}
        self.kinds: dict[str, str] = {}
        self.groups: dict[str, Document] = {}
        self.power: dict[str, str] = {}
        self.generalized: set[str] = set()
        #: When each thing that is changing is done, and what to do then.
        self.pending: dict[str, tuple[float, Callable[[], None]]] = {}
        self.operations: dict[str, tuple[float, Document | None]] = {}
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()

    # --- answering ---------------------------------------------------------------------------------------------------
    def answer(self, method: str, url: str, body: str, headers: Any) -> tuple[int, Any, dict[str, str]]:
        """Status, document and headers for a request."""
        asked = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        if asked.path == "/token":
            known = headers.get("X-IDENTITY-HEADER") == SECRET
            expires = str(int(time.time()) + 3600)
            return (200, {"access_token": TOKEN, "expires_on": expires}, {}) if known else (401, {}, {})
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            message = "The access token is missing or invalid."
            return 401, {"error": {"code": "AuthenticationFailed", "message": message}}, {}
        base = f"https://{headers.get('X-Forwarded-Host') or headers.get('Host')}"
        try:
            with self.lock:
                self.settle()
                if "api-version" not in query:
                    raise Refused(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
                return self.route(method, asked.path, query, json.loads(body) if body else {}, base)
        except Refused as refused:
            return refused.status, refused.document, {}

    def route(
        self, method: str, path: str, query: dict[str, str], body: Document, base: str
    ) -> tuple[int, Any, dict[str, str]]:
        words = path.strip("/").split("/")
        if words[:1] != ["subscriptions"] or words[1:2] != [SUBSCRIPTION]:
            raise Refused(403, "AuthorizationFailed", "The client does not have authorization over this scope.")
        rest = words[2:]
        if rest[0].lower() == "resourcegroups":
            if len(rest) <= 2:
                return self.group(method, rest[1] if len(rest) == 2 else "", body, base)
            if rest[2] == "resources":
                self.existing_group(rest[1])
                inside = [one for one in self.things.values() if one["id"].split("/")[4].lower() == rest[1].lower()]
                return 200, {"value": [{key: one[key] for key in ("id", "name", "type")} for one in inside]}, {}
            kind = "/".join(rest[3:5])
            if kind not in MODELS:
                raise Refused(404, "InvalidResourceType", f"The resource type {kind} could not be found.")
            self.existing_group(rest[1])
            return self.thing(method, kind, f"/{'/'.join(words[:8])}", words[8:], body, base)
        if rest[0] == "providers" and len(rest) == 3:
            return 200, self.page("/".join(rest[1:]), query, path, base), {}
        if rest[:3] == ["providers", COMPUTE, "locations"] and rest[4] == "operations":
            return self.operation(rest[5])
        if rest[:3] == ["providers", COMPUTE, "locations"] and rest[4] == "publishers":
            return self.versions(rest[3], rest[5], rest[9], rest[11])
        raise Refused(404, "InvalidResourceType", f"There is no {path}.")

    def page(self, kind: str, query: dict[str, str], path: str, base: str) -> Document:
        if kind not in MODELS:
            raise Refused(404, "InvalidResourceType", f"The resource type {kind} could not be found.")
        found = [self.shown(key) for key, known in self.kinds.items() if known == kind]
        if kind == VM and query.get("statusOnly") == "true":
            found = [
                {key: one[key] for key in ("id", "name", "location")}
                | {"properties": {"instanceView": self.view(one["id"].lower())}}
                for one in found
            ]
        begin = int(query.get("$skiptoken", 0))
        document: Document = {"value": found[begin : begin + PAGE_SIZE]}
        if begin + PAGE_SIZE < len(found):
            more = "".join(f"&{key}={value}" for key, value in query.items() if key != "$skiptoken")
            document["nextLink"] = f"{base}{path}?$skiptoken={begin + PAGE_SIZE}{more}"
        return document

    def versions(self, location: str, publisher: str, offer: str, sku: str) -> tuple[int, Any, dict[str, str]]:
        if (publisher, offer, sku) not in DEBIAN:
            raise Refused(404, "NotFound", f"Artifact: VMImage was not found: {publisher} {offer} {sku}")
        return 200, [{"name": name, "location": location} for name in VERSIONS], {}

    def operation(self, number: str) -> tuple[int, Any, dict[str, str]]:
        if number not in self.operations:
            raise Refused(404, "NotFound", "The entity was not found.")
        done, error = self.operations[number]
        if time.monotonic() < done:
            return 200, {"status": "InProgress"}, {}
        return 200, {"status": "Failed", "error": error} if error else {"status": "Succeeded"}, {}

    def begun(self, key: str, base: str, then: Callable[[], None], error: Document | None = None) -> dict[str, str]:
        """Note that something takes a moment; returns the headers that say where to ask after it."""
        number, done = (
            f"{next(self.numbers)}",
            time.monotonic() + (IMAGE_SECONDS if self.kinds.get(key) == IMAGE else BEGIN_SECONDS),
        )
        self.pending[key] = (done, then)
        self.operations[number] = (done, error)
        where = f"/subscriptions/{SUBSCRIPTION}/providers/{COMPUTE}/locations/{LOCATION}/operations/{number}"
        return {"Azure-AsyncOperation": f"{base}{where}?api-version=2024-07-01"}

    def settle(self) -> None:
        """Let be done what had its time."""
        for key, (done, then) in list(self.pending.items()):
            if time.monotonic() >= done:
                del self.pending[key]
                then()

    # --- groups ------------------------------------------------------------------------------------------------------
    def existing_group(self, name: str) -> None:
        if name.lower() not in self.groups:
            raise Refused(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")

    def group(self, method: str, name: str, body: Document, base: str) -> tuple[int, Any, dict[str, str]]:
        key = name.lower()
        if not name:
            return 200, {"value": list(self.groups.values())}, {}
        if method == "PUT":
            if body.get("location") != LOCATION:
                raise Refused(400, "LocationNotAvailableForResourceGroup", f"There is no {body.get('location')}.")
            status = 200 if key in self.groups else 201
            self.groups[key] = {
                "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}",
                "name": name,
                "type": "Microsoft.Resources/resourceGroups",
                "location": LOCATION,
                "tags": body.get("tags") or {},
                "properties": {"provisioningState": "Succeeded"},
            }
            return status, self.groups[key], {}
        self.existing_group(name)
        if method == "GET":
            return 200, self.groups[key], {}
        # As in Azure, with everything that is in it.
        inside = [one for one in self.things if one.split("/")[4] == key]

        def then() -> None:
            self.groups.pop(key, None)
            for one in inside:
                self.forget(one)

        return 202, None, self.begun(f"group {key}", base, then)

    # --- things ------------------------------------------------------------------------------------------------------
    def thing(
        self, method: str, kind: str, identity: str, more: list[str], body: Document, base: str
    ) -> tuple[int, Any, dict[str, str]]:
        key = identity.lower()
        if method == "PUT" and not more:
            return self.put(kind, identity, body, base)
        if method == "DELETE":
            if key not in self.things:
                return 204, None, {}
            self.refuse_used(key, kind)
            self.set_state(key, "Deleting")
            return 202, None, self.begun(key, base, lambda: self.forget(key))
        if key not in self.things:
            raise Refused(404, "ResourceNotFound", f"The Resource '{identity}' was not found.")
        if more == ["instanceView"]:
            return 200, self.view(key), {}
        if method == "POST":
            return self.act(key, more[0], base)
        if method == "PATCH":
            return self.patch(kind, key, body, base)
        return 200, self.shown(key), {}

    def put(self, kind: str, identity: str, body: Document, base: str) -> tuple[int, Any, dict[str, str]]:
        self.check(MODELS[kind][0], body)
        key, is_new = identity.lower(), identity.lower() not in self.things
        if not is_new and self.things[key]["properties"]["provisioningState"] == "Deleting":
            raise Refused(409, "AnotherOperationInProgress", f"{identity} is being deleted.")
        wanted = writable(MODELS[kind][0], copy.deepcopy(body))
        wanted.setdefault("properties", {})
        if kind != NET and wanted.get("location") != LOCATION:
            raise Refused(400, "LocationRequired", "The location is missing or is none.")
        for other in set(ids_in(wanted)) - {key}:
            self.refuse_missing(other, key)
        error = self.seen_to(kind, key, wanted)
        wanted |= {"id": identity, "name": identity.rpartition("/")[2], "type": kind}
        self.things[key], self.kinds[key] = wanted, kind
        self.set_state(key, "Creating" if is_new else "Updating")
        state = "Failed" if error else "Succeeded"
        headers = self.begun(key, base, lambda: self.set_state(key, state), error)
        return 201 if is_new else 200, self.shown(key), headers

    def patch(self, kind: str, key: str, body: Document, base: str) -> tuple[int, Any, dict[str, str]]:
        self.check(MODELS[kind][1], body)
        one = self.things[key]
        if body.get("tags") is not None:
            one["tags"] = body["tags"]
        for name, value in writable(MODELS[kind][1], body).get("properties", {}).items():
            self.change_machine(key, one, name, value)
        self.set_state(key, "Updating")
        return 200, self.shown(key), self.begun(key, base, lambda: self.set_state(key, "Succeeded"))

    def change_machine(self, key: str, one: Document, name: str, value: Document) -> None:
        if name == "hardwareProfile":
            size = value["vmSize"]
            self.refuse_size(size)
            if self.power[key] != "deallocated":
                # A machine that runs only gets the sizes of the hardware that it runs on.
                message = f"The size {size} is not available in the current hardware cluster; deallocate the machine."
                raise Refused(409, "OperationNotAllowed", message)
            one["properties"]["hardwareProfile"] = value
        elif name == "storageProfile":
            self.attach(key, one, value["dataDisks"])
        else:
            raise Refused(409, "PropertyChangeNotAllowed", f"Changing property '{name}' is not allowed.")

    def attach(self, key: str, one: Document, disks: list[Document]) -> None:
        for disk in disks:
            identity = disk["managedDisk"]["id"].lower()
            self.refuse_missing(identity, key)
            owner = self.things[identity].get("managedBy")
            if owner and owner.lower() != key:
                message = f"Disk '{identity}' cannot be attached as the disk is already owned by VM '{owner}'."
                raise Refused(409, "ConflictingUserInput", message)
            if self.things[identity].get("zones") != one.get("zones"):
                raise Refused(400, "BadRequest", f"{identity} cannot be attached to a machine of another zone.")
        if len({disk["lun"] for disk in disks}) < len(disks):
            raise Refused(400, "InvalidParameter", "A LUN is used twice.")
        for disk in disks:
            self.things[disk["managedDisk"]["id"].lower()]["managedBy"] = one["id"]
        one["properties"]["storageProfile"]["dataDisks"] = [{**disk, "createOption": "Attach"} for disk in disks]

    def act(self, key: str, deed: str, base: str) -> tuple[int, Any, dict[str, str]]:
        if deed == "generalize":
            if self.power[key] != "deallocated":
                raise Refused(409, "OperationNotAllowed", "The machine has to be deallocated to be generalized.")
            self.generalized.add(key)
            return 200, None, {}
        if deed == "start" and key in self.generalized:
            raise Refused(409, "OperationNotAllowed", "A machine that is generalized cannot be started.")
        states = {"start": "running", "deallocate": "deallocated"}
        if deed not in states:
            raise Refused(404, "NotFound", f"There is no {deed}.")
        self.power[key] = {"start": "starting", "deallocate": "deallocating"}[deed]
        return 202, None, self.begun(key, base, lambda: self.power.update({key: states[deed]}))

    # --- what is made ------------------------------------------------------------------------------------------------
    def seen_to(self, kind: str, key: str, wanted: Document) -> Document | None:
        """Add to something what Azure adds, or refuse it; returns an error that comes to light later."""
        former = self.things.get(key, {})
        properties, before = wanted["properties"], former.get("properties", {})
        if kind == VM:
            return self.make_machine(key, wanted, former)
        if kind == NET:
            self.make_subnets(key, wanted, before)
        if kind == NIC:
            self.give_addresses(key, properties, before)
        if kind == PIP:
            if (wanted.get("sku", {}).get("name"), properties.get("publicIPAllocationMethod")) != (
                "Standard",
                "Static",
            ):
                raise Refused(400, "IPv4BasicSkuPublicIpCountLimitReached", "Only Standard addresses are given out.")
            taken = {one["properties"].get("ipAddress") for one in self.of(PIP)}
            free = (f"203.0.113.{number}" for number in range(1, 255))
            properties["ipAddress"] = before.get("ipAddress") or next(one for one in free if one not in taken)
        if kind == NSG:
            self.refuse_rules(properties.get("securityRules") or [])
        if kind == DISK:
            wanted["managedBy"] = former.get("managedBy")
            if before and wanted.get("zones") != former.get("zones"):
                raise Refused(409, "PropertyChangeNotAllowed", "The zone of a disk cannot be changed.")
        if kind == IMAGE:
            source = properties["sourceVirtualMachine"]["id"].lower()
            if source not in self.generalized:
                raise Refused(409, "OperationNotAllowed", "The machine of an image has to be generalized.")
            if properties.get("hyperVGeneration", "V1") != self.generation(source):
                raise Refused(400, "BadRequest", "The generation of the image is not that of its machine.")
            disk = {"osType": "Linux", "osState": "Generalized", "diskSizeGB": 30}
            properties["storageProfile"] = {"osDisk": disk, "dataDisks": []}
        return None

    def make_machine(self, key: str, wanted: Document, former: Document) -> Document | None:
        properties = wanted["properties"]
        if former:
            raise Refused(409, "PropertyChangeNotAllowed", "These tests change machines by PATCH alone.")
        self.refuse_size(properties["hardwareProfile"]["vmSize"])
        system = properties.get("osProfile") or {}
        if not system.get("adminUsername") or not system.get("computerName"):
            raise Refused(400, "InvalidParameter", "Required parameter 'osProfile' is missing (null).")
        keys = system.get("linuxConfiguration", {}).get("ssh", {}).get("publicKeys") or []
        if any(one["path"] != f"/home/{system['adminUsername']}/.ssh/authorized_keys" for one in keys) or not keys:
            raise Refused(400, "InvalidParameter", "The destination path for SSH public keys is another one.")
        if not set(wanted.get("zones") or []) <= set(ZONES):
            raise Refused(400, "AvailabilityZoneNotSupported", "The zone is none.")
        reference = properties["storageProfile"]["imageReference"]
        if "id" not in reference:
            words = tuple(reference.get(name) for name in ("publisher", "offer", "sku"))
            if words not in DEBIAN or reference.get("version") not in VERSIONS:
                raise Refused(404, "PlatformImageNotFound", "The platform image is not available.")
        disk = properties["storageProfile"]["osDisk"]
        if disk.get("diskSizeGB", 30) < 30:
            raise Refused(409, "OperationNotAllowed", "The disk is smaller than that of the image.")
        for one in properties["networkProfile"]["networkInterfaces"]:
            interface = self.things[one["id"].lower()]
            if interface["properties"].get("virtualMachine", {}).get("id", key).lower() != key:
                raise Refused(400, "NicInUse", f"{one['id']} is used by another machine.")
            interface["properties"]["virtualMachine"] = {"id": key}
        identity = f"{key.rpartition('/providers/')[0]}/providers/{DISK}/{disk['name']}"
        self.things[identity.lower()] = {
            "id": identity, "name": disk["name"], "type": DISK, "location": LOCATION, "managedBy": key,
            "zones": wanted.get("zones"),
            "properties": {
                "creationData": {"createOption": "FromImage"}, "diskSizeGB": disk.get("diskSizeGB", 30),
                "provisioningState": "Succeeded",
            },
        }  # fmt: skip
        self.kinds[identity.lower()] = DISK
        disk["managedDisk"] = {"id": identity}
        properties["vmId"] = str(uuid.uuid4())
        self.power[key] = "running"
        # What has this tag is one for which no zone has room; in Azure that only comes to light after the first yes.
        if (wanted.get("tags") or {}).get("hands") in ("no-room", f"no-room-in-{(wanted.get('zones') or [''])[0]}"):
            self.power[key] = ""
            return {"code": "ZonalAllocationFailed", "message": "Allocation failed. There is not sufficient capacity."}
        return None

    def make_subnets(self, key: str, wanted: Document, before: Document) -> None:
        spaces = [ipaddress.ip_network(one) for one in wanted["properties"]["addressSpace"]["addressPrefixes"]]
        names = set()
        for subnet in wanted["properties"].get("subnets") or []:
            subnet["id"] = f"{key}/subnets/{subnet['name']}"
            names.add(subnet["name"])
            cidr = ipaddress.ip_network(subnet["properties"]["addressPrefix"])
            if not any(cidr.subnet_of(space) for space in spaces):  # type: ignore[arg-type]
                raise Refused(400, "NetcfgSubnetRangeOutsideVnet", f"{cidr} is outside of the network.")
        for subnet in before.get("subnets") or []:
            if subnet["name"] not in names and self.users(subnet["id"].lower(), key):
                raise Refused(400, "InUseSubnetCannotBeDeleted", f"Subnet {subnet['name']} is in use.")

    def give_addresses(self, key: str, properties: Document, before: Document) -> None:
        taken = {
            configuration["properties"].get("privateIPAddress")
            for other in self.of(NIC)
            if other["id"].lower() != key
            for configuration in other["properties"]["ipConfigurations"]
        }
        former = {one["name"]: one for one in before.get("ipConfigurations") or []}
        if "virtualMachine" in before:
            properties["virtualMachine"] = before["virtualMachine"]
        for configuration in properties["ipConfigurations"]:
            inside = configuration["properties"]
            had = former.get(configuration["name"], {}).get("properties", {})
            cidr = ipaddress.ip_network(self.subnet(inside["subnet"]["id"])["properties"]["addressPrefix"])
            hosts = [str(one) for one in cidr][KEPT_ADDRESSES:-1]
            inside["privateIPAddress"] = had.get("privateIPAddress") or next(one for one in hosts if one not in taken)
            inside["privateIPAllocationMethod"] = "Dynamic"
            inside["primary"] = True

    # --- books -------------------------------------------------------------------------------------------------------
    def of(self, kind: str) -> Iterator[Document]:
        return (self.things[key] for key, known in self.kinds.items() if known == kind)

    def subnet(self, identity: str) -> Document:
        network, _slash, name = identity.lower().rpartition("/subnets/")
        parts = self.things.get(network, {}).get("properties", {}).get("subnets") or []
        found = [one for one in parts if one["name"].lower() == name]
        if not found:
            raise Refused(400, "InvalidResourceReference", f"{identity} was not found.")
        return found[0]

    def shown(self, key: str) -> Document:
        """A thing as it is told of; ids are written now with capital letters, now without, as Azure does."""
        one = copy.deepcopy(self.things[key])
        if self.kinds[key] == PIP:
            users = list(self.users(key, key))
            if users and self.kinds[users[0]] == NIC:
                one["properties"]["ipConfiguration"] = {"id": f"{users[0]}/ipConfigurations/main"}
        if self.kinds[key] == VM:
            for reference in one["properties"]["networkProfile"]["networkInterfaces"]:
                reference["id"] = reference["id"].replace("/resourceGroups/", "/RESOURCEGROUPS/")
        wrong = list(misfits(MODELS[self.kinds[key]][0], one))
        assert not wrong, wrong
        return one

    def view(self, key: str) -> Document:
        """What ``instanceView`` gives."""
        state = self.things[key]["properties"]["provisioningState"]
        codes = [f"ProvisioningState/{state.lower()}"] + [f"PowerState/{self.power[key]}"] * bool(self.power[key])
        codes += ["OSState/generalized"] * (key in self.generalized)
        statuses = [{"code": code, "level": "Info"} for code in codes]
        document = {"hyperVGeneration": self.generation(key), "statuses": statuses}
        wrong = list(misfits(INSTANCE_VIEW, document))
        assert not wrong, wrong
        return document

    def generation(self, machine: str) -> str:
        """Of the firmware of a machine."""
        reference = self.things[machine]["properties"]["storageProfile"]["imageReference"]
        if "id" in reference:
            image = self.things.get(reference["id"].lower(), {"properties": {}})
            return image["properties"].get("hyperVGeneration", "V1")
        return DEBIAN[reference["publisher"], reference["offer"], reference["sku"]]

    def set_state(self, key: str, state: str) -> None:
        if key in self.things:
            self.things[key]["properties"]["provisioningState"] = state

    def users(self, key: str, but: str) -> Iterator[str]:
        """Things that speak of a thing, or of a part of it."""
        for other, one in self.things.items():
            found = set(ids_in({name: value for name, value in one.items() if name != "id"}))
            if other != but and any(there == key or there.startswith(f"{key}/") for there in found):
                yield other

    def forget(self, key: str) -> None:
        """What is left when a thing is gone. With a machine go its disk and its interface, where it says so."""
        one, kind = self.things.pop(key, {}), self.kinds.pop(key, "")
        if kind == VM:
            self.power.pop(key, None)
            self.generalized.discard(key)
            disk = one["properties"]["storageProfile"]["osDisk"]
            for other in list(self.of(DISK)):
                if (other.get("managedBy") or "").lower() == key:
                    other["managedBy"] = None
                    if other["name"] == disk["name"] and disk.get("deleteOption") == "Delete":
                        self.forget(other["id"].lower())
            for interface in one["properties"]["networkProfile"]["networkInterfaces"]:
                self.things[interface["id"].lower()]["properties"].pop("virtualMachine", None)
                if interface.get("properties", {}).get("deleteOption") == "Delete":
                    self.forget(interface["id"].lower())
        if kind == NIC:
            for configuration in one["properties"]["ipConfigurations"]:
                address = configuration["properties"].get("publicIPAddress", {}).get("id", "").lower()
                if self.things.get(address, {}).get("properties", {}).get("deleteOption") == "Delete":
                    self.forget(address)

    # --- refusing ----------------------------------------------------------------------------------------------------
    def check(self, model: Any, body: Document) -> None:
        wrong = list(misfits(model, body))
        if wrong:
            raise Refused(400, "InvalidRequestContent", f"The request content was invalid: {'; '.join(wrong)}")

    def refuse_missing(self, other: str, user: str) -> None:
        if "/subnets/" in other:
            if not other.startswith(f"{user}/"):
                self.subnet(other)
        elif other not in self.things and "/securityrules/" not in other and "/ipconfigurations/" not in other:
            raise Refused(400, "InvalidResourceReference", f"Resource {other} referenced by {user} was not found.")

    def refuse_size(self, size: str) -> None:
        if size not in SIZES:
            message = f"The requested VM size {size} is currently not available in location '{LOCATION}'."
            raise Refused(409, "SkuNotAvailable", message)

    def refuse_used(self, key: str, kind: str) -> None:
        users = list(self.users(key, key))
        owner = self.things[key].get("managedBy") if kind == DISK else None
        if kind in (VM, IMAGE) and not owner:
            return
        if users or owner:
            codes = {NIC: "NicInUse", PIP: "PublicIPAddressCannotBeDeleted", NET: "InUseSubnetCannotBeDeleted"}
            message = f"{key} is in use by {', '.join(users) or owner} and cannot be deleted."
            raise Refused(400 if kind != DISK else 409, codes.get(kind, "OperationNotAllowed"), message)

    def refuse_rules(self, rules: list[Document]) -> None:
        places: set[tuple[str, int]] = set()
        for rule in rules:
            one = rule["properties"]
            place = (one["direction"], one["priority"])
            if not 100 <= one["priority"] <= 4096 or place in places:
                raise Refused(400, "SecurityRuleConflict", f"The priority of {rule['name']} is none, or is used twice.")
            places.add(place)
            for side in ("source", "destination"):
                said = [
                    name
                    for name in ("AddressPrefix", "AddressPrefixes", "ApplicationSecurityGroups")
                    if one.get(f"{side}{name}")
                ]
                if len(said) != 1:
                    raise Refused(400, "SecurityRuleParameterRequired", f"{rule['name']} has not just one {side}.")
            if len(rule["name"]) > 80 or len(one.get("description") or "") > 140:
                raise Refused(400, "InvalidRequestFormat", f"{rule['name']}: its name or description is too long.")


def serve(azure: Azure, host: str, port: int, context: ssl.SSLContext | None) -> ThreadingHTTPServer:
    """Listen; the caller lets it run."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, document, headers = azure.answer(self.command, self.path, body, self.headers)
            content = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_request

        def log_message(self, text: str, *values: object) -> None:
            print(text % values, flush=True)

    listener = ThreadingHTTPServer((host, port), Handler)
    listener.daemon_threads = True
    if context:
        # Each handshake in the thread of its connection.
        listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
    return listener


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-H", "--host", required=True)
    parser.add_argument("-p", "--port", type=int, required=True)
    parser.add_argument("--certificate", help="file with a certificate and its key; without it there is no TLS")
    given = parser.parse_args()
    context = None
    if given.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate)
    serve(Azure(), given.host, given.port, context).serve_forever()


if __name__ == "__main__":
    main()
