# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a grid in containers."""

from __future__ import annotations

DOCUMENTATION = r"""
name: docker
short_description: Nodes of a grid in Docker containers
version_added: 0.1.0
description:
  - Finds containers by their labels C(pygrid_grid), C(pygrid_role), C(pygrid_name) and C(pygrid_domain), and makes them
    the groups and hosts that every playbook of this collection understands.
  - Containers that are nodes themselves (C(pygrid_install_method=container)) are passed over, as nothing is deployed
    into those.
  - The region of a container is the name of its Docker daemon's host, its type is empty.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [openmined.pygrid.docker]
  docker_hosts:
    description:
      - Docker daemons, as C(DOCKER_HOST) names them. When empty, the one of the environment.
      - C(DOCKER_TLS_VERIFY) and C(DOCKER_CERT_PATH) say how those with V(tcp://) are reached by TLS.
    type: list
    elements: str
    default: []
  connection:
    description:
      - V(docker) runs commands with C(docker exec), which needs the collection C(community.docker).
      - V(ssh) takes the container's address.
    type: str
    choices: [docker, ssh]
    default: docker
  networks:
    description: Docker networks whose addresses are taken. When empty, all of them.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - openmined.pygrid.cloud_inventory
  - constructed
  - inventory_cache
requirements:
  - docker (the SDK) in the Python that runs Ansible
"""

EXAMPLES = r"""
# Containers of the Docker that this account may use.
plugin: openmined.pygrid.docker

---
# Containers of two machines that are reached by SSH.
plugin: openmined.pygrid.docker
docker_hosts: [ssh://operator@big1, ssh://operator@big2]
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.images import HOME_LABEL
from ansible_collections.openmined.pygrid.plugins.plugin_utils.cloud_inventory import (
    CloudInventory,
    Machine,
    PassingError,
)

ENVIRONMENT = "the environment's"
# What lies in DOCKER_CERT_PATH, by the options of community.docker's connection.
CERTIFICATES = {"ca_path": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}


class InventoryModule(CloudInventory):
    """Lists containers, each daemon in a thread of its own."""

    NAME = "openmined.pygrid.docker"
    CLOUD = "Docker"
    NEEDS = (("docker", "docker"),)

    def places(self) -> Iterable[str]:
        """The daemons."""
        if self.get_option("regions"):
            raise PygridError("Docker has no regions; name daemons with the option docker_hosts")
        return self.get_option("docker_hosts") or [ENVIRONMENT]

    def list_machines(self, place: str) -> Iterator[Machine]:
        """The containers of one daemon: one call, since their list says all that is needed."""
        import docker

        arguments = docker.utils.kwargs_from_env()
        if place != ENVIRONMENT:
            arguments["base_url"] = place
        if not arguments.get("base_url", "").startswith("tcp://"):
            arguments.pop("tls", None)
        by_ssh = arguments.get("base_url", "").startswith("ssh://")
        with contextlib.closing(
            docker.DockerClient(timeout=self.seconds(), use_ssh_client=by_ssh, **arguments)
        ) as client:
            for container in client.api.containers(all=True, filters={"label": "pygrid_grid"}):
                if HOME_LABEL not in container["Labels"]:
                    yield self._machine(container, place)

    def explain(self, error: Exception, place: str) -> PygridError:
        """What the daemon or its SDK said, and what to do about it."""
        from docker.errors import APIError, DockerException
        from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

        if isinstance(error, APIError):
            return (PassingError if error.is_server_error() or error.status_code == 429 else PygridError)(str(error))
        if isinstance(error, (Timeout, ChunkedEncodingError, ConnectionError)):
            return PassingError(str(error))
        if isinstance(error, DockerException):  # what it meets before it knows the daemon's version
            return PygridError(f"{error}; does the daemon run, and may this account use it?")
        return PygridError(f"{type(error).__name__}: {error}")

    def connection(self, machine: Machine) -> dict[str, str]:
        """With ``docker exec`` a container needs no SSH server, and no address that the controller reaches."""
        if self.get_option("connection") == "ssh":
            return {}
        daemon = os.environ.get("DOCKER_HOST", "") if machine.region == ENVIRONMENT else machine.region
        variables = {"ansible_connection": "community.docker.docker_api", "ansible_docker_host": machine.id}
        if daemon:
            variables["ansible_docker_docker_host"] = daemon
        if daemon.startswith("tcp://") and os.environ.get("DOCKER_TLS_VERIFY"):
            folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
            variables["ansible_docker_validate_certs"] = "true"
            for option, file in CERTIFICATES.items():
                variables[f"ansible_docker_{option}"] = str(folder / file)
        return variables

    def _machine(self, container: dict[str, Any], place: str) -> Machine:
        wanted = self.get_option("networks")
        networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
        addresses = [
            address
            for name, network in networks.items()
            if not wanted or name in wanted
            for address in (network.get("IPAddress"), network.get("GlobalIPv6Address"))
            if address
        ]
        return Machine(
            cloud="docker",
            id=container["Id"][:12],
            name=next(iter(container.get("Names") or []), "").lstrip("/"),
            region=place,
            state=container.get("State") or "",
            image=container.get("Image") or "",
            addresses={"private": addresses[0]} if addresses else {},
            tags=container.get("Labels") or {},
        )
