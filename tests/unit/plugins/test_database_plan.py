# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to change on a PostgreSQL server, from what was read of it and what the grid wants."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.filter.database import database_plan, database_servers

VERIFIER = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"
PEM, KEY = "/etc/pygrid/tls/database.pem", "/etc/pygrid/tls/database.key"
KEEPALIVE = ["tcp_keepalives_count=6", "tcp_keepalives_idle=60", "tcp_keepalives_interval=10"]
HBA = """\
# BEGIN openmined.pygrid
# Written by the role database; changes between these two lines are lost.
host    "pygrid_alice" "pygrid_alice" 127.0.0.1/32 scram-sha-256
hostssl "pygrid_alice" "pygrid_alice_w1" 192.0.2.2/32 scram-sha-256
host    all "pygrid_alice","pygrid_alice_w1" all reject
local   all "pygrid_alice","pygrid_alice_w1" reject
# END openmined.pygrid
local all postgres peer
host all all 127.0.0.1/32 trust
"""


def node(name: str, kind: str, location: str, connections: int, on: str = "alice") -> dict[str, Any]:
    database = {
        "managed": True, "on": on, "location": "db", "host": "127.0.0.1" if location == "db" else "192.0.2.1",
        "port": 5432, "name": "pygrid_alice", "user": f"pygrid_{name.replace('-', '_')}", "owner": "pygrid_alice",
        "tls": location != "db", "connections": connections,
    }  # fmt: skip
    return {"host": name, "name": name, "kind": kind, "location": location, "database": database}


@pytest.fixture
def grid() -> dict[str, Any]:
    """A Domain on the server's machine, and a Worker of it on another one."""
    return {
        "nodes": {"alice": node("alice", "domain", "db", 30), "alice-w1": node("alice-w1", "worker", "far", 8)},
        "hosts": {
            "db": {"nodes": ["alice"], "database_port": 5432},
            "far": {"nodes": ["alice-w1"], "database_port": None},
        },
    }


@pytest.fixture
def hostvars() -> dict[str, Any]:
    far = {"verifier": VERIFIER, "client_addresses": ["192.0.2.2"], "server_addresses": ["192.0.2.1"]}
    return {
        "alice": {"__database_account": {"verifier": VERIFIER, "client_addresses": [], "server_addresses": []}},
        "alice-w1": {"__database_account": far},
    }


def setting(running: str, base: str, overridden_by: str | None = None) -> dict[str, Any]:
    return {"running": running, "base": base, "overridden_by": overridden_by}


def role(note: str, limit: int, member_of: list[str], settings: list[str]) -> dict[str, Any]:
    return {
        "note": f"openmined.pygrid: {note}", "sane": True, "limit": limit, "member_of": member_of, "holds": [],
        "settings": sorted([*KEEPALIVE, *settings]), "verifier_sha256": hashlib.sha256(VERIFIER.encode()).hexdigest(),
    }  # fmt: skip


@pytest.fixture
def server(grid: dict[str, Any], hostvars: dict[str, Any]) -> dict[str, Any]:
    """The server as it is when all has been done."""
    found = {
        "version": 150000, "standby": False, "unit": "postgresql@15-main", "drop_in": "", "hba_file": "/pg_hba.conf",
        "config_file": "/postgresql.conf", "settings_file": "/conf.d/pygrid.conf", "settings_text": "",
        "settings_included": None, "hba": HBA, "hba_errors": [], "certificate": True, "newer_files": [],
        "settings": {
            "port": setting("5432", "5432"), "listen_addresses": setting("localhost,192.0.2.1", "localhost"),
            "max_connections": setting("100", "100"), "superuser_reserved_connections": setting("3", "3"),
            "ssl": setting("on", "on"), "ssl_cert_file": setting(PEM, "/snakeoil.pem"),
            "ssl_key_file": setting(KEY, "/snakeoil.key"), "ssl_min_protocol_version": setting("TLSv1.2", "TLSv1.2"),
        },
        "roles": {
            "pygrid_alice": role("domain alice", 30, [], []),
            "pygrid_alice_w1": role("worker alice-w1", 8, ["pygrid_alice"], ["role=pygrid_alice"]),
        },
        "databases": {
            "postgres": {"owner": "postgres", "public": True},
            "pygrid_alice": {"owner": "pygrid_alice", "public": False},
        },
    }  # fmt: skip
    for _file in ("drop_in", "settings_text"):
        found[_file] = plan(found, grid, hostvars)[_file] or found[_file]
    return found


