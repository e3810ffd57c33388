# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a grid on Google Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gcp
short_description: Nodes of a grid on Google Compute Engine
version_added: 0.1.0
description:
  - Finds instances by their labels C(pygrid_grid), C(pygrid_role), C(pygrid_name) and C(pygrid_domain), and makes them
    the groups and hosts that every playbook of this collection understands.
  - Credentials are the application default ones, as Google's own tools find them.
  - Labels of Google have no capital letters, so neither have nodes that are called by one.
  - A preemptible machine that Google has taken away is stopped and still there; it is left out.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [openmined.pygrid.gcp]
  projects:
    description: Projects to look into. When empty, the one of the credentials.
    type: list
    elements: str
    default: []
  service_account_file:
    description: A key of a service account on the controller. When empty, the application default credentials.
    type: path
  endpoint:
    description: Address of the API. When empty, Google's.
    type: str
    default: ""
extends_documentation_fragment:
  - openmined.pygrid.cloud_inventory
  - constructed
  - inventory_cache
requirements:
  - google-cloud-compute in the Python that runs Ansible
"""

EXAMPLES = r"""
# The grid of a project.
plugin: openmined.pygrid.gcp
projects: [heart-study]

---
# Two projects, one region of each.
plugin: openmined.pygrid.gcp
projects: [heart-study, heart-study-archive]
regions: [europe-west4]
"""

from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.cloud_inventory import (
    CloudInventory,
    Machine,
    PassingError,
)

PAGE_SIZE = 500
SCOPES = ["https://www.googleapis.com/auth/compute.readonly"]
# An empty zone is told as a warning, too.
HARMLESS = {"NO_RESULTS_ON_PAGE"}
# A machine has this label while resize.yml changes its size.
RESIZING = "pygrid_resizing"


class InventoryModule(CloudInventory):
    """Lists instances, all zones of a project at once, each project in a thread of its own."""

    NAME = "openmined.pygrid.gcp"
    CLOUD = "Google Cloud"
    NEEDS = (("google.cloud.compute_v1", "google-cloud-compute"),)

    def places(self) -> Iterable[str]:
        """The projects."""
        self._credentials, project = self._authenticate()
        projects = self.get_option("projects") or [project]
        if not projects[0]:
            raise PygridError("no project is known; name some with the option projects")
        return projects

    def list_machines(self, place: str) -> Iterator[Machine]:
        """The instances of one project."""
        from google.cloud import compute_v1

        options = {"api_endpoint": self.get_option("endpoint")} if self.get_option("endpoint") else {}
        client = compute_v1.InstancesClient(credentials=self._credentials, client_options=options)
        request = compute_v1.AggregatedListInstancesRequest(
            project=place, filter="labels.pygrid_grid:*", max_results=PAGE_SIZE
        )
        for page in client.aggregated_list(request, retry=None, timeout=self.seconds()).pages:
            missing = list(page.unreachables)
            for zone, answer in page.items.items():
                if answer.warning.code and answer.warning.code not in HARMLESS:
                    missing.append(f"{zone}: {answer.warning.message or answer.warning.code}")
                yield from (_machine(instance) for instance in answer.instances if not _is_taken_away(instance))
            if missing:
                raise PassingError(f"not all zones answered: {', '.join(missing)}")

    def explain(self, error: Exception, place: str) -> PygridError:
        """What Google or its SDK said, and what to do about it."""
        from google.api_core import exceptions
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
        from google.protobuf.json_format import ParseError

        if isinstance(error, (DefaultCredentialsError, GoogleAuthError)) and not isinstance(error, TransportError):
            return PygridError(f"{error}; run gcloud auth application-default login, or name a service_account_file")
        if isinstance(error, exceptions.GoogleAPICallError):
            status = int(error.code or 0)
            if status == 429 or status >= 500:
                return PassingError(str(error))
            if status in (401, 403):
                return PygridError(f"{error}; the account needs compute.instances.list in {place or 'the project'}")
            return PygridError(str(error))
        if isinstance(error, (exceptions.RetryError, TransportError, ParseError, OSError)):
            return PassingError(f"{type(error).__name__}: {error}")
        return PygridError(f"{type(error).__name__}: {error}")

    def _authenticate(self) -> tuple[Any, str | None]:
        import google.auth

        key = self.get_option("service_account_file")
        if key:
            return google.auth.load_credentials_from_file(key, scopes=SCOPES)
        return google.auth.default(scopes=SCOPES)


def _is_taken_away(instance: Any) -> bool:
    """Whether Google has stopped it to use its place: a preemptible one that nobody is changing, and that is off."""
    return instance.scheduling.preemptible and instance.status == "TERMINATED" and RESIZING not in instance.labels


def _machine(instance: Any) -> Machine:
    addresses: dict[str, str] = {}
    for interface in instance.network_interfaces:
        public = next((access.nat_i_p for access in interface.access_configs if access.nat_i_p), "")
        for kind, address in (("private", interface.network_i_p), ("public", public)):
            if address:
                addresses.setdefault(kind, address)
    zone = instance.zone.rpartition("/")[2]
    return Machine(
        cloud="gcp",
        id=str(instance.id),
        name=instance.name,
        region=zone.rpartition("-")[0],
        zone=zone,
        state=instance.status.lower(),
        type=instance.machine_type.rpartition("/")[2],
        addresses=addresses,
        tags=dict(instance.labels),
    )
