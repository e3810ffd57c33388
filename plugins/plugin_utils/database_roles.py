# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and databases: a role for each node, a database for each Network and Domain, and nothing of the departed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.database_service import (
    NOTE,
    Plan,
    Service,
    identifier,
    literal,
)

# A machine that vanished must not hold a place until the kernel's two hours are over.
KEEPALIVE = {"tcp_keepalives_idle": "60", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "6"}
NEW_ROLE: dict[str, Any] = {"sane": False, "limit": None, "verifier_sha256": None, "member_of": [], "settings": []}
# Byte order instead of a language's: an upgrade of the system's libraries cannot spoil an index.
CREATE_DATABASE = (
    "CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"
)
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {name}"


def role_problems(service: Service) -> Iterator[str]:
    """Names that are taken by somebody else, or twice."""
    for node in service.nodes:
        database = node["database"]
        role = service.roles.get(database["user"])
        if role is not None and role["note"] != _note(node):
            yield (
                f"the role {database['user']}, which {node['name']} is to have, belongs to"
                f" {_owner_in_words(role['note'])}; rename that role, or set pygrid_name of {node['host']}"
            )
        held = service.databases.get(database["name"])
        if held is not None and held["owner"] != database["owner"]:
            yield (
                f"the database {database['name']}, which {node['name']} is to have, belongs to {held['owner']};"
                f" rename that database, or set pygrid_name of {node['host']}"
            )
    users = [node["database"]["user"] for node in service.nodes]
    for user in sorted({user for user in users if users.count(user) > 1}):
        names = " and ".join(node["name"] for node in service.nodes if node["database"]["user"] == user)
        yield f"{names} would share the role {user}; give one of them another pygrid_name"


def plan_roles(service: Service, plan: Plan) -> None:
    """The departed go first: whoever was locked out stays out, wherever the run is killed."""
    wanted = {node["database"]["user"] for node in service.nodes}
    for name in sorted(service.our_roles - wanted):
        _plan_departure(service, plan, name)
    for node in service.nodes:
        _plan_role(service, plan, node)
    for node in service.nodes:
        if node["database"]["owner"] == node["database"]["user"]:
            _plan_database(service, plan, node["database"])


def _plan_departure(service: Service, plan: Plan, name: str) -> None:
    """A role of ours that no node of the inventory has."""
    kind, node = _kind_and_node(service.roles[name]["note"])
    if kind == "worker":
        _lock_out(service, plan, name, node)
    elif node in service.removed:
        _drop_owner(service, plan, name, node)
    else:
        held = [base for base, data in sorted(service.databases.items()) if data["owner"] == name]
        plan.left.append(
            f"{node} left the inventory or has another database now. Its role {name} and its data"
            f" ({', '.join(held) or 'none'}) are kept, but nobody is let in to them. To delete them, put it back as it"
            " was and run playbooks/remove.yml with -e pygrid_remove_data=true"
        )


def _lock_out(service: Service, plan: Plan, name: str, node: str) -> None:
    role, quoted = service.roles[name], identifier(name)
    plan.do(
        f"lock out {name} and drop it: the Worker {node} is gone",
        f"ALTER ROLE {quoted} NOLOGIN PASSWORD NULL",
        *(f"REVOKE {identifier(parent)} FROM {quoted}" for parent in role["member_of"]),
        # After the two above, so that it cannot come back.
        TERMINATE.format(name=literal(name)),
    )
    for base in role["holds"]:
        heir = service.databases.get(base, {}).get("owner", "postgres")
        statements = [f"REASSIGN OWNED BY {quoted} TO {identifier(heir)}", f"DROP OWNED BY {quoted}"]
        plan.holdings.append({"database": base, "statements": statements})
    plan.farewells.append(f"DROP ROLE {quoted}")


