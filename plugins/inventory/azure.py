# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a grid on Microsoft Azure."""

from __future__ import annotations

DOCUMENTATION = r"""
name: azure
short_description: Nodes of a grid on Microsoft Azure
version_added: 0.1.0
description:
  - Finds virtual machines by their tags C(pygrid_grid), C(pygrid_role), C(pygrid_name) and C(pygrid_domain), and makes
    them the groups and hosts that every playbook of this collection understands.
  - Credentials are found as the Azure SDK finds them, in the environment, of this machine, or of C(az login).
  - Machines of a scale set are found when it is a flexible one.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [openmined.pygrid.azure]
  subscriptions:
    description: Ids of the subscriptions to look into.
    type: list
    elements: str
    default: []
    env:
      - name: AZURE_SUBSCRIPTION_ID
  endpoint:
    description: Address of Azure's Resource Manager.
    type: str
    default: https://management.azure.com
    env:
      - name: AZURE_RESOURCE_MANAGER_URL
extends_documentation_fragment:
  - openmined.pygrid.cloud_inventory
  - constructed
  - inventory_cache
requirements:
  - azure-mgmt-compute, azure-mgmt-network and azure-identity in the Python that runs Ansible
"""

EXAMPLES = r"""
# The grid of a subscription.
plugin: openmined.pygrid.azure
subscriptions: [11111111-2222-3333-4444-555555555555]

---
# Only what is in one location, reached from outside.
plugin: openmined.pygrid.azure
subscriptions: [11111111-2222-3333-4444-555555555555]
regions: [westeurope]
addresses: [public]
"""

from collections.abc import Iterable, Iterator
from json import JSONDecodeError
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.cloud_inventory import (
    CloudInventory,
    Machine,
    PassingError,
)

GONE = {"deleting", "deleted"}


class InventoryModule(CloudInventory):
    """Lists virtual machines and, since they do not know them, their addresses; each subscription in a thread."""

    NAME = "openmined.pygrid.azure"
    CLOUD = "Azure"
    NEEDS = (
        ("azure.identity", "azure-identity"),
        ("azure.mgmt.compute", "azure-mgmt-compute"),
        ("azure.mgmt.network", "azure-mgmt-network"),
    )

    def places(self) -> Iterable[str]:
        """The subscriptions."""
        from azure.identity import DefaultAzureCredential

        if not self.get_option("subscriptions"):
            raise PygridError("no subscription is known; name some with the option subscriptions")
        self._credential = DefaultAzureCredential()
        return self.get_option("subscriptions")

    def list_machines(self, place: str) -> Iterator[Machine]:
        """The virtual machines of one subscription."""
        from azure.mgmt.compute import ComputeManagementClient
        from azure.mgmt.network import NetworkManagementClient

        endpoint = self.get_option("endpoint")
        account = {
            "credential": self._credential,
            "subscription_id": place,
            "base_url": endpoint,
            "credential_scopes": [f"{endpoint.rstrip('/')}/.default"],
            "connection_timeout": self.seconds(),
            "read_timeout": self.seconds(),
            "retry_total": 0,  # of tries there is one count, in in_parallel.py
        }
        with ComputeManagementClient(**account) as compute, NetworkManagementClient(**account) as network:
            machines = [
                machine for machine in compute.virtual_machines.list_all() if "pygrid_grid" in (machine.tags or {})
            ]
            if not machines:
                return
            states = {
                _key(machine.id): _state(machine) for machine in compute.virtual_machines.list_all(status_only="true")
            }
            public = {_key(entry.id): entry.ip_address for entry in network.public_ip_addresses.list_all()}
            interfaces = {_key(interface.id): interface for interface in network.network_interfaces.list_all()}
        for machine in machines:
            state = states.get(_key(machine.id), "")
            if state not in GONE:
                yield _machine(machine, state, _addresses(machine, interfaces, public))

    def explain(self, error: Exception, place: str) -> PygridError:
        """What Azure or its SDK said, and what to do about it."""
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

        sentence = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, ClientAuthenticationError):
            return PygridError(
                f"{sentence}; run az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET"
            )
        if isinstance(error, HttpResponseError) and error.status_code:
            if error.status_code == 429 or error.status_code >= 500:
                return PassingError(sentence)
            if error.status_code == 403:
                return PygridError(
                    f"{sentence}; the account needs the role Reader; docs/inventories.md has a smaller one"
                )
            return PygridError(sentence)
        if isinstance(error, (AzureError, OSError, JSONDecodeError)):  # no connection, or an answer that breaks off
            return PassingError(f"{type(error).__name__}: {sentence}")
        return PygridError(f"{type(error).__name__}: {sentence}")


def _key(resource: str) -> str:
    """Azure writes the same id now with capital letters, now without."""
    return resource.lower()


def _state(machine: Any) -> str:
    statuses = (machine.instance_view.statuses if machine.instance_view else None) or []
    codes = [status.code.partition("/") for status in statuses if status.code]
    return next((state for kind, _slash, state in codes if kind == "PowerState"), "")


def _addresses(machine: Any, interfaces: dict[str, Any], public: dict[str, str | None]) -> dict[str, str]:
    profile = machine.network_profile
    references = (profile.network_interfaces if profile else None) or []
    found: dict[str, str] = {}
    for reference in sorted(references, key=lambda reference: not reference.primary):
        interface = interfaces.get(_key(reference.id))
        for configuration in (interface.ip_configurations if interface else None) or []:
            if configuration.private_ip_address:
                found.setdefault("private", configuration.private_ip_address)
            outside = configuration.public_ip_address
            address = public.get(_key(outside.id)) if outside else None
            if address:
                found.setdefault("public", address)
    return found


def _machine(machine: Any, state: str, addresses: dict[str, str]) -> Machine:
    reference = machine.storage_profile.image_reference if machine.storage_profile else None
    image = [reference.publisher, reference.offer, reference.sku] if reference else []
    return Machine(
        cloud="azure",
        id=machine.vm_id or machine.id,
        name=machine.name or "",
        region=machine.location or "",
        zone=(machine.zones or [""])[0],
        state=state,
        type=(machine.hardware_profile.vm_size if machine.hardware_profile else None) or "",
        image=":".join(word for word in image if word),
        addresses=addresses,
        tags=dict(machine.tags),
    )
