#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: stage, prune and remove releases on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
author:
  - OpenMined and contributors (@OpenMined)
short_description: Stage, prune and remove releases of PyGrid nodes
version_added: 0.1.0
description:
  - Stages a hash-locked environment of C(syft) with the node runtime beside whatever runs on the host.
    Nothing that runs is touched; a node uses a release when its C(current) link points at it.
  - A release is complete or absent. It is built in a folder with another name, verified by importing all that a node
    imports, byte-compiled, and named last. What a killed run left is removed by the next one.
  - Any number of nodes and runs may stage on the same host at the same time; one works, the others find the result.
  - The name of a release is its version and a digest of everything it is made of - lock file, node runtime,
    extra packages and Python - so the same inputs are the same release.
  - C(uv) and what is installed come from the controller's tool environment and this collection;
    the host needs only a Python.
options:
  home:
    description: Folder of the grid on the host; releases lie in C(releases) below it.
    type: path
    required: true
  scope:
    description: Scope of the grid, which decides where its nodes lie and whether all accounts may run the release.
    type: str
    choices: [user, system]
    default: user
  state:
    description:
      - V(present) stages the release.
      - V(absent) removes one release; refused while a node uses it.
      - V(pruned) removes releases that no node uses.
    type: str
    choices: [present, absent, pruned]
    default: present
  version:
    description: Version of syft. Required for O(state=present), and for O(state=absent) without O(name).
    type: str
  name:
    description: Folder name of the release to remove, for O(state=absent).
    type: str
  packages:
    description:
      - Extra Python requirements for the code of data scientists, for example C(scikit-learn==1.5.2).
      - They are resolved with the lock file as constraint, and installed by hash.
      - They become part of the digest as written here, so name exact versions where hosts must be alike.
    type: list
    elements: str
    default: []
  python:
    description:
      - Interpreter on the host, by path or name. CPython 3.10, 3.11 or 3.12.
      - When empty, the one that runs Ansible's modules if it fits, else the first in PATH that does.
    type: str
    default: ""
  managed_python:
    description:
      - Version of the CPython that uv brings to the host, whatever is there; it lies in C(<home>/tools/pythons).
      - Empty takes one that is there, see O(python).
    type: str
    choices: ["", "3.10", "3.11", "3.12"]
    default: ""
  bundle:
    description:
      - Archive on the controller (M(openmined.pygrid.bundle_archive)) from which everything is taken. Its parts that
        the host lacks are sent, and nothing else is asked for.
    type: str
    default: ""
  lock_file:
    description: Requirements file with hashes on the controller, instead of the collection's own for O(version).
    type: path
  image:
    description:
      - Image of a container that is the release, by digest, id or tag. It is pulled unless the host has it, and nothing
        else is needed then - no Python, no C(uv), no package.
    type: str
    default: ""
  container_engine:
    description: Engine that is to have O(image); V(auto) takes docker where it answers, else podman.
    type: str
    choices: [auto, docker, podman]
    default: auto
  container_socket:
    description: URL of its daemon; when empty the one that the account's own settings lead to.
    type: str
    default: ""
  registry_username:
    description: Account of the registry that O(image) is pulled from; none when empty.
    type: str
    default: ""
  registry_password:
    description: Its password or token.
    type: str
    default: ""
  package_cache:
    description:
      - Folder of the package cache on the host; C(<home>/cache) by default.
      - On the same file system as O(home) the releases share their files with it by hard links.
    type: path
  service_manager:
    description: What will run the nodes. V(supervisor) is installed too, in C(<home>/tools/supervisor-<version>).
    type: str
    choices: [none, supervisor]
    default: none
  keep:
    description: How many releases that no node uses stay with O(state=pruned), newest first.
    type: int
    default: 1
  compile:
    description:
      - What is byte-compiled while staging.
      - V(imported) is what a node imports; Python compiles the rest when it is used.
      - V(all) is for environments that the nodes' account cannot write to.
    type: str
    choices: [imported, all]
    default: imported
  needed_mb:
    description: Free space in megabytes without which nothing is begun.
    type: int
    default: 1000
  source:
    description: Filled in by the action plugin with what the controller contributes; not for use in playbooks.
    type: dict
  report:
    description: Where the module tells what it is at, made by the action on the controller. Do not set it.
    type: str