def plan(server: Any, grid: Any, hostvars: Any, **options: Any) -> dict[str, Any]:
    options = {"certificate_file": PEM, "key_file": KEY, **options}
    return database_plan(server, grid, "db", hostvars, **options)


def test_nothing_is_left_to_do(server: Any, grid: Any, hostvars: Any) -> None:
    done = plan(server, grid, hostvars)
    assert done["changes"] == done["problems"] == done["left"] == done["statements"] == done["passwords"] == []
    assert (done["drop_in"], done["settings_text"], done["hba_block"]) == (None, None, None)
    assert not done["restart"]
    assert not done["reload"]


def test_everything_for_a_server_that_is_not_there_yet(grid: Any, hostvars: Any) -> None:
    wanted = plan({}, grid, hostvars, dry_run=True)
    assert wanted["problems"] == []
    assert [line.split(";")[0] for line in wanted["statements"] if line.startswith("CREATE")] == [
        'CREATE ROLE "pygrid_alice" NOLOGIN',
        'CREATE ROLE "pygrid_alice_w1" NOLOGIN',
        'CREATE DATABASE "pygrid_alice" OWNER "pygrid_alice" TEMPLATE template0 ENCODING \'UTF8\''
        " LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'",
    ]
    assert "listen_addresses = 'localhost,192.0.2.1'\n" in wanted["settings_text"]
    assert "max_connections" not in wanted["settings_text"]


def test_no_verifier_is_told(server: Any, grid: Any, hostvars: Any) -> None:
    server["roles"]["pygrid_alice"]["verifier_sha256"] = None
    found = plan(server, grid, hostvars)
    assert found["passwords"] == [f"ALTER ROLE \"pygrid_alice\" PASSWORD '{VERIFIER}'"]
    del found["passwords"]
    assert VERIFIER not in str(found)


def test_only_the_machine_of_a_role_is_let_in(server: Any, grid: Any, hostvars: Any) -> None:
    server["hba"] = HBA.partition("# END openmined.pygrid\n")[2]
    block = plan(server, grid, hostvars)["hba_block"].splitlines()
    assert block == HBA.splitlines()[1:6]
    assert "trust" not in "".join(block)


def test_nodes_that_were_not_read_keep_what_they_have(server: Any, grid: Any) -> None:
    assert plan(server, grid, {"alice": {}, "alice-w1": {}})["changes"] == []


def test_translated_addresses_are_told_by_the_inventory(server: Any, grid: Any, hostvars: Any) -> None:
    hostvars["alice-w1"]["pygrid_firewall_sources"] = ["198.51.100.0/24"]
    assert '"pygrid_alice_w1" 198.51.100.0/24 scram' in plan(server, grid, hostvars)["hba_block"]
    found = plan(server, grid, hostvars, listen_addresses=["10.0.0.5"])
    assert "'localhost,10.0.0.5'" in found["settings_text"]
    assert found["restart"]


def test_worker_that_left_is_locked_out_before_all_else(server: Any, grid: Any, hostvars: Any) -> None:
    server["roles"]["pygrid_alice_w1"]["holds"] = ["pygrid_alice"]
    del grid["nodes"]["alice-w1"]
    found = plan(server, grid, hostvars)
    assert found["statements"] == [
        'ALTER ROLE "pygrid_alice_w1" NOLOGIN PASSWORD NULL',
        'REVOKE "pygrid_alice" FROM "pygrid_alice_w1"',
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pygrid_alice_w1'",
    ]
    assert found["holdings"][0]["statements"][0] == 'REASSIGN OWNED BY "pygrid_alice_w1" TO "pygrid_alice"'
    assert found["farewells"] == ['DROP ROLE "pygrid_alice_w1"']
    assert "pygrid_alice_w1" not in found["hba_block"]
    # Nobody connects over the network any more.
    assert found["settings_text"] == ""
    assert found["restart"]


def test_data_of_a_domain_that_left_is_kept_and_told(server: Any, grid: Any, hostvars: Any) -> None:
    server["roles"]["pygrid_bob"] = role("domain bob", 30, [], [])
    server["databases"]["pygrid_bob"] = {"owner": "pygrid_bob", "public": False}
    found = plan(server, grid, hostvars)
    assert found["statements"] == found["farewells"] == []
    assert "pygrid_bob" in found["left"][0]
    assert '"pygrid_bob" all reject' in found["hba_block"]


