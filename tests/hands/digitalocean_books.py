# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Books of an account of DigitalOcean: what its API keeps and answers, without machines.

Nobody but prism, with DigitalOcean's own description, says whether a request and an answer are as they should be; what
the description does not say - what refuses what, and when something is done - is here as DigitalOcean's guides tell it.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

TOKEN = "dop_v1_of_the_tests"
REGION = "fra1"
DEBIAN = "debian-12-x64"
# Memory in MB, processors, disk in GB.
SIZES = {
    "s-1vcpu-1gb": (1024, 1, 25),
    "s-1vcpu-2gb": (2048, 1, 50),
    "s-2vcpu-2gb": (2048, 2, 60),
    "s-2vcpu-4gb": (4096, 2, 80),
    "s-4vcpu-8gb": (8192, 4, 160),
}
Document = dict[str, Any]
Answer = tuple[int, "Document | None"]


class Refusal(Exception):
    """What the API says instead of doing it."""

    def __init__(self, status: int, word: str, message: str) -> None:
        super().__init__(message)
        self.answer = status, {"id": word, "message": message}


def not_there(what: str) -> Refusal:
    return Refusal(404, "not_found", f"The {what} you were accessing could not be found.")


def wrong(message: str) -> Refusal:
    return Refusal(422, "unprocessable_entity", message)


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Books:
    """An account. ``delay_seconds``: how long whatever takes a moment takes; ``url``: what links begin with."""

    def __init__(self, delay_seconds: float = 1.0, url: str = "") -> None:
        self.delay_seconds = delay_seconds
        self.url = url
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Have what a new account has."""
        self.droplet_limit = 25
        self.droplets: dict[int, Document] = {}
        self.user_data: dict[int, str] = {}
        #: By Droplet: who may log in, and its address in its network.
        self.public_keys: dict[int, list[str]] = {}
        self.private: dict[int, str] = {}
        #: Those that were deleted a moment ago, which networks and volumes do not know yet.
        self.leaving: dict[int, Document] = {}
        #: Those whose system does not shut down when it is asked to.
        self.deaf: set[int] = set()
        self.images: dict[int, Document] = {}
        #: Of what Droplet an image was made.
        self.sources: dict[int, int] = {}
        self.volumes: dict[str, Document] = {}
        self.firewalls: dict[str, Document] = {}
        self.keys: dict[int, Document] = {}
        self.tags: list[str] = []
        self.vpcs: dict[str, Document] = {}
        self.projects: dict[str, Document] = {}
        self.addresses: dict[str, Document] = {}
        self.actions: dict[int, Document] = {}
        self._pending: list[tuple[float, Callable[[], None]]] = []
        self._number = 1000
        self._have_network("default-fra1", "10.114.0.0/20", default=True)
        self._have_project({"name": "first-project", "purpose": "Web", "environment": "Development"}, default=True)
        debian = {"id": self.number(), "name": "12 x64", "type": "base", "slug": DEBIAN, "public": True, "disk": 7}
        self._have_image(**debian)

    def number(self) -> int:
        self._number += 1
        return self._number

    # -- requests

    def answer(self, method: str, path: str, query: dict[str, str], body: Document, token: str) -> Answer:
        """Answer one request after the other."""
        with self._lock:
            if token != TOKEN:
                return 401, {"id": "unauthorized", "message": "Unable to authenticate you"}
            self.settle()
            try:
                for wanted, pattern, handle in self._routes():
                    match = re.fullmatch(pattern, path)
                    if match and wanted == method:
                        return handle(*match.groups(), query=query, body=body)  # type: ignore[operator]
                raise not_there("resource")
            except Refusal as refusal:
                return refusal.answer

    def _routes(self) -> Iterable[tuple[str, str, Callable[..., Answer]]]:
        one = "([^/]+)"
        yield "GET", "/v2/account", self.get_account
        for kind, things in self._lists().items():
            yield "GET", f"/v2/{kind}", lambda query, body, k=kind, t=things: (200, self.page(k, t, query))
        for method, pattern, handle in (
            ("POST", "account/keys", self.make_key),
            ("DELETE", f"account/keys/{one}", self.delete_key),
            ("POST", "droplets", self.make_droplet),
            ("GET", f"droplets/{one}", self.get_droplet),
            ("DELETE", f"droplets/{one}", self.delete_droplet),
            ("POST", f"droplets/{one}/actions", self.act_on_droplet),
            ("GET", f"droplets/{one}/actions/{one}", self.get_action_of),
            ("GET", f"actions/{one}", self.get_action),
            ("GET", f"images/{one}", self.get_image),
            ("DELETE", f"snapshots/{one}", self.delete_image),
            ("POST", "volumes", self.make_volume),
            ("DELETE", f"volumes/{one}", self.delete_volume),
            ("POST", f"volumes/{one}/actions", self.act_on_volume),
            ("POST", "firewalls", self.make_firewall),
            ("PUT", f"firewalls/{one}", self.change_firewall),
            ("DELETE", f"firewalls/{one}", self.delete_firewall),
            ("POST", "vpcs", self.make_vpc),
            ("DELETE", f"vpcs/{one}", self.delete_vpc),
            ("POST", "tags", self.make_tag),
            ("GET", f"tags/{one}", self.get_tag),
            ("DELETE", f"tags/{one}", self.delete_tag),
            ("POST", f"tags/{one}/resources", self.tag_things),
            ("DELETE", f"tags/{one}/resources", self.untag_things),
            ("POST", "projects", self.make_project),
            ("DELETE", f"projects/{one}", self.delete_project),
            ("POST", "reserved_ips", self.make_address),
            ("GET", f"reserved_ips/{one}", self.get_address),
            ("DELETE", f"reserved_ips/{one}", self.delete_address),
            ("POST", f"reserved_ips/{one}/actions", self.act_on_address),
        ):
            yield method, f"/v2/{pattern}", handle

    def _lists(self) -> dict[str, Callable[[dict[str, str]], list[Document]]]:
        return {
            "account/keys": lambda _query: list(self.keys.values()),
            "droplets": lambda query: [
                one for one in self.droplets.values() if query.get("tag_name") in (None, *one["tags"])
            ],
            "images": lambda query: [
                one for one in self.images.values() if not (query.get("private") == "true" and one["public"])
            ],
            "volumes": lambda query: [
                one
                for one in self.volumes.values()
                if query.get("name", one["name"]) == one["name"]
                and query.get("region", one["region"]["slug"]) == one["region"]["slug"]
            ],
            "firewalls": lambda _query: list(self.firewalls.values()),
            "vpcs": lambda _query: list(self.vpcs.values()),
            "tags": lambda _query: [self.told(tag) for tag in self.tags],
            "projects": lambda _query: list(self.projects.values()),
            "reserved_ips": lambda _query: list(self.addresses.values()),
        }

    def page(self, kind: str, things: Callable[[dict[str, str]], list[Document]], query: dict[str, str]) -> Document:
        found = things(query)
        size, number = int(query.get("per_page", 20)), int(query.get("page", 1))
        pages = {}
        if number * size < len(found):
            pages["next"] = f"{self.url}/v2/{kind}?{urlencode({**query, 'page': number + 1})}"
        return {
            {"account/keys": "ssh_keys"}.get(kind, kind): found[(number - 1) * size : number * size],
            "links": {"pages": pages} if pages else {},
            "meta": {"total": len(found)},
        }

    # -- what takes a moment

    def settle(self) -> None:
        """Have done what is due."""
        due = [entry for entry in self._pending if entry[0] <= time.monotonic()]
        self._pending = [entry for entry in self._pending if entry not in due]
        for _when, effect in due:
            effect()

    def later(self, effect: Callable[[], None]) -> None:
        self._pending.append((time.monotonic() + self.delay_seconds, effect))

    def begin(self, kind: str, what: str, identity: int | None, effect: Callable[[], None]) -> Document:
        """An action, which is done in a moment."""
        action = {
            "id": self.number(), "status": "in-progress", "type": kind, "started_at": now(), "completed_at": None,
            "resource_id": identity, "resource_type": what, "region": region(), "region_slug": REGION,
        }  # fmt: skip
        self.actions[action["id"]] = action

        def end() -> None:
            effect()
            action.update(status="completed", completed_at=now())

        self.later(end)
        return action

    def begin_on(self, droplet: Document, kind: str, effect: Callable[[], None]) -> Document:
        """An action for which a Droplet is locked."""
        if droplet["locked"]:
            raise wrong("Droplet already has a pending event.")
        droplet["locked"] = True

        def end() -> None:
            effect()
            droplet["locked"] = False

        return self.begin(kind, "droplet", droplet["id"], end)

    def get_action(self, identity: str, query: object, body: object) -> Answer:
        if not identity.isdigit() or int(identity) not in self.actions:
            raise not_there("action")
        return 200, {"action": self.actions[int(identity)]}

    def get_action_of(self, _thing: str, identity: str, query: object, body: object) -> Answer:
        return self.get_action(identity, query, body)

    def get_account(self, query: object, body: object) -> Answer:
        account = {
            "droplet_limit": self.droplet_limit, "floating_ip_limit": 5, "email": "grid@example.com",
            "uuid": str(uuid.UUID(int=1)), "email_verified": True, "status": "active", "status_message": "",
        }  # fmt: skip
        return 200, {"account": account}

    # -- keys

    def make_key(self, query: object, body: Document) -> Answer:
        content = body["public_key"].split()[1]
        digest = hashlib.md5(base64.b64decode(content), usedforsecurity=False).hexdigest()
        fingerprint = ":".join(digest[place : place + 2] for place in range(0, 32, 2))
        if any(key["fingerprint"] == fingerprint for key in self.keys.values()):
            raise wrong("SSH Key is already in use on your account")
        key = {"id": self.number(), "fingerprint": fingerprint, "public_key": body["public_key"], "name": body["name"]}
        self.keys[key["id"]] = key
        return 201, {"ssh_key": key}

    def key_called(self, name: str) -> Document:
        for key in self.keys.values():
            if name in (str(key["id"]), key["fingerprint"]):
                return key
        raise wrong(f"{name} are invalid key identifiers for Droplet creation.")

    def delete_key(self, identity: str, query: object, body: object) -> Answer:
        if int(identity) not in self.keys:
            raise not_there("resource")
        del self.keys[int(identity)]
        return 204, None

    # -- Droplets

    def make_droplet(self, query: object, body: Document) -> Answer:
        if len(self.droplets) >= self.droplet_limit:
            raise wrong("creating this/these droplet(s) will exceed your droplet limit")
        image = self.image_called(str(body["image"]))
        size = body["size"]
        if size not in SIZES:
            raise wrong("You specified an invalid size for Droplet creation.")
        if (image["min_disk_size"] or 0) > SIZES[size][2]:
            raise wrong("Size is too small for this image.")
        vpc = self.vpcs.get(body.get("vpc_uuid") or next(iter(self.vpcs)))
        if vpc is None or vpc["region"] != body["region"]:
            raise wrong("VPC is not in the region of the Droplet.")
        keys = [self.key_called(str(key)) for key in body.get("ssh_keys") or []]
        identity = self.number()
        droplet = {
            "id": identity, "name": body["name"], "locked": True, "status": "new", "kernel": None, "created_at": now(),
            "features": ["private_networking"], "backup_ids": [], "next_backup_window": None, "snapshot_ids": [],
            "image": image, "volume_ids": [], "networks": {"v4": [], "v6": []}, "region": region(),
            "tags": [self.canonical(tag) for tag in body.get("tags") or []], "vpc_uuid": vpc["id"],
        }  # fmt: skip
        resize(droplet, size)
        self.private[identity] = self.free_address(vpc)
        self.droplets[identity] = droplet
        self.user_data[identity] = body.get("user_data") or ""
        self.public_keys[identity] = [key["public_key"] for key in keys]
        network = ipaddress.ip_network(vpc["ip_range"])
        private = {
            "ip_address": self.private[identity], "netmask": str(network.netmask), "gateway": str(network[1]),
            "type": "private",
        }  # fmt: skip
        public = {
            "ip_address": f"203.0.113.{identity % 250 + 2}", "netmask": "255.255.255.0", "gateway": "203.0.113.1",
            "type": "public",
        }  # fmt: skip

        def end() -> None:
            droplet.update(status="active", locked=False, networks={"v4": [private, public], "v6": []})

        action = self.begin("create", "droplet", identity, end)
        link = {"id": action["id"], "rel": "create", "href": f"https://api.digitalocean.com/v2/actions/{action['id']}"}
        return 202, {"droplet": droplet, "links": {"actions": [link]}}

    def free_address(self, vpc: Document) -> str:
        """The lowest one of the network that nobody has; the first ones are DigitalOcean's own."""
        there = [*self.droplets.values(), *self.leaving.values()]
        used = {self.private[one["id"]] for one in there if one["vpc_uuid"] == vpc["id"]}
        network = ipaddress.ip_network(vpc["ip_range"])
        return next(str(network[number]) for number in range(10, 250) if str(network[number]) not in used)

    def droplet(self, identity: str | int) -> Document:
        if not str(identity).isdigit() or int(identity) not in self.droplets:
            raise not_there("resource")
        return self.droplets[int(identity)]

    def get_droplet(self, identity: str, query: object, body: object) -> Answer:
        return 200, {"droplet": self.droplet(identity)}

    def delete_droplet(self, identity: str, query: object, body: object) -> Answer:
        droplet = self.droplet(identity)
        self.leaving[droplet["id"]] = self.droplets.pop(droplet["id"])

        def end() -> None:
            del self.leaving[droplet["id"]]
            for volume in self.volumes.values():
                volume["droplet_ids"] = [one for one in volume["droplet_ids"] if one != droplet["id"]]
            for address in self.addresses.values():
                if (address["droplet"] or {}).get("id") == droplet["id"]:
                    address["droplet"] = None

        self.later(end)
        return 204, None

    def act_on_droplet(self, identity: str, query: object, body: Document) -> Answer:
        droplet, kind = self.droplet(identity), body["type"]
        if kind in ("power_on", "power_off", "shutdown"):
            status = "active" if kind == "power_on" else "off"
            if kind == "shutdown" and droplet["id"] in self.deaf:
                status = droplet["status"]
            return 201, {"action": self.begin_on(droplet, kind, lambda: droplet.update(status=status))}
        if kind == "resize":
            if droplet["status"] != "off":
                raise wrong("Droplet must be powered off before resizing.")
            if body["size"] not in SIZES:
                raise wrong("The size you specified is not available.")
            if SIZES[body["size"]][2] < droplet["disk"] or body.get("disk"):
                raise wrong("This size is not available because it has a smaller disk.")
            disk = droplet["disk"]

            def end_resize() -> None:
                resize(droplet, body["size"])
                droplet["disk"] = disk

            return 201, {"action": self.begin_on(droplet, kind, end_resize)}
        if kind == "snapshot":
            image = {"id": self.number(), "name": body["name"], "type": "snapshot", "disk": droplet["disk"]}

            def end_snapshot() -> None:
                self._have_image(**image)
                self.sources[image["id"]] = droplet["id"]
                droplet["snapshot_ids"].append(image["id"])

            return 201, {"action": self.begin_on(droplet, kind, end_snapshot)}
        raise wrong(f"{kind} is not done by this double")

    # -- images

    def _have_image(self, *, disk: int, slug: str | None = None, public: bool = False, **told: Any) -> None:
        self.images[told["id"]] = {
            **told, "distribution": "Debian", "slug": slug, "public": public, "regions": [REGION],
            "created_at": now(), "min_disk_size": disk, "size_gigabytes": 1.5, "description": "", "tags": [],
            "status": "available", "error_message": "",
        }  # fmt: skip

    def image_called(self, name: str) -> Document:
        for image in self.images.values():
            if name in (str(image["id"]), image["slug"]):
                return image
        raise wrong("You specified an invalid image for Droplet creation.")

    def get_image(self, name: str, query: object, body: object) -> Answer:
        try:
            return 200, {"image": self.image_called(name)}
        except Refusal:
            raise not_there("resource") from None

    def delete_image(self, identity: str, query: object, body: object) -> Answer:
        if not identity.isdigit() or int(identity) not in self.images:
            raise not_there("resource")
        del self.images[int(identity)]
        return 204, None

    # -- volumes

    def make_volume(self, query: object, body: Document) -> Answer:
        if any(one["name"] == body["name"] for one in self.volumes.values()):
            raise Refusal(409, "conflict", "volume name already exists")
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", body["name"]):
            raise wrong("Name must be comprised of lower case letters, digits and -.")
        volume = {
            "id": str(uuid.uuid4()), "droplet_ids": [], "name": body["name"], "size_gigabytes": body["size_gigabytes"],
            "description": "", "created_at": now(), "tags": [self.canonical(tag) for tag in body.get("tags") or []],
            "region": region(), "filesystem_type": "", "filesystem_label": "",
        }  # fmt: skip
        self.volumes[volume["id"]] = volume
        return 201, {"volume": volume}

    def volume(self, identity: str) -> Document:
        if identity not in self.volumes:
            raise not_there("volume")
        return self.volumes[identity]

    def delete_volume(self, identity: str, query: object, body: object) -> Answer:
        if self.volume(identity)["droplet_ids"]:
            raise Refusal(409, "conflict", "must detach volume before deleting")
        del self.volumes[identity]
        return 204, None

    def act_on_volume(self, identity: str, query: object, body: Document) -> Answer:
        volume = self.volume(identity)
        if body["type"] == "resize":
            if body["size_gigabytes"] <= volume["size_gigabytes"]:
                raise wrong("a volume can only grow")
            return 202, {
                "action": self.begin(
                    "resize", "backend", None, lambda: volume.update(size_gigabytes=body["size_gigabytes"])
                )
            }
        droplet = self.droplet(body["droplet_id"])
        if body["type"] == "attach":
            if volume["droplet_ids"]:
                raise wrong("volume is already attached to a droplet")

            def attach() -> None:
                volume["droplet_ids"].append(droplet["id"])
                droplet["volume_ids"].append(volume["id"])

            return 202, {"action": self.begin_on(droplet, "attach_volume", attach)}
        if droplet["id"] not in volume["droplet_ids"]:
            raise wrong("volume is not attached to the droplet")

        def detach() -> None:
            volume["droplet_ids"].remove(droplet["id"])
            droplet["volume_ids"].remove(volume["id"])

        return 202, {"action": self.begin_on(droplet, "detach_volume", detach)}

    # -- networks

    def _have_network(self, name: str, cidr: str, default: bool = False) -> Document:
        identity = str(uuid.uuid4())
        self.vpcs[identity] = {
            "id": identity, "urn": f"do:vpc:{identity}", "name": name, "description": "", "region": REGION,
            "ip_range": cidr, "created_at": now(), "default": default,
        }  # fmt: skip
        return self.vpcs[identity]

    def make_vpc(self, query: object, body: Document) -> Answer:
        if any(one["name"] == body["name"] for one in self.vpcs.values()):
            raise wrong("name has already been taken")
        cidr = ipaddress.ip_network(body["ip_range"])
        if any(cidr.overlaps(ipaddress.ip_network(one["ip_range"])) for one in self.vpcs.values()):
            raise wrong("This range/size overlaps with another VPC network in your account")
        return 201, {"vpc": self._have_network(body["name"], body["ip_range"])}

    def delete_vpc(self, identity: str, query: object, body: object) -> Answer:
        if identity not in self.vpcs:
            raise not_there("resource")
        if self.vpcs[identity]["default"]:
            raise Refusal(403, "forbidden", "Can not delete default VPCs")
        if any(one["vpc_uuid"] == identity for one in [*self.droplets.values(), *self.leaving.values()]):
            raise Refusal(403, "forbidden", "Can not delete VPC with members")
        del self.vpcs[identity]
        return 204, None

    def make_firewall(self, query: object, body: Document) -> Answer:
        if any(one["name"] == body["name"] for one in self.firewalls.values()):
            raise Refusal(409, "conflict", "duplicate name")
        identity = str(uuid.uuid4())
        self.firewalls[identity] = {"id": identity, "created_at": now()}
        try:
            return 202, self._change_firewall(identity, body)
        except Refusal:
            del self.firewalls[identity]
            raise

    def change_firewall(self, identity: str, query: object, body: Document) -> Answer:
        if identity not in self.firewalls:
            raise not_there("firewall")
        return 200, self._change_firewall(identity, body)

    def _change_firewall(self, identity: str, body: Document) -> Document:
        sources = [tag for rule in body["inbound_rules"] for tag in rule["sources"].get("tags") or []]
        missing = {*sources, *(body.get("tags") or [])} - set(self.tags)
        if missing:
            raise Refusal(400, "bad_request", f"tags that are not there: {', '.join(sorted(missing))}")
        told = {
            "inbound_rules": [
                {**rule, "sources": {word: one for word, one in rule["sources"].items() if one}}
                for rule in body["inbound_rules"]
            ],
            "outbound_rules": [
                {**rule, "destinations": {word: one for word, one in rule["destinations"].items() if one}}
                for rule in body["outbound_rules"]
            ],
        }
        self.firewalls[identity] |= {
            **told, "name": body["name"], "status": "succeeded", "pending_changes": [],
            "droplet_ids": body.get("droplet_ids") or [], "tags": body.get("tags") or [],
        }  # fmt: skip
        return {"firewall": self.firewalls[identity]}

    def delete_firewall(self, identity: str, query: object, body: object) -> Answer:
        if identity not in self.firewalls:
            raise not_there("firewall")
        del self.firewalls[identity]
        return 204, None

    # -- tags

    def canonical(self, tag: str) -> str:
        """A tag as it was written first, however it is written now; it comes to be by being used."""
        if not re.fullmatch(r"[a-zA-Z0-9_:-]{1,255}", tag):
            raise wrong(f"invalid tag {tag}")
        there = next((one for one in self.tags if one.lower() == tag.lower()), None)
        if there is None:
            self.tags.append(tag)
        return there or tag

    def things(self) -> dict[str, Iterable[Document]]:
        return {"droplet": self.droplets.values(), "image": self.images.values(), "volume": self.volumes.values()}

    def told(self, tag: str) -> Document:
        counts = {kind: sum(tag in one["tags"] for one in things) for kind, things in self.things().items()}
        each = {f"{kind}s": {"count": count} for kind, count in counts.items()}
        return {"name": tag, "resources": {"count": sum(counts.values()), **each}}

    def make_tag(self, query: object, body: Document) -> Answer:
        return 201, {"tag": self.told(self.canonical(body["name"]))}

    def tag_called(self, tag: str) -> str:
        if tag not in self.tags:
            raise not_there("tag")
        return tag

    def get_tag(self, tag: str, query: object, body: object) -> Answer:
        return 200, {"tag": self.told(self.tag_called(tag))}

    def delete_tag(self, tag: str, query: object, body: object) -> Answer:
        self.tags.remove(self.tag_called(tag))
        for things in self.things().values():
            for one in things:
                one["tags"] = [each for each in one["tags"] if each != tag]
        return 204, None

    def resources(self, body: Document) -> Iterable[Document]:
        for wanted in body["resources"]:
            things = self.things()[wanted["resource_type"]]
            found = [one for one in things if str(one["id"]) == wanted["resource_id"]]
            if not found:
                raise not_there("resource")
            yield from found

    def tag_things(self, tag: str, query: object, body: Document) -> Answer:
        self.tag_called(tag)
        for one in self.resources(body):
            one["tags"] = [*(each for each in one["tags"] if each != tag), tag]
        return 204, None

    def untag_things(self, tag: str, query: object, body: Document) -> Answer:
        self.tag_called(tag)
        for one in self.resources(body):
            one["tags"] = [each for each in one["tags"] if each != tag]
        return 204, None

    # -- projects and addresses

    def _have_project(self, told: Document, default: bool = False) -> Document:
        identity = str(uuid.uuid4())
        self.projects[identity] = {
            "id": identity, "owner_uuid": str(uuid.UUID(int=1)), "owner_id": 1, "name": told["name"],
            "description": told.get("description", ""), "purpose": told["purpose"],
            "environment": told.get("environment", "Development"), "created_at": now(), "updated_at": now(),
            "is_default": default,
        }  # fmt: skip
        return self.projects[identity]

    def make_project(self, query: object, body: Document) -> Answer:
        if any(one["name"] == body["name"] for one in self.projects.values()):
            raise Refusal(409, "conflict", "name is already in use")
        return 201, {"project": self._have_project(body)}

    def delete_project(self, identity: str, query: object, body: object) -> Answer:
        if identity not in self.projects:
            raise not_there("resource")
        if any(address["project_id"] == identity for address in self.addresses.values()):
            raise Refusal(412, "precondition_failed", "cannot delete a project with resources")
        del self.projects[identity]
        return 204, None

    def make_address(self, query: object, body: Document) -> Answer:
        address = f"192.0.2.{self.number() % 250 + 2}"
        if body["project_id"] not in self.projects:
            raise not_there("project")
        self.addresses[address] = {
            "ip": address, "region": region(), "droplet": None, "locked": False, "project_id": body["project_id"]
        }  # fmt: skip
        return 202, {"reserved_ip": self.addresses[address], "links": {"droplets": [], "actions": []}}

    def address(self, address: str) -> Document:
        if address not in self.addresses:
            raise not_there("resource")
        return self.addresses[address]

    def get_address(self, address: str, query: object, body: object) -> Answer:
        return 200, {"reserved_ip": self.address(address)}

    def delete_address(self, address: str, query: object, body: object) -> Answer:
        del self.addresses[self.address(address)["ip"]]
        return 204, None

    def act_on_address(self, address: str, query: object, body: Document) -> Answer:
        entry = self.address(address)
        droplet = self.droplet(body["droplet_id"]) if body["type"] == "assign" else None
        action = self.begin(f"{body['type']}_ip", "reserved_ip", None, lambda: entry.update(droplet=droplet))
        return 201, {"action": {**action, "project_id": entry["project_id"]}}


def region() -> Document:
    features = ["private_networking", "backups", "ipv6", "metadata", "storage"]
    return {"name": "Frankfurt 1", "slug": REGION, "features": features, "available": True, "sizes": list(SIZES)}


def resize(droplet: Document, name: str) -> None:
    """Give a Droplet a size."""
    memory, processors, disk = SIZES[name]
    size = {
        "slug": name, "memory": memory, "vcpus": processors, "disk": disk, "transfer": 1.0, "price_monthly": 12.0,
        "price_hourly": 0.018, "regions": [REGION], "available": True, "description": "Basic",
    }  # fmt: skip
    droplet |= {"size": size, "size_slug": name, "memory": memory, "vcpus": processors, "disk": disk}