attributes:
  check_mode:
    description: Says what would be done and changes nothing.
    support: full
  diff_mode:
    description: Shows the releases that appear and disappear.
    support: full
notes:
  - Proxies, certificates and index servers for C(uv) are taken from the environment of the task,
    for example C(UV_DEFAULT_INDEX).
"""

EXAMPLES = r"""
- name: Stage release 0.9.5 with scikit-learn for the workers
  openmined.pygrid.release:
    home: "{{ pygrid_home }}"
    version: 0.9.5
    packages:
      - scikit-learn==1.5.2
    service_manager: supervisor

- name: Remove releases that no node uses, but for the newest one
  openmined.pygrid.release:
    home: "{{ pygrid_home }}"
    state: pruned
    keep: 1
"""

RETURN = r"""
release:
  description: The release that is staged or would be.
  returned: when O(state=present)
  type: dict
  contains:
    name:
      description: Folder name.
      type: str
    path:
      description: Folder on the host.
      type: str
    version:
      description: Version of syft.
      type: str
    digest:
      description: Checksum (sha256) of everything the release is made of.
      type: str
    python:
      description: Path, version and tag of the interpreter.
      type: dict
    packages:
      description: Extra requirements.
      type: list
      elements: str
    image:
      description: The image that it is.
      returned: when it is one
      type: str
supervisor:
  description: Folder of the supervisor's environment.
  returned: when O(state=present) and O(service_manager=supervisor)
  type: str
steps:
  description: What was done, with seconds.
  returned: always
  type: list
  elements: dict
removed:
  description: Names of the releases that were removed or would be.
  returned: always
  type: list
  elements: str