def test_removal_takes_away_all_that_was_made(server: Any, grid: Any, hostvars: Any) -> None:
    server["settings_text"] = "listen_addresses = 'localhost,192.0.2.1'\n"
    found = plan(server, grid, hostvars, removed=["alice", "alice-w1"])
    assert 'DROP DATABASE "pygrid_alice" WITH (FORCE)' in found["statements"]
    assert found["farewells"] == ['DROP ROLE "pygrid_alice"', 'DROP ROLE "pygrid_alice_w1"']
    assert found["settings_text"] == found["hba_block"] == found["drop_in"] == ""
    assert found["restart"]


def test_what_is_not_ours_is_never_touched(server: Any, grid: Any, hostvars: Any) -> None:
    server["roles"]["pygrid_alice"]["note"] = None
    server["databases"]["pygrid_alice"]["owner"] = "clinic"
    problems = "\n".join(plan(server, grid, hostvars)["problems"])
    assert "the role pygrid_alice, which alice is to have, belongs to somebody else" in problems
    assert "the database pygrid_alice, which alice is to have, belongs to clinic" in problems
    server["roles"]["clinic"] = {"note": "not ours", "member_of": []}
    assert "clinic" not in str(plan(server, grid, hostvars, removed=["alice", "alice-w1"])["farewells"])


def test_connections_are_counted_and_never_lowered(server: Any, grid: Any, hostvars: Any) -> None:
    server["databases"]["clinic"] = {"owner": "clinic", "public": True}
    found = plan(server, grid, hostvars)
    # 38 of the nodes, 20 to spare, 3 reserved, 100 as before for the others; in steps of 50.
    assert "max_connections = '200'\n" in found["settings_text"]
    assert found["restart"]
    del server["databases"]["clinic"]
    server["settings"]["max_connections"] = setting("400", "400")
    assert "max_connections" not in (plan(server, grid, hostvars)["settings_text"] or "")


def test_certificate_is_read_anew_without_a_restart(server: Any, grid: Any, hostvars: Any) -> None:
    server["newer_files"] = [PEM]
    found = plan(server, grid, hostvars)
    assert found["reload"]
    assert not found["restart"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 120004}, "version 12"),
        ({"standby": True}, "standby"),
        ({"certificate": False}, "the role certificates makes them"),
        ({"hba_errors": [{"line": 9, "error": "invalid method"}]}, "line 9: invalid method"),
    ],
)
def test_what_a_person_has_to_mend(server: Any, grid: Any, hostvars: Any, change: Any, sentence: str) -> None:
    found = plan({**server, **change}, grid, hostvars)
    assert sentence in found["problems"][0]
    assert found["statements"] == found["changes"] == []


def test_wrong_lines_of_our_own_are_written_anew(server: Any, grid: Any, hostvars: Any) -> None:
    server["hba"] = HBA.replace("scram-sha-256", "scram", 1)
    server["hba_errors"] = [{"line": 3, "error": "invalid method"}]
    assert plan(server, grid, hostvars)["hba_block"].splitlines() == HBA.splitlines()[1:6]


def test_settings_that_win_over_ours_are_told(server: Any, grid: Any, hostvars: Any) -> None:
    server["settings"]["listen_addresses"] = setting("localhost", "localhost", "/data/postgresql.auto.conf")
    assert "postgresql.auto.conf says localhost" in plan(server, grid, hostvars)["problems"][0]
    server["settings"]["listen_addresses"] = setting("*", "*", "/data/postgresql.auto.conf")
    assert plan(server, grid, hostvars)["problems"] == []


def test_port_of_others_is_not_moved(server: Any, grid: Any, hostvars: Any) -> None:
    grid["hosts"]["db"]["database_port"] = 6432
    assert "port = '6432'\n" in plan(server, grid, hostvars)["settings_text"]
    server["databases"]["clinic"] = {"owner": "clinic", "public": True}
    assert "set pygrid_database_port to 5432" in plan(server, grid, hostvars)["problems"][0]


def test_names_that_become_the_same_role(server: Any, grid: Any, hostvars: Any) -> None:
    grid["nodes"]["alice.w1"] = {**copy.deepcopy(grid["nodes"]["alice-w1"]), "host": "alice.w1", "name": "alice.w1"}
    problems = plan(server, grid, {**hostvars, "alice.w1": {}})["problems"]
    assert (
        "alice-w1 and alice.w1 would share the role pygrid_alice_w1; give one of them another pygrid_name" in problems
    )


def test_one_host_sees_to_each_server(grid: Any) -> None:
    assert database_servers(["alice-w1", "alice"], grid) == [{"location": "db", "by": "alice", "on": "alice"}]
    assert database_servers(["alice-w1"], grid) == [{"location": "db", "by": "alice-w1", "on": "alice"}]
