# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each node as its host shows it from outside: service, listener, files, account and answers."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

KINDS = {"network": "gateway", "domain": "datasite"}


@pytest.fixture
def node(host: Any) -> dict[str, Any]:
    """Variables of the node under test, as the inventory gives them."""
    return host.ansible.get_variables()


@pytest.fixture
def kind(node: dict[str, Any]) -> str:
    return next(kind for kind in ("network", "domain", "worker") if f"pygrid_{kind}" in node["group_names"])


@pytest.fixture
def port(node: dict[str, Any], kind: str) -> int:
    return node[f"pygrid_{kind}_port"]


@pytest.fixture
def home() -> str:
    """As molecule/shared/inventories/grid.yml makes it: testinfra does not template variables."""
    return f"{os.environ['MOLECULE_PROJECT_DIRECTORY']}/.cache/m/{os.environ['MOLECULE_SCENARIO_NAME']}"


def ask(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def listening(port: int) -> set[str]:
    """The addresses, as the kernel writes them, on which somebody listens on a port."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    ends = [fields[1].split(":") for fields in lines if fields[3] == "0A"]
    return {address for address, number in ends if int(number, 16) == port}


def test_listens_on_loopback_only(port: int, kind: str) -> None:
    for_other_nodes = set() if kind == "worker" else {"0200007F"}
    assert listening(port) == {"0100007F", *for_other_nodes}


def test_is_ready_in_the_wanted_version(port: int, node: dict[str, Any]) -> None:
    health = json.loads(ask(port, "/healthz/ready"))
    assert health["status"] == "ready"
    assert health["name"] == node["inventory_hostname"]
    assert health["syft_version"] == "0.9.5"


def test_metadata_tells_name_and_type(port: int, kind: str, node: dict[str, Any]) -> None:
    if kind == "worker":
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(port, "/api/v2/metadata")
        return
    metadata = json.loads(ask(port, "/api/v2/metadata"))
    assert (metadata["name"], metadata["server_type"]) == (node["inventory_hostname"], KINDS[kind])


def test_metrics_are_those_of_prometheus(port: int) -> None:
    text = ask(port, "/metrics")
    assert "# TYPE pygrid_" in text
    assert "process_resident_memory_bytes" in text


def test_secrets_are_the_accounts_own(host: Any, home: str, node: dict[str, Any]) -> None:
    folder = host.file(f"{home}/nodes/{node['inventory_hostname']}")
    assert folder.mode == 0o700
    assert host.file(f"{folder.path}/identity.json").mode == 0o600
    assert host.file(f"{folder.path}/current").is_symlink


def test_is_kept_running_by_supervisor(port: int) -> None:
    pid = json.loads(ask(port, "/healthz/ready"))["pid"]
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert b"supervisor.supervisord" in Path(f"/proc/{parent}/cmdline").read_bytes()