def _drop_owner(service: Service, plan: Plan, name: str, node: str) -> None:
    role, quoted = service.roles[name], identifier(name)
    bases = [base for base, data in sorted(service.databases.items()) if data["owner"] == name]
    plan.do(
        f"delete the data of {node}: drop the role {name} and its databases ({', '.join(bases) or 'none'})",
        f"ALTER ROLE {quoted} NOLOGIN PASSWORD NULL",
        *(f"DROP DATABASE {identifier(base)} WITH (FORCE)" for base in bases),
    )
    for base in sorted(set(role["holds"]) - set(bases)):
        plan.holdings.append({"database": base, "statements": [f"DROP OWNED BY {quoted}"]})
    plan.farewells.append(f"DROP ROLE {quoted}")


def _plan_role(service: Service, plan: Plan, node: Mapping[str, Any]) -> None:
    database = node["database"]
    name, quoted = database["user"], identifier(database["user"])
    role = service.roles.get(name)
    if role is None:
        role = NEW_ROLE
        # In one go: a role without its note would be somebody else's in the eyes of the next run.
        plan.do(
            f"create the role {name}",
            f"CREATE ROLE {quoted} NOLOGIN; COMMENT ON ROLE {quoted} IS {literal(_note(node))}",
        )
    if not role["sane"] or role["limit"] != database["connections"]:
        plan.do(
            f"let {name} log in, {database['connections']} times at most, and do nothing else",
            f"ALTER ROLE {quoted} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
            f" CONNECTION LIMIT {int(database['connections'])} VALID UNTIL 'infinity'",
        )
    _plan_membership(plan, name, database["owner"], role)
    _plan_password(service, plan, node, role)


def _plan_membership(plan: Plan, name: str, owner: str, role: Mapping[str, Any]) -> None:
    """A Worker acts as its Domain from its first statement on: whatever it makes belongs to the Domain."""
    quoted = identifier(name)
    wanted = set() if owner == name else {owner}
    for parent in sorted(set(role["member_of"]) - wanted):
        plan.do(f"take the rights of {parent} from {name}", f"REVOKE {identifier(parent)} FROM {quoted}")
    for parent in sorted(wanted - set(role["member_of"])):
        plan.do(f"let {name} act as {parent}", f"GRANT {identifier(parent)} TO {quoted}")
    settings = {**KEEPALIVE, **({"role": owner} if wanted else {})}
    if sorted(role["settings"]) != sorted(f"{key}={value}" for key, value in settings.items()):
        statements = [f"ALTER ROLE {quoted} SET {key} = {literal(value)}" for key, value in settings.items()]
        plan.do(f"set up the sessions of {name}", "; ".join([f"ALTER ROLE {quoted} RESET ALL", *statements]))


def _plan_password(service: Service, plan: Plan, node: Mapping[str, Any], role: Mapping[str, Any]) -> None:
    name, account = node["database"]["user"], service.account(node)
    verifier = account.get("verifier")
    if verifier and hashlib.sha256(verifier.encode()).hexdigest() != role["verifier_sha256"]:
        plan.changes.append(f"set the verifier of the password of {name}")
        plan.passwords.append(f"ALTER ROLE {identifier(name)} PASSWORD {literal(verifier)}")
    elif not verifier and account.get("changed"):
        plan.changes.append(f"set the verifier of the password of {name}, which is still to be made")


def _plan_database(service: Service, plan: Plan, database: Mapping[str, Any]) -> None:
    name, quoted = database["name"], identifier(database["name"])
    held = service.databases.get(name)
    if held is None:
        plan.do(f"create the database {name}", CREATE_DATABASE.format(name=quoted, owner=identifier(database["owner"])))
    if held is None or held["public"]:
        plan.do(f"keep others out of the database {name}", f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC")


def _note(node: Mapping[str, Any]) -> str:
    """The mark of a role of ours, which says whose it is."""
    return f"{NOTE}{node['kind']} {node['name']}"


def _kind_and_node(note: str) -> tuple[str, str]:
    kind, _space, node = note[len(NOTE) :].partition(" ")
    return kind, node


def _owner_in_words(note: str | None) -> str:
    if note and note.startswith(NOTE):
        return f"the {' '.join(_kind_and_node(note))}"
    return "somebody else"
