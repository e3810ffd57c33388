#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.node_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: Read the real state of a node in one call
version_added: 0.1.0
description:
  - Reads what is on disk, what the service manager says and what the running node says of itself. Changes nothing.
  - Every decision of the roles is made from this one answer, so a run that was killed can simply be run again.
  - With O(checks) it also looks for everything that would make a deploy fail, before anything is changed.
  - With O(wait_for) it returns when the node has reached that state, and fails with the node's own reason when not.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes.info
options:
  details:
    description: Ask the running node for jobs, datasets, users, Workers and their current tasks too.
    type: bool
    default: false
  release_source:
    description:
      - What the controller contributes to the wanted release, from M(openmined.pygrid.grid_info).
      - Without it nothing is said about a wanted release.
    type: dict
  packages:
    description: Extra Python packages of the wanted release.
    type: list
    elements: str
    default: []
  python:
    description: Path or name of the Python to make releases from; when empty, a supported one is looked for.
    type: str
    default: ""
  managed_python:
    description: Version of the CPython that uv brings to the host; see M(openmined.pygrid.release).
    type: str
    choices: ["", "3.10", "3.11", "3.12"]
    default: ""
  bundle:
    description: What a bundle holds, from M(openmined.pygrid.bundle_archive); for O(checks).
    type: dict
  checks:
    description: Check the host for whatever would make a deploy of this node fail.
    type: bool
    default: false
  address:
    description: Address the node is to listen on; for O(checks).
    type: str
    default: 127.0.0.1
  ports:
    description: Ports the node is to listen on, by the name of the variable that sets each; for O(checks).
    type: dict
    default: {}
  distribution_packages:
    description: Packages that the services of the host need, by family of operating systems (C(debian), C(redhat)).
    type: dict
    default: {}
  system:
    description:
      - What the nodes of this machine need in scope V(system), from P(openmined.pygrid.machine_needs#filter), with
        C(controller_time); for O(checks).
    type: dict
  uid:
    description: Identity that the node is to have, when it is given from outside; for O(checks).
    type: str
    default: ""
  wait_for:
    description: V(ready) waits until the node answers that it is ready (a Worker, that its Domain's queue has seen it).
    type: str
    choices: [nothing, ready]
    default: nothing
  timeout_seconds:
    description: How long to wait.
    type: int
    default: 180
  report:
    description: Where the module tells what it is at, made by the action on the controller. Do not set it.
    type: str
"""

EXAMPLES = r"""
- name: Read alice
  openmined.pygrid.node_info:
    name: alice
  register: alice

- name: Wait until alice serves
  openmined.pygrid.node_info:
    name: alice
    wait_for: ready
    timeout_seconds: 60
"""

RETURN = r"""
node:
  description: The node.
  returned: always
  type: dict
  contains:
    name:
      description: Name of the node.
      type: str
    home:
      description: Absolute path of the folder of the grid on the host.
      type: str
    folder:
      description: Absolute path of the folder with the node's release, settings and identity.
      type: str
    host_id:
      description: The same for all nodes that share a running machine.
      type: str
    exists:
      description: Whether the node has a folder.
      type: bool
    backup:
      description:
        - Where (repository) and when (schedule) the node is backed up, the last good backup and the try after it that
          failed; null when it is not backed up.
      type: dict
    data:
      description: Whether the node has data.
      type: bool
    release:
      description: Name of the release the node points at, null without one.
      type: str
    identity:
      description: Public part of the identity (uid, verify_key, root_email, queue_public_key), null without one.
      type: dict
    settings:
      description: Content of the settings file, null without one.
      type: dict
    settings_digest:
      description: SHA-256 of the settings file, null without one.
      type: str
    workers:
      description: A Domain's allow-list of Workers, name to public key; null without one.
      type: dict
    service:
      description:
        - Its state - V(absent), V(stopped), V(starting), V(running), V(failing) or V(failed) - with pid,
          uptime_seconds, detail and what the service manager holds for it (address and port).
      type: dict
    health:
      description: The node's own answer, null when it does not give one.
      type: dict
    peers:
      description: Whom a running Network or Domain is associated with (uid, name, url, status), else null.
      type: list
      elements: dict
host:
  description: The host of the node.
  returned: always
  type: dict
  contains:
    os:
      description: Its operating system - id, version_id and family (C(debian), C(redhat) or empty).
      type: dict
    memory_mb:
      description: Memory of the host, null when it does not tell.
      type: int
    missing_packages:
      description: Which of O(distribution_packages) are not installed.
      type: list
      elements: str
    databases:
      description: Units of PostgreSQL that run and are started with the host, where O(distribution_packages) names it.
      type: list
      elements: str
    last_change:
      description:
        - The latest run in the record of the host that changed something, or may have, and how it ended; null when
          there is none. C(holds) tells whether it has the lease of the host.
      returned: when O(details) is true
      type: dict
wanted:
  description: The wanted release - O(release_source) and O(packages) on this host's Python.
  returned: when O(release_source) is given
  type: dict
  contains:
    release:
      description: Name of the release, null when the host has no usable Python.
      type: str
    python:
      description: Path of the Python it is made from; empty when uv is still to bring it.
      type: str
    tag:
      description: Minor version of that Python, for example C(cp311).
      type: str
    staged:
      description: Whether it is complete on this host.
      type: bool
    image:
      description: The image that it is.
      returned: when it is one
      type: str
    problem:
      description: Why it has no name. Without O(details) and O(checks) the module fails then.
      returned: when it has none
      type: str
problems:
  description: One sentence for everything that would make a deploy fail; empty when nothing would.
  returned: when O(checks) is true
  type: list
  elements: str
host_warnings:
  description: One sentence for everything that a person should know of this machine.
  returned: when O(checks) is true and O(system) is given
  type: list
  elements: str
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_checks import check_bundle
from ansible_collections.openmined.pygrid.plugins.module_utils.container_checks import check_engine
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.host_checks import check_data, check_home, check_ports
from ansible_collections.openmined.pygrid.plugins.module_utils.images import (
    can_run,
    image_release_name,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.lease import current_lease, host_record
from ansible_collections.openmined.pygrid.plugins.module_utils.nodes import read_health, read_node
from ansible_collections.openmined.pygrid.plugins.module_utils.operating_system import (
    describe,
    missing_packages,
    running_services,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, open_home
from ansible_collections.openmined.pygrid.plugins.module_utils.pythons import SUPPORTED_VERSIONS, find
from ansible_collections.openmined.pygrid.plugins.module_utils.record import last_change
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import is_staged, release_name
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import reporting, say
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import ServiceManager
from ansible_collections.openmined.pygrid.plugins.module_utils.services.managers import manager_for
from ansible_collections.openmined.pygrid.plugins.module_utils.system_checks import check_system, total_memory_mb

POLL_SECONDS = 0.2
# The service manager tries again in between; the log tells why the node ends each time.
FAILING_SECONDS = 10
LOG_LINES = 8


def wanted_release(home: Home, parameters: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Name and state of the wanted release on this host, and what stands against it."""
    source = parameters["release_source"]
    if "image" in source:
        name = image_release_name(source["version"], source["image"])
        staged = can_run(home, name)
        return {"release": name, "python": None, "tag": None, "staged": staged, "image": source["image"]}, []
    interpreter, problem = find(parameters["python"], parameters["managed_python"], home.root)
    if interpreter is None or problem:
        nothing = {"release": None, "python": None, "tag": None, "staged": False, "problem": problem or ""}
        return nothing, [problem or ""]
    name = release_name(
        source["version"], source["lock_sha256"], source["runtime_sha256"], parameters["packages"], interpreter.tag
    )
    staged = is_staged(home.root, name)
    return {"release": name, "python": interpreter.path, "tag": interpreter.tag, "staged": staged}, []


def read_host(packages: dict[str, list[str]]) -> dict[str, Any]:
    """The host itself: its operating system, and which of the packages it lacks."""
    system = describe()
    wanted = packages.get(system["family"], [])
    has_database = any("postgresql" in package for package in wanted)
    return {
        "os": system,
        "memory_mb": total_memory_mb(Path("/")),
        "missing_packages": missing_packages(system["family"], wanted),
        "databases": running_services("postgresql*") if has_database else [],
    }


def read_last_change(home: Home) -> dict[str, Any] | None:
    """What the record of the host tells last, and whether that run is the one that may change the host now."""
    last = last_change(host_record(home).entries())
    lease = current_lease(home)
    return None if last is None else {**last, "holds": lease is not None and lease.holder == last["run"]}


def find_problems(home: Home, state: dict[str, Any], wanted: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
    """All that would make a deploy of this node on this host fail."""
    ports = {variable: int(port) for variable, port in parameters["ports"].items()}
    source = parameters["release_source"] or {}
    in_container = "image" in source
    version = source.get("version", "")
    return [
        *(check_engine(home, state["name"], source) if in_container else []),
        # An image lies where its engine keeps it.
        *check_home(home, needs_release=not (in_container or wanted.get("staged"))),
        *check_ports(parameters["address"], ports, state["service"]["pid"], state["service"]["holds"]),
        *check_data(home.node(state["name"]), version, parameters["uid"] or None),
    ]


def wait_until_ready(home: Home, name: str, timeout_seconds: float) -> None:
    """Return when the node says that it is ready; a PygridError tells its own reason when it does not get there."""
    node = home.node(name)
    service = manager_for(home)
    end = time.monotonic() + timeout_seconds
    failing_since = None
    while True:
        health = read_health(node)
        if health and health.get("status") == "ready":
            return
        state = service.state(name)
        # a Worker that cannot start because its Domain was still down gets a second chance
        failing_since = (failing_since or time.monotonic()) if state.state == "failing" else None
        hopeless = failing_since is not None and time.monotonic() - failing_since > FAILING_SECONDS
        if hopeless or state.state in ("failed", "absent", "stopped"):
            reason = f"its service is {state.state} ({state.detail})"
            raise PygridError(f"{name} does not run: {reason}. {log_end(service, name)}")
        waited = time.monotonic() - end + timeout_seconds
        why = "starting" if health is None else "; ".join(health.get("reasons") or []) or str(health.get("status"))
        say(f"{why}; {waited:.0f} of at most {timeout_seconds:.0f} s")
        if time.monotonic() > end:
            reasons = "; ".join((health or {}).get("reasons", [])) or "it does not answer on its control socket"
            raise PygridError(f"{name} is not ready after {timeout_seconds:.0f} s: {reasons}. {log_end(service, name)}")
        time.sleep(POLL_SECONDS)


def log_end(service: ServiceManager, name: str) -> str:
    """The end of the node's log, for an error message."""
    return f"Its log {service.log_place(name)} ends:\n{service.last_lines(name, LOG_LINES)}"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "details": {"type": "bool", "default": False},
            "release_source": {"type": "dict"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "python": {"type": "str", "default": ""},
            "managed_python": {"type": "str", "choices": ["", *SUPPORTED_VERSIONS], "default": ""},
            "bundle": {"type": "dict"},
            "checks": {"type": "bool", "default": False},
            "address": {"type": "str", "default": "127.0.0.1"},
            "ports": {"type": "dict", "default": {}},
            "distribution_packages": {"type": "dict", "default": {}},
            "system": {"type": "dict"},
            "uid": {"type": "str", "default": ""},
            "wait_for": {"type": "str", "choices": ["nothing", "ready"], "default": "nothing"},
            "timeout_seconds": {"type": "int", "default": 180},
            "report": {"type": "str"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    home = open_home(parameters["home"], parameters["scope"])
    name = parameters["name"]
    result: dict[str, Any] = {"changed": False}
    try:
        # In check mode nothing was started, so there is nothing to wait for.
        if parameters["wait_for"] == "ready" and not module.check_mode:
            with reporting(parameters["report"]):
                wait_until_ready(home, name, parameters["timeout_seconds"])
        result["node"] = read_node(home, name, parameters["details"])
        result["host"] = read_host(parameters["distribution_packages"])
        if parameters["details"]:
            result["host"]["last_change"] = read_last_change(home)
        problems: list[str] = []
        if parameters["release_source"]:
            result["wanted"], problems = wanted_release(home, parameters)
        if parameters["checks"]:
            wanted = result.get("wanted", {})
            source = parameters["release_source"] or {}
            problems += check_bundle(parameters["bundle"], result["host"], wanted, source, parameters["packages"])
            result["problems"] = problems + find_problems(home, result["node"], wanted, parameters)
            if parameters["system"]:
                findings = check_system(parameters["system"], bool(result.get("wanted", {}).get("staged")))
                result["problems"] += findings.problems
                result["host_warnings"] = findings.warnings
        elif problems and not parameters["details"]:
            raise PygridError(f"{name}: {problems[0]}")
    except PygridError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
