# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes say of who belongs to them: read with care, and compared with the inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils.observer import node_token, read_token, token_digest
from ansible_collections.openmined.pygrid.plugins.plugin_utils.seen import read_members, unknown, unmanaged

URL = "https://net.example"
ALICE = {"kind": "domain", "name": "alice", "uid": "1", "url": "https://alice.example", "status": "ACTIVE"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def node(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "joined": True, "domain": None, **more}


GRID = {
    "nodes": {
        "net": node("network", "net"),
        "a": node("domain", "alice"),
        "b": node("domain", "bob"),
        "w": node("worker", "alice-w1", domain="a"),
    }
}


def test_what_a_network_answers() -> None:
    answer = read_members({"kind": "network", "name": "net", "members": [ALICE]}, URL, "network")
    assert (answer.asked.name, answer.asked.url) == ("net", URL)
    assert [(member.kind, member.name, member.url) for member in answer.members] == [
        ("domain", "alice", "https://alice.example")
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "{{ 7 * 7 }}"}, {"name": "../x"}, {"name": "a" * 51}, {"kind": "spare"}, {"url": "file:///etc/passwd"},
        {"url": 5}, {"uid": "x" * 500}, {"status": "a\nb"}, {"status": "\x1b[2J"},
    ],
)  # fmt: skip
def test_what_is_no_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no member"):
        read_members({"kind": "network", "name": "net", "members": [{**ALICE, **change}]}, URL, "network")


@given(JSON)
def test_anything_else_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="no "):
        read_members(document, URL, "network")
    with pytest.raises(ValueError, match="no "):
        read_members({"kind": "network", "name": "net", "members": [document]}, URL, "network")


def told(*nodes: dict[str, Any], answered: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "nodes": [{"domain": "", "url": "", "status": "ACTIVE", **one} for one in nodes],
        "answered": list(answered),
    }


def reasons(seen: dict[str, Any] | None) -> dict[str, str]:
    found = {host: unknown(one, GRID, seen) for host, one in GRID["nodes"].items()}
    return {host: reason for host, reason in found.items() if reason}


def test_machines_without_a_node() -> None:
    net, alice = {"kind": "network", "name": "net"}, {"kind": "domain", "name": "alice"}
    assert reasons(None) == {}
    assert reasons(told()) == {}, "nobody answered, so nobody is missing"
    assert reasons(told(net, alice)) == {"b": "the Network knows no Domain of this name"}
    assert reasons(told(net, alice, answered=("alice",)))["w"] == "its Domain alice knows no Worker of this name"


def test_nodes_without_a_machine() -> None:
    seen = told(
        {"kind": "domain", "name": "alice"}, {"kind": "domain", "name": "carol"}, {"kind": "worker", "name": "x"}
    )
    assert [one["name"] for one in unmanaged(GRID, seen)] == ["carol", "x"]
    assert list(unmanaged(GRID, None)) == []


def test_each_node_has_a_token_of_its_own() -> None:
    token = "0" * 64
    shown = {node_token(token, kind, name) for kind, name in (("network", "net"), ("domain", "a"), ("domain", "b"))}
    assert len(shown) == 3
    assert node_token(token, "network", "net") == node_token(token, "network", "")
    assert token_digest(token, "domain", "a") not in shown


def test_a_file_that_is_no_secret_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "observer"
    with pytest.raises(PygridError, match="is not there; make it"):
        read_token(str(file))
    file.write_text("short")
    file.chmod(0o640)
    with pytest.raises(PygridError, match="others may read"):
        read_token(str(file))
    file.chmod(0o600)
    with pytest.raises(PygridError, match="holds no token"):
        read_token(str(file))
    file.write_text("a" * 64 + "\n")
    assert read_token(str(file)) == "a" * 64
