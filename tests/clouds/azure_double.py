# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lists virtual machines and their addresses as Azure does; answers are made of the SDK's own models."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network

from tests.support.servers import Asked

TOKEN, SECRET = "token-of-the-tests", "header-of-the-tests"
PAGE_SIZE = 100


class Azure:
    """Subscriptions with machines, network interfaces and public addresses."""

    def __init__(self) -> None:
        self.machines: dict[str, list[tuple[dict[str, Any], str]]] = {}
        self.interfaces: dict[str, list[dict[str, Any]]] = {}
        self.public: dict[str, list[dict[str, Any]]] = {}

    def add(self, subscription: str, name: str, location: str, tags: dict[str, str], *, public: str = "") -> None:
        """Make a machine with an interface; ids are written now with capital letters, now without, as Azure does."""
        machines = self.machines.setdefault(subscription, [])
        number = len(machines) + 1
        group = f"/subscriptions/{subscription}/resourceGroups/Grid/providers"
        interface = f"{group}/Microsoft.Network/networkInterfaces/{name}-nic"
        outside = f"{group}/Microsoft.Network/publicIPAddresses/{name}-ip"
        machine = compute.VirtualMachine(
            location=location,
            tags=tags,
            zones=["2"],
            hardware_profile=compute.HardwareProfile(vm_size="Standard_D4s_v5"),
            storage_profile=compute.StorageProfile(
                image_reference=compute.ImageReference(
                    publisher="Debian", offer="debian-12", sku="12", version="latest"
                )
            ),
            network_profile=compute.NetworkProfile(
                network_interfaces=[compute.NetworkInterfaceReference(id=interface.upper(), primary=True)]
            ),
        ).as_dict()
        machine |= {"id": f"{group}/Microsoft.Compute/virtualMachines/{name}", "name": name}
        machine["properties"]["vmId"] = f"00000000-0000-0000-0000-{number:012}"
        machines.append((machine, "running"))
        configuration = network.NetworkInterfaceIPConfiguration(
            name="ipconfig1",
            primary=True,
            private_ip_address=f"10.3.{number // 250}.{number % 250 + 1}",
            public_ip_address=network.PublicIPAddress(id=outside) if public else None,
        )
        nic = network.NetworkInterface(id=interface, location=location, ip_configurations=[configuration]).as_dict()
        self.interfaces.setdefault(subscription, []).append(nic)
        self.public.setdefault(subscription, [])
        if public:
            address = network.PublicIPAddress(id=outside, location=location, ip_address=public).as_dict()
            self.public[subscription].append(address)

    def answer(self, path: str, query: dict[str, str], base: str) -> tuple[int, dict[str, Any]]:
        subscription, *rest = path.split("/")[2:]
        if subscription not in self.machines:
            return 403, {"error": {"code": "AuthorizationFailed", "message": "The client does not have authorization"}}
        kind = "/".join(rest)
        if kind == "providers/Microsoft.Compute/virtualMachines":
            with_state = query.get("statusOnly") == "true"
            found = [_with_state(*entry) if with_state else entry[0] for entry in self.machines[subscription]]
        elif kind == "providers/Microsoft.Network/networkInterfaces":
            found = self.interfaces[subscription]
        elif kind == "providers/Microsoft.Network/publicIPAddresses":
            found = self.public[subscription]
        else:
            return 404, {"error": {"code": "InvalidResourceType", "message": f"there is no {path}"}}
        begin = int(query.get("$skiptoken", 0))
        document: dict[str, Any] = {"value": found[begin : begin + PAGE_SIZE]}
        if begin + PAGE_SIZE < len(found):
            more = urlencode({**query, "$skiptoken": begin + PAGE_SIZE})
            document["nextLink"] = f"{base}{path}?{more}"
        return 200, document

    def asked(self, request: Asked) -> tuple[int, dict[str, Any]]:
        """Answer a request; tokens are given out as to an App Service."""
        if request.path == "/token":
            known = request.headers.get("X-IDENTITY-HEADER") == SECRET
            expires = str(int(time.time()) + 3600)
            return (200, {"access_token": TOKEN, "expires_on": expires}) if known else (401, {})
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error": {"code": "InvalidAuthenticationToken", "message": "The access token"}}
        return self.answer(request.path, request.query, f"https://{request.headers['X-Forwarded-Host']}")


def _with_state(machine: dict[str, Any], state: str) -> dict[str, Any]:
    """What ``statusOnly`` gives: the machine without most of its properties, with its power state."""
    status = compute.InstanceViewStatus(code=f"PowerState/{state}", level="Info", display_status=f"VM {state}")
    view = compute.VirtualMachineInstanceView(statuses=[status]).as_dict()
    return {
        "id": machine["id"],
        "name": machine["name"],
        "location": machine["location"],
        "properties": {"instanceView": view},
    }