waited_seconds:
  description: How long another run held the lock.
  returned: when something was to be done
  type: float
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils import pythons, releases
from ansible_collections.openmined.pygrid.plugins.module_utils import release_files as files
from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import find_uv
from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_store import UnpackedBundle
from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import (
    Account,
    find_engine,
    registry_of,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.image_release import describe_image, stage_image
from ansible_collections.openmined.pygrid.plugins.module_utils.images import can_run, forget_image
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home, open_home
from ansible_collections.openmined.pygrid.plugins.module_utils.release_stage import (
    Stager,
    newest_uv,
    supervisor_folder,
    uv_folder,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import reporting, say

ARGUMENTS = {
    "home": {"type": "path", "required": True},
    "scope": {"type": "str", "choices": ["user", "system"], "default": "user"},
    "state": {"type": "str", "choices": ["present", "absent", "pruned"], "default": "present"},
    "version": {"type": "str"},
    "name": {"type": "str"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "str", "default": ""},
    "managed_python": {"type": "str", "choices": ["", *pythons.SUPPORTED_VERSIONS], "default": ""},
    "bundle": {"type": "str", "default": ""},
    "lock_file": {"type": "path"},
    "image": {"type": "str", "default": ""},
    "container_engine": {"type": "str", "choices": ["auto", "docker", "podman"], "default": "auto"},
    "container_socket": {"type": "str", "default": ""},
    "registry_username": {"type": "str", "default": ""},
    "registry_password": {"type": "str", "default": "", "no_log": True},
    "package_cache": {"type": "path"},
    "service_manager": {"type": "str", "choices": ["none", "supervisor"], "default": "none"},
    "keep": {"type": "int", "default": 1},
    "compile": {"type": "str", "choices": ["imported", "all"], "default": "imported"},
    "needed_mb": {"type": "int", "default": 1000},
    "source": {"type": "dict"},
    "report": {"type": "str"},
}


def main() -> None:
    """Do what state asks for, and report it."""
    module = AnsibleModule(ARGUMENTS, required_if=[("state", "present", ["version"])], supports_check_mode=True)
    state = module.params["state"]
    if module.params["scope"] == "system":
        os.umask(0o022)  # the accounts of all nodes run what root stages, however careful root's own files are
    try:
        if state == "present":
            with reporting(module.params["report"]):
                step = present_image if module.params["image"] else present
                result = step(module.params, module.check_mode)
        elif state == "absent":
            result = absent(module.params, module.check_mode)
        else:
            result = pruned(module.params, module.check_mode)
    except PygridError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot work in {module.params['home']}: {error}")
    else:
        module.exit_json(**result)


def find_python(params: dict, home: Path) -> dict:
    """Return path, version and tag of the Python from which releases are made on this host.

    The path of one that uv is still to bring is empty.
    """
    interpreter, problem = pythons.find(params["python"], params["managed_python"], home)
    if interpreter is None or problem:
        raise PygridError(problem)
    return interpreter.as_data()


def wanted_release(params: dict, python: dict) -> dict:
    """Return the release that the parameters and the host's Python describe."""
    source = params["source"] or {}
    if "lock_sha256" not in source:
        raise PygridError("its action plugin did not run; call it as openmined.pygrid.release")
    packages = releases.normal_packages(params["packages"])
    for package in packages:
        if package.startswith("-") or "\n" in package:
            raise PygridError(f"'{package}' is no package requirement; correct pygrid_worker_packages")
    ingredients = (source["version"], source["lock_sha256"], source["runtime_sha256"], packages, python["tag"])
    name = releases.release_name(*ingredients)
    return {
        "name": name,
        "path": str(releases.releases_folder(params["home"]) / name),
        "version": source["version"],
        "digest": releases.release_digest(*ingredients),
        "python": python,
        "packages": packages,
    }


def missing(params: dict, release: dict) -> list:
    """Return what is not on the host yet: release, supervisor."""
    home = Path(params["home"])
    lacks = [] if releases.is_staged(home, release["name"]) else ["release"]
    if params["service_manager"] == "supervisor":
        folder = supervisor_folder(home, params["source"]["supervisor_version"])
        if not (folder / releases.MANIFEST).exists() or not (folder / "bin" / "supervisord").exists():
            lacks.append("supervisor")
    return lacks


def present(params: dict, check_mode: bool) -> dict:
    """Stage what is missing. Without the controller's files it only answers which of them are needed."""
    grid = open_home(params["home"], params["scope"])
    home = grid.root
    python = find_python(params, home)
    release = wanted_release(params, python)
    source = params["source"]
    result: dict = {"changed": False, "release": release, "steps": [], "removed": []}
    if params["service_manager"] == "supervisor":
        result["supervisor"] = str(supervisor_folder(home, source["supervisor_version"]))
    lacks = missing(params, release)
    if not lacks:
        return result
    files.check_writable(home)
    if "release" in lacks:
        files.check_space(home, params["needed_mb"])
    source["uv_version"] = source["uv_version"] or newest_uv(home)
    has_uv = bool(source["uv_version"]) and (uv_folder(home, source["uv_version"]) / releases.MANIFEST).exists()
    result.update(changed=True, diff=difference([], [release["name"]] if "release" in lacks else []))
    if check_mode:
        return result
    if not source.get("archive") or not (has_uv or source.get("uv") or source.get("bundle")):
        result["needs"] = {
            "archive": True,
            "uv": not has_uv,
            "platform": files.platform_tag(),
            "tag": python["tag"],
            "python": not python["path"],
        }
        return result
    with files.locked(grid) as lock:
        result["waited_seconds"] = round(lock.waited_seconds, 2)
        bundle = UnpackedBundle(Path(source["bundle"])) if source.get("bundle") else None
        # Another run may have brought the Python meanwhile.
        stager = Stager(home, Path(params["package_cache"] or grid.cache), find_python(params, home), lock, bundle)
        lacks = missing(params, release)
        result["changed"] = bool(lacks)
        for folder in (releases.releases_folder(home), home / "tools"):
            files.remove_leftovers(folder)
        if lacks:
            stage(stager, params, lacks)
            release["python"] = stager.python
        result["steps"] = stager.steps
    return result


def present_image(params: dict, check_mode: bool) -> dict:
    """Bring the image that is the release, unless it is here."""
    grid = open_home(params["home"], params["scope"])
    release = describe_image(grid, params["version"], params["image"])
    result: dict = {"changed": False, "release": release, "steps": [], "removed": []}
    if can_run(grid, release["name"]):
        return result
    files.check_writable(grid.root)
    engine, problem = find_engine(params["container_engine"], params["container_socket"])
    if engine is None:
        raise PygridError(problem)
    result.update(changed=True, diff=difference([], [release["name"]]))
    if check_mode:
        return result
    account = None
    if params["registry_username"]:
        account = Account(registry_of(params["image"]), params["registry_username"], params["registry_password"])
    with files.locked(grid) as lock:
        result["waited_seconds"] = round(lock.waited_seconds, 2)
        files.remove_leftovers(grid.releases)
        result["changed"] = not can_run(grid, release["name"])
        if result["changed"]:
            started = time.monotonic()
            say("stages: image")
            stage_image(grid, engine, params["version"], params["image"], account)
            result["steps"] = [{"name": "image", "seconds": round(time.monotonic() - started, 2)}]
    return result


def stage(stager: Stager, params: dict, lacks: list) -> None:
    """Stage what is missing; the lock is held."""
    source = params["source"]
    archive = Path(source["archive"])
    folder = uv_folder(stager.home, source["uv_version"])
    try:
        if not (folder / releases.MANIFEST).exists():
            stager.put_uv(uv_program(stager, source), source["uv_version"])
        stager.uv = folder / "uv"
        if not stager.python["path"]:
            stager.bring_python()
        if "supervisor" in lacks:
            stager.stage_supervisor(archive, source["supervisor_version"])
        if "release" in lacks:
            stager.stage_release(archive, source, releases.normal_packages(params["packages"]), params["compile"])
    except Exception:
        for place in (releases.releases_folder(stager.home), stager.home / "tools"):
            files.remove_leftovers(place)
        raise


def uv_program(stager: Stager, source: dict) -> Path:
    """Return the uv that the controller sent, by itself or in a bundle."""
    if stager.bundle is None:
        return Path(source["uv"])
    return stager.bundle.checked(find_uv(stager.bundle.index, files.platform_tag()))


def absent(params: dict, check_mode: bool) -> dict:
    """Remove one release that no node uses."""
    grid = open_home(params["home"], params["scope"])
    name = params["name"] or wanted_release(params, find_python(params, grid.root))["name"]
    if not releases.is_release_name(name):
        raise PygridError(f"'{name}' is no name of a release; it looks like 0.9.5-0123456789ab")
    if not (grid.releases / name).exists():
        return {"changed": False, "steps": [], "removed": []}
    nodes = releases.releases_in_use(grid.nodes).get(name)
    if nodes:
        raise PygridError(f"release {name} is used by {', '.join(nodes)}; activate another one there first")
    return remove(grid, [name], check_mode)


def pruned(params: dict, check_mode: bool) -> dict:
    """Remove all but the newest of the releases that no node uses."""
    grid = open_home(params["home"], params["scope"])
    used = releases.releases_in_use(grid.nodes)
    spare = [name for name in releases.staged_releases(grid.root) if name not in used]
    surplus = spare[: max(len(spare) - params["keep"], 0)]
    if not surplus:
        return {"changed": False, "steps": [], "removed": []}
    return remove(grid, surplus, check_mode)


def remove(grid: Home, names: list, check_mode: bool) -> dict:
    """Remove releases under the lock, unless a node has begun to use one meanwhile."""
    result = {"changed": True, "steps": [], "removed": names, "diff": difference(names, [])}
    if check_mode:
        return result
    with files.locked(grid) as lock:
        result["waited_seconds"] = round(lock.waited_seconds, 2)
        used = releases.releases_in_use(grid.nodes)
        folder = grid.releases
        result["removed"] = [name for name in names if name not in used and (folder / name).exists()]
        for name in result["removed"]:
            forget_image(grid, name)
            files.remove_folder(folder / name)
        files.remove_leftovers(folder)
    result["changed"] = bool(result["removed"])
    return result


def difference(before: list, after: list) -> dict:
    """Return the diff of the releases folder, as far as it changes."""
    return {
        "before_header": "releases",
        "after_header": "releases",
        "before": "".join(f"{name}\n" for name in before),
        "after": "".join(f"{name}\n" for name in after),
    }


if __name__ == "__main__":
    main()
