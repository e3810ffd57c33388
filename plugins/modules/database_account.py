#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.database_account."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_account
short_description: Keep the address and password of a node's database on the node's host
version_added: 0.2.0
description:
  - Writes the file C(database.url) of a node, mode 0600, with a random password that is made on this host and never
    leaves it. What is returned is the verifier of the password (SCRAM-SHA-256), which PostgreSQL stores in its place.
  - A password that is there is kept, also when the host or the port of the database changes.
  - What a person has to mend is returned as RV(problem) instead of a failure, so that C(no_log) does not hide it.
extends_documentation_fragment:
  - openmined.pygrid.node
  - openmined.pygrid.attributes
options:
  state:
    description: V(renewed) makes another password in any case.
    type: str
    choices: [present, renewed]
    default: present
  url:
    description:
      - URL of an existing database, C(postgresql://user:password@host:port/database), to be kept as it is.
      - Without it, the URL is made of O(host), O(port), O(database) and O(user).
    type: str
    default: ""
  host:
    description: Name or address under which the node reaches the database.
    type: str
  port:
    description: Port of the database.
    type: int
  database:
    description: Name of the database.
    type: str
  user:
    description: Role of the node.
    type: str
  tls:
    description: Whether the node verifies the database's certificate and name. For O(connect).
    type: bool
    default: true
  connect:
    description: Log in with O(url) too, and report as RV(problem) why a node could not work with it.
    type: bool
    default: false
  timeout_seconds:
    description: How long the database may take to answer.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Make the password of alice
  openmined.pygrid.database_account:
    name: alice
    scope: system
    host: 192.0.2.10
    port: 5432
    database: pygrid_alice
    user: pygrid_alice
  register: account
  no_log: true
"""

RETURN = r"""
verifier:
  description:
    - SCRAM-SHA-256 verifier of the password, for C(ALTER ROLE ... PASSWORD); the same from run to run.
    - Null with O(url), and in check mode for a password that is not made yet.
  returned: always
  type: str
client_addresses:
  description: Addresses from which the database sees this host.
  returned: always
  type: list
  elements: str
server_addresses:
  description: Addresses that O(host) stands for on this host.
  returned: always
  type: list
  elements: str
problem:
  description: What a person has to mend before the node can use its database; null when nothing.
  returned: always
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.arguments import NODE_ARGUMENTS
from ansible_collections.openmined.pygrid.plugins.module_utils.database_accounts import (
    Account,
    AccountFiles,
    check_login,
    file_problem,
    find_route,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.database_url import DatabaseUrl, parse_url
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import NodePaths, open_home


def keep(node: NodePaths, parameters: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Write what differs; returns the result of the module."""
    files = AccountFiles(node)
    if parameters["url"]:
        return keep_given(files, parameters, dry_run)
    route = find_route(parameters["host"], parameters["port"])
    wanted = DatabaseUrl(
        user=parameters["user"],
        password="",
        host=parameters["host"],
        port=parameters["port"],
        database=parameters["database"],
    )
    account = files.own(wanted, parameters["state"] == "renewed", dry_run)
    return result_of(account, route.client, route.server)


def keep_given(files: AccountFiles, parameters: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Look whether a URL from the inventory works before it replaces the one that is there."""
    try:
        url = parse_url(parameters["url"])
    except PygridError as error:
        raise PygridError(f"pygrid_database_url cannot be used: {error}") from None
    if parameters["connect"]:
        try:
            check_login(url, parameters["tls"], parameters["timeout_seconds"], certain=not dry_run)
        except PygridError as error:
            raise PygridError(f"the database of pygrid_database_url cannot be used: {error}") from None
    return result_of(files.given(parameters["url"], dry_run), [], [])


def result_of(account: Account, client: list[str], server: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "changed": account.changed,
        "verifier": account.verifier,
        "client_addresses": client,
        "server_addresses": server,
        "problem": None,
    }
    if account.changed:
        result["diff"] = {"before": f"{account.before}\n", "after": f"{account.after} (its password is secret)\n"}
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NODE_ARGUMENTS,
            "state": {"type": "str", "choices": ["present", "renewed"], "default": "present"},
            "url": {"type": "str", "default": "", "no_log": True},
            "host": {"type": "str"},
            "port": {"type": "int"},
            "database": {"type": "str"},
            "user": {"type": "str"},
            "tls": {"type": "bool", "default": True},
            "connect": {"type": "bool", "default": False},
            "timeout_seconds": {"type": "int", "default": 10},
        },
        required_together=[("host", "port", "database", "user")],
        required_one_of=[("url", "host")],
        supports_check_mode=True,
    )
    parameters = module.params
    node = open_home(parameters["home"], parameters["scope"]).node(parameters["name"])
    try:
        result = keep(node, parameters, module.check_mode)
    except OSError as error:
        result = {"changed": False, "problem": str(file_problem(node.database_url, error))}
    except PygridError as error:
        result = {"changed": False, "problem": str(error)}
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**{"verifier": None, "client_addresses": [], "server_addresses": [], **result})


if __name__ == "__main__":
    main()
