# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each node as its host shows it from outside: service, listener, files, account and answers."""

from __future__ import annotations

import json
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


def ask(host: Any, port: int, path: str) -> str:
    return host.check_output("curl --silent --fail http://127.0.0.1:%s%s", str(port), path)


def test_listens_on_loopback_only(host: Any, port: int) -> None:
    assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
    assert not [
        name for name in host.socket.get_listening_sockets() if f"0.0.0.0:{port}" in name or f":::{port}" in name
    ]


def test_is_ready_in_the_wanted_version(host: Any, port: int, node: dict[str, Any]) -> None:
    health = json.loads(ask(host, port, "/healthz/ready"))
    assert health["status"] == "ready"
    assert health["name"] == node["inventory_hostname"]
    assert health["syft_version"] == "0.9.5"


def test_metadata_tells_name_and_type(host: Any, port: int, kind: str, node: dict[str, Any]) -> None:
    if kind == "worker":
        assert host.run("curl --silent --fail http://127.0.0.1:%s/api/v2/metadata", str(port)).rc != 0
        return
    metadata = json.loads(ask(host, port, "/api/v2/metadata"))
    assert (metadata["name"], metadata["server_type"]) == (node["inventory_hostname"], KINDS[kind])


def test_metrics_are_those_of_prometheus(host: Any, port: int) -> None:
    text = ask(host, port, "/metrics")
    assert "# TYPE pygrid_" in text
    assert "process_resident_memory_bytes" in text


def test_secrets_are_the_accounts_own(host: Any, node: dict[str, Any]) -> None:
    folder = host.file(f"{node['pygrid_home']}/nodes/{node['inventory_hostname']}")
    assert folder.mode == 0o700
    assert host.file(f"{folder.path}/identity.json").mode == 0o600
    assert host.file(f"{folder.path}/current").is_symlink


def test_is_kept_running_by_supervisor(host: Any, node: dict[str, Any]) -> None:
    settings = f"{node['pygrid_home']}/nodes/{node['inventory_hostname']}/settings.json"
    (process,) = [one for one in host.process.filter(comm="python") if one.args.endswith(f"run {settings}")]
    parent = host.process.get(pid=process.ppid)
    assert "supervisor.supervisord" in parent.args
