# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The books of a genuine OpenStack, which runs on a host of the lab (molecule/shared/openstack) without hypervisors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.lab.lab import Lab
from tests.lab.machine import CACHE

from .cloud import Booked, Plugged

CLOUD = "lab"


def folder(lab: Lab) -> Path:
    """Where the controller has what it needs to log in."""
    return CACHE / f"openstack-{lab.name}"


def serve(_lab: Lab) -> tuple[list[str], int]:
    """Nothing: its services run already."""
    return [], 0


def environment(lab: Lab) -> dict[str, str]:
    """How everybody's SDK finds the API."""
    return {"OS_CLIENT_CONFIG_FILE": str(folder(lab) / "clouds.yaml"), "OS_CLOUD": CLOUD}


def connect(lab: Lab) -> Any:
    """A connection with all rights."""
    configuration = OpenStackConfig(config_files=[str(folder(lab) / "clouds.yaml")]).get_one(CLOUD)
    return Connection(config=configuration)


class OpenStack:
    """Reads what Nova, Glance and Cinder say. Made and used in the lab's network."""

    def __init__(self, lab: Lab) -> None:
        self.cloud = connect(lab)
        self._keys: dict[str, str] = {}

    def machines(self) -> Iterable[Booked]:
        plugged = self._plugged()
        for server in self.cloud.compute.servers(details=True):
            address = private_address(server)
            if not address or server.status in ("DELETED", "SOFT_DELETED", "ERROR"):
                continue
            # A machine whose size is being changed runs as soon as it has to be confirmed, unless it was switched off.
            runs = server.status == "ACTIVE" or (server.status == "VERIFY_RESIZE" and server.power_state == 1)
            yield Booked(
                name=server.id,
                address=address,
                runs=runs and server.metadata.get("hands") != "never-boots",
                image=(server.image or {}).get("id", ""),
                size=server.flavor["original_name"],
                memory_mb=server.flavor["ram"],
                processors=server.flavor["vcpus"],
                keys=self._key(server.key_name),
                volumes=tuple(plugged[server.id]),
            )

    def images(self) -> Mapping[str, str]:
        found = self.cloud.image.images()
        return {image.id: image.properties["instance_uuid"] for image in found if "instance_uuid" in image.properties}

    def volumes(self) -> Iterable[str]:
        return [volume.id for volume in self.cloud.block_storage.volumes()]

    def _plugged(self) -> dict[str, list[Plugged]]:
        found = defaultdict(list)
        for volume in self.cloud.block_storage.volumes(details=True):
            for attachment in volume.attachments:
                device = Path(attachment["device"] or "/dev/vdb").name
                link = f"virtio-{volume.id[:20]}"
                found[attachment["server_id"]].append(Plugged(volume.id, volume.size, device, link))
        return found

    def _key(self, name: str | None) -> tuple[str, ...]:
        if not name:
            return ()
        if name not in self._keys:
            self._keys[name] = self.cloud.compute.get_keypair(name).public_key
        return (self._keys[name],)


def private_address(server: Any) -> str:
    """The address that a server has in its own network; "" as long as there is none."""
    entries = [entry for network in (server.addresses or {}).values() for entry in network]
    return next((entry["addr"] for entry in entries if entry.get("OS-EXT-IPS:type") == "fixed"), "")


open_books = OpenStack
