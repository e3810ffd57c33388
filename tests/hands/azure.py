# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The books of a server that answers as Azure does, read with Microsoft's SDK."""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import trustme
from azure.core.credentials import AccessToken
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient

from tests.lab.lab import Lab

from .azure_server import LOCATION, SECRET, SIZES, SUBSCRIPTION, TOKEN
from .cloud import Booked, Plugged

PORT = 8443


def bundle(lab: Lab) -> Path:
    """The certificate of the API's authority, with those that everybody trusts: packages come from elsewhere."""
    return lab.folder / "cloud" / "ca.pem"


def serve(lab: Lab) -> tuple[list[str], int]:
    """The command that runs the API in the lab's network, and its port."""
    address, authority, own = lab.network.address(1), trustme.CA(), lab.folder / "cloud" / "api.pem"
    usual = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or ""
    known = Path(usual) if usual else Path("/etc/ssl/certs/ca-certificates.crt")
    bundle(lab).write_bytes((known.read_bytes() if known.exists() else b"") + authority.cert_pem.bytes())
    authority.issue_cert(address).private_key_and_cert_chain_pem.write_to_path(own)
    words = [sys.executable, "-m", "tests.hands.azure_server", "-H", address, "-p", str(PORT)]
    return [*words, "--certificate", str(own)], PORT


def environment(lab: Lab) -> dict[str, str]:
    """How everybody's SDK finds the API."""
    url = f"https://{lab.network.address(1)}:{PORT}"
    return {
        "AZURE_RESOURCE_MANAGER_URL": url,
        "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
        "IDENTITY_ENDPOINT": f"{url}/token",
        "IDENTITY_HEADER": SECRET,
        "REQUESTS_CA_BUNDLE": str(bundle(lab)),
        "SSL_CERT_FILE": str(bundle(lab)),
    }


def host_of(machine: Any) -> str:
    """What a machine is called in the lab, where names are shorter than Azure's ids."""
    return machine.vm_id.replace("-", "")[:30]


class Known:
    """A credential that is there already."""

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return AccessToken(TOKEN, 1 << 40)


def clients(lab: Lab) -> tuple[ComputeManagementClient, NetworkManagementClient]:
    url = environment(lab)["AZURE_RESOURCE_MANAGER_URL"]
    given = {
        "credential": Known(),
        "subscription_id": SUBSCRIPTION,
        "base_url": url,
        "credential_scopes": [f"{url}/.default"],
        "connection_verify": str(bundle(lab)),
    }
    return ComputeManagementClient(**given), NetworkManagementClient(**given)


class Books:
    """Reads what the API says. Made and used in the lab's network."""

    def __init__(self, lab: Lab) -> None:
        self.compute, self.network = clients(lab)
        #: Of machines, also of those that are gone, what hands call them.
        self._names: dict[str, str] = {}

    def machines(self) -> Iterable[Booked]:
        listed = self.compute.virtual_machines.list_all(status_only="true")
        states = {one.id.lower(): one.instance_view.statuses for one in listed}
        interfaces = {one.id.lower(): one for one in self.network.network_interfaces.list_all()}
        disks = {one.id.lower(): one for one in self.compute.disks.list()}
        for machine in self.compute.virtual_machines.list_all():
            self._names[machine.id.lower()] = host_of(machine)
            if machine.provisioning_state == "Deleting":
                continue
            codes = [status.code for status in states.get(machine.id.lower(), [])]
            interface = interfaces[machine.network_profile.network_interfaces[0].id.lower()]
            memory_mb, processors = SIZES[machine.hardware_profile.vm_size]
            reference = machine.storage_profile.image_reference
            yield Booked(
                name=host_of(machine),
                address=interface.ip_configurations[0].private_ip_address,
                runs="PowerState/running" in codes and machine.tags.get("hands") != "never-boots",
                image=reference.id.rpartition("/")[2] if reference.id else reference.sku,
                size=machine.hardware_profile.vm_size,
                memory_mb=memory_mb,
                processors=processors,
                user_data=_user(machine.os_profile),
                volumes=tuple(_plugged(disk, disks) for disk in machine.storage_profile.data_disks or []),
            )

    def images(self) -> Mapping[str, str]:
        images = list(self.compute.images.list())
        return {one.name: self._names.get(one.source_virtual_machine.id.lower(), "") for one in images}

    def volumes(self) -> Iterable[str]:
        return [one.name for one in self.compute.disks.list()]


def _user(profile: Any) -> str:
    """What Azure has cloud-init do: make an account with the name and the keys that were asked for."""
    keys = [one.key_data for one in profile.linux_configuration.ssh.public_keys]
    account = {
        "name": profile.admin_username,
        "ssh_authorized_keys": keys,
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "shell": "/bin/bash",
    }
    return f"#cloud-config\n{json.dumps({'users': [account]})}\n"


def _plugged(attached: Any, disks: Mapping[str, Any]) -> Plugged:
    disk = disks[attached.managed_disk.id.lower()]
    return Plugged(
        volume=disk.name,
        gigabytes=disk.disk_size_gb,
        device=f"sd{'cdefgh'[attached.lun]}",
        link=f"../azure/scsi1/lun{attached.lun}",
    )


open_books = Books

__all__ = ["LOCATION", "Books", "clients", "environment", "host_of", "open_books", "serve"]
