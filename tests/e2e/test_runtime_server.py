# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network and a domain as the runtime runs them, seen from outside by real clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import RUNTIME, Client, Grid, Node, free_port

SECRETS = ("private_key", "root_password", "queue_secret_key")


def eventually(check: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true value of `check`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = check()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture(scope="module")
def net(grid: Grid) -> Node:
    # The second node starts while the first does.
    return grid.node("network", "net").start(wait=False)


@pytest.fixture(scope="module")
def alice(grid: Grid, net: Node) -> Node:
    node = grid.node("domain", "alice").start()
    net.wait_until_ready()
    return node


@pytest.fixture(scope="module")
def joined(net: Node, alice: Node) -> tuple[Node, Node]:
    """The network and its domain, associated over their control sockets."""
    request = {"network_url": net.url, "own_url": alice.url, "network_uid": net.uid}
    assert alice.control("POST", "/control/association/request", request)[0] == 200
    status, answer = net.control(
        "POST", "/control/association/approve", {"domains": [{"uid": alice.uid, "url": alice.url}]}
    )
    assert (status, answer["approved"], answer["missing"]) == (200, [alice.uid], [])
    return net, alice


def test_ready_says_who_the_node_is(net: Node, alice: Node) -> None:
    status, network = net.http("GET", "/healthz/ready")
    assert status == 200
    assert {key: network[key] for key in ("status", "kind", "name", "uid", "reasons")} == {
        "status": "ready", "kind": "network", "name": "net", "uid": net.uid, "reasons": [],
    }  # fmt: skip
    assert network["database"] == {"reachable": True}
    assert network["pid"] == net.process.pid
    assert 0 < time.time() - network["started_at"] < 600
    assert alice.http("GET", "/healthz/ready")[1]["workers"] == {"attached": 0, "names": []}
    assert alice.http("GET", "/healthz/live") == (200, {"status": "alive"})


def test_upstream_api_is_served(net: Node, alice: Node) -> None:
    for node, server_type in ((net, "gateway"), (alice, "datasite")):
        status, metadata = node.http("GET", "/api/v2/metadata")
        assert (status, metadata["server_type"], metadata["name"]) == (200, server_type, node.name)
        assert metadata["id"] == node.uid
        assert metadata["verify_key"] == node.public["verify_key"]


def test_nothing_is_open_that_the_stock_server_opens(net: Node) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert net.http("GET", path)[0] == 404
    with socket.create_connection(("127.0.0.1", net.port)) as connection:
        connection.sendall(b"GET /healthz/live HTTP/1.0\r\nOrigin: https://evil.example\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).lower()
    assert b"alive" in answer
    assert b"access-control" not in answer


def test_administration_is_only_on_the_control_socket(net: Node) -> None:
    for method, path in (("GET", "/control/association"), ("POST", "/control/association/approve")):
        assert net.http(method, path, {})[0] == 403
    assert net.http("GET", "//control/association")[0] in (403, 404)
    assert net.control("GET", "/control/association")[0] == 200
    mode = (net.home / "run" / "control.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_association_is_repeatable_and_seen_by_both(joined: tuple[Node, Node]) -> None:
    net, alice = joined
    peer = {"name": "alice", "uid": alice.uid, "kind": "domain", "url": alice.url, "status": "ACTIVE"}
    assert net.control("GET", "/control/association")[1] == {"peers": [peer], "pending": []}
    own = {"name": "net", "uid": net.uid, "kind": "network", "url": net.url, "status": "ACTIVE"}
    eventually(lambda: alice.control("GET", "/control/association")[1]["peers"] == [own], seconds=5)
    request = {"network_url": net.url, "own_url": alice.url}
    for _unused in range(2):
        assert alice.control("POST", "/control/association/request", request)[1]["status"] == "associated"
        approval = {"domains": [{"uid": alice.uid, "url": alice.url}]}
        assert net.control("POST", "/control/association/approve", approval)[1]["approved"] == [alice.uid]
    assert net.control("GET", "/control/association")[1]["peers"] == [peer]


def test_guest_reaches_the_domain_through_the_network(joined: tuple[Node, Node], client: Client) -> None:
    net, alice = joined
    code = """
from syft.abstract_server import ServerType
guest = sy.login_as_guest(url="http://127.0.0.1", port=port)
peers = guest.api.services.network.get_peers_by_type(ServerType.DATASITE)
domains = [(peer.name, peer.ping_status.value) for peer in peers]
owner = guest.datasites[0].login(email=email, password=password)
result = [domains, owner.name, str(owner.user_role)]
"""
    secrets = alice.secrets
    result = client.run(code, port=net.port, email=secrets["root_email"], password=secrets["root_password"])
    assert result[0] == [["alice", "ACTIVE"]]
    assert result[1] == "alice"
    assert "ADMIN" in result[2].upper()


def test_guest_cannot_change_routes(joined: tuple[Node, Node], client: Client) -> None:
    """Fault 7: on a stock server each of these calls succeeds."""
    net, _unused = joined
    before = _routes(net, client)
    code = """
from syft.service.network.routes import HTTPServerRoute
from syft.service.network.server_peer import ServerPeerUpdate
guest = sy.login_as_guest(url="http://127.0.0.1", port=port)
network = guest.api.services.network
peer = network.get_all_peers()[0]
evil = HTTPServerRoute(host_or_ip="192.0.2.1", port=80, priority=1)
result = {}
for name, call in {
    "update_peer": lambda: network.update_peer(peer_update=ServerPeerUpdate(id=peer.id, server_routes=[evil])),
    "add_route": lambda: network.add_route(peer_verify_key=peer.verify_key, route=evil),
    "update_route_priority": lambda: network.update_route_priority(
        peer_verify_key=peer.verify_key, route=peer.server_routes[0], priority=9),
    "delete_route": lambda: network.delete_route(peer_verify_key=peer.verify_key, route=peer.server_routes[0]),
    "exchange_credentials_with": lambda: network.exchange_credentials_with(
        self_server_route=peer.server_routes[0], remote_server_route=evil, remote_server_verify_key=peer.verify_key),
}.items():
    try:
        result[name] = f"allowed: {call()}"
    except sy.SyftException as error:
        result[name] = str(error)
"""
    answers = client.run(code, port=net.port)
    assert len(answers) == 5
    for name, answer in answers.items():
        assert "needs the role of a data owner" in answer, name
    assert _routes(net, client) == before


def _routes(net: Node, client: Client) -> Any:
    code = """
guest = sy.login_as_guest(url="http://127.0.0.1", port=port)
peers = guest.api.services.network.get_all_peers()
result = [[peer.name, [[str(route), route.priority] for route in peer.server_routes]] for peer in peers]
"""
    return client.run(code, port=net.port)


def test_owner_may_still_change_routes(joined: tuple[Node, Node], client: Client) -> None:
    net, alice = joined
    code = """
from syft.service.network.routes import HTTPServerRoute
owner = sy.login(url="http://127.0.0.1", port=port, email=email, password=password)
peer = owner.api.services.network.get_all_peers()[0]
owner.api.services.network.add_route(
    peer_verify_key=peer.verify_key, route=HTTPServerRoute(host_or_ip="192.0.2.1", port=80))
"""
    client.run(code, port=net.port, email=net.secrets["root_email"], password=net.secrets["root_password"])
    assert len(_routes(net, client)[0][1]) == 2
    approval = {"domains": [{"uid": alice.uid, "url": alice.url}]}
    net.control("POST", "/control/association/approve", approval)
    assert _routes(net, client) == [["alice", [[alice.url, 1]]]]


def test_upstream_association_still_works_for_the_domain_itself(joined: tuple[Node, Node], client: Client) -> None:
    net, alice = joined
    code = """
owner = sy.login(url="http://127.0.0.1", port=port, email=email, password=password)
result = str(owner.connect_to_gateway(sy.login_as_guest(url="http://127.0.0.1", port=network_port)))
"""
    secrets = alice.secrets
    answer = client.run(
        code, port=alice.port, network_port=net.port, email=secrets["root_email"], password=secrets["root_password"]
    )
    assert "Connected" in answer


def test_association_refuses_what_cannot_work(net: Node, alice: Node) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for request, reason in (
        ({"network_url": nobody, "own_url": alice.url}, f"cannot reach {nobody}"),
        ({"network_url": alice.url, "own_url": alice.url}, "not a network"),
        ({"network_url": "http://localhost:1", "own_url": alice.url}, "localhost"),
        ({"network_url": net.url, "own_url": net.url}, "not this node"),
        ({"network_url": net.url, "own_url": alice.url, "network_uid": "0" * 32}, "not 0000"),
    ):
        status, answer = alice.control("POST", "/control/association/request", request)
        assert (status, reason in answer["error"]) == (409, True), answer
    stranger = {"uid": "4" * 32, "url": alice.url}
    answer = net.control("POST", "/control/association/approve", {"domains": [stranger]})[1]
    assert answer["approved"] == []
    assert answer["missing"][0]["uid"] == "4" * 32


def test_stranger_cannot_pose_as_a_domain(grid: Grid, net: Node, alice: Node, client: Client) -> None:
    """A request's uid is only what its sender claims: one with bob's uid and URL but another key is not approved."""
    bob = grid.node("domain", "bob").start()
    code = """
import secrets
from syft.service.network.routes import HTTPServerRoute
from syft.service.network.server_peer import ServerPeer
from syft.types.uid import UID
guest = sy.login_as_guest(url="http://127.0.0.1", port=port)
route = HTTPServerRoute(host_or_ip="127.0.0.1", port=bob_port)
peer = ServerPeer(id=UID(uid), name="bob", verify_key=guest.credentials.verify_key, server_type="datasite",
                  admin_email="", server_routes=[route])
from syft.server.credentials import SyftVerifyKey
guest.api.services.network.add_peer(peer=peer, challenge=secrets.token_bytes(16), self_server_route=route,
                                    verify_key=SyftVerifyKey.from_string(network_key))
"""
    client.run(code, port=net.port, bob_port=bob.port, uid=bob.uid, network_key=net.public["verify_key"])
    request = {"network_url": net.url, "own_url": bob.url}
    approval = {"domains": [{"uid": bob.uid, "url": bob.url}]}
    refused = net.control("POST", "/control/association/approve", approval)[1]
    assert (refused["approved"], refused["missing"][0]["uid"]) == ([], bob.uid)
    assert bob.control("POST", "/control/association/request", request)[1]["status"] == "requested"
    assert net.control("POST", "/control/association/approve", approval)[1]["approved"] == [bob.uid]
    code = """
peers = sy.login_as_guest(url="http://127.0.0.1", port=port).api.services.network.get_all_peers()
result = [str(peer.verify_key) for peer in peers if peer.name == "bob"]
"""
    assert client.run(code, port=net.port) == [bob.public["verify_key"]]
    bob.stop()
    assert net.control("POST", "/control/association/leave", {"uid": bob.uid})[1]["left"] is True
    assert net.control("POST", "/control/association/leave", {"uid": bob.uid})[1]["left"] is False
    assert "bob" not in _states(net)


def _states(net: Node) -> dict[str, str]:
    return {peer["name"]: peer["status"] for peer in net.control("GET", "/healthz/ready")[1]["peers"]}


def test_logs_hold_no_secret(net: Node, alice: Node, client: Client) -> None:
    """Fault 8: a stock server logs the database URL, the form of a failed registration, and arguments of calls."""
    code = """
owner = sy.login(url="http://127.0.0.1", port=port, email=email, password=password)
for _ in range(2):
    try:
        owner.api.services.user.create(name="Eve", email="eve@a.example", password="log-me-not-1",
                                       password_verify="log-me-not-1", institution="Log-Me-Not-Institute")
    except sy.SyftException:
        pass
try:
    sy.login_as_guest(url="http://127.0.0.1", port=port).register(
        name="Eve", email="eve@a.example", password="log-me-not-2", password_verify="log-me-not-2",
        institution="Log-Me-Not-Institute")
except sy.SyftException:
    pass
"""
    secrets = alice.secrets
    client.run(code, port=alice.port, email=secrets["root_email"], password=secrets["root_password"])
    assert "Register Error" in alice.log
    for node in (net, alice):
        for secret in [node.secrets[key] for key in SECRETS if key in node.secrets] + ["log-me-not", "Log-Me-Not"]:
            assert secret not in node.log
    for line in alice.log.splitlines():
        assert line[:4].isdigit(), line
        assert line.split()[1:2] == ["alice"], line
    assert "/healthz" not in alice.log


def test_secrets_are_not_in_what_ps_shows(alice: Node) -> None:
    environment = Path(f"/proc/{alice.process.pid}/environ").read_bytes().decode()
    command_line = Path(f"/proc/{alice.process.pid}/cmdline").read_bytes().decode()
    for key in SECRETS:
        assert alice.secrets[key] not in environment
        assert alice.secrets[key] not in command_line


def test_metrics(joined: tuple[Node, Node]) -> None:
    net, alice = joined
    status, text = alice.http("GET", "/metrics")
    assert status == 200
    for line in (
        'pygrid_jobs{status="created"} 0.0', "pygrid_queue_backlog 0.0", "pygrid_datasets 0.0",
        "pygrid_workers_attached 0.0", "pygrid_up 1.0",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert "process_resident_memory_bytes" in text
    assert 'pygrid_peer{kind="domain",peer="alice",status="ACTIVE"} 1.0' in net.http("GET", "/metrics")[1]
    document = alice.http("GET", "/status")[1]
    assert document["workers"] == []
    assert document["queue"] == {"backlog": 0}
    assert document["jobs"]["completed"] == 0


def test_workers_inside_the_process_are_refused(alice: Node, client: Client) -> None:
    """Fault 1: on a stock server such workers do not come back after a restart, and their jobs wait for ever."""
    code = """
owner = sy.login(url="http://127.0.0.1", port=port, email=email, password=password)
image = owner.api.services.worker_image.get_all()[0]
try:
    result = str(owner.api.services.worker_pool.launch(pool_name="inside", image_uid=image.id, num_workers=1))
except sy.SyftException as error:
    result = str(error)
"""
    secrets = alice.secrets
    answer = client.run(code, port=alice.port, email=secrets["root_email"], password=secrets["root_password"])
    assert "started and removed by its operator" in answer or "workers are nodes of their own" in answer
    assert alice.http("GET", "/healthz/ready")[1]["workers"]["attached"] == 0


def test_restart_keeps_everything_and_a_stop_is_quick(joined: tuple[Node, Node]) -> None:
    net, alice = joined
    code, seconds = alice.stop()
    assert (code, seconds < 3) == (0, True), seconds
    # A peer that accepts and never answers delays no stop (fault 6).
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind(("127.0.0.1", alice.port))
        silent.listen()
        eventually(lambda: _states(net).get("alice") == "TIMEOUT", seconds=25)
        code, seconds = net.stop()
    assert (code, seconds < 3) == (0, True), seconds
    net.start(wait=False)
    alice.start().stop(signal.SIGKILL)
    alice.start()
    net.wait_until_ready()
    assert [peer["name"] for peer in alice.control("GET", "/control/association")[1]["peers"]] == ["net"]
    eventually(lambda: _states(net).get("alice") == "ACTIVE", seconds=25)


def test_taken_port_is_one_line(grid: Grid) -> None:
    node = grid.node("network", "late")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.port))
        taken.listen()
        node.start(wait=False)
        assert node.process.wait(20) == 75
    assert node.log.splitlines() == [f"pygrid_node: cannot listen on 127.0.0.1:{node.port}: Address already in use"]


def test_data_of_another_identity_is_refused(grid: Grid, alice: Node) -> None:
    """Also without owner.json: the database itself says whose it is."""
    other = grid.node("domain", "mallory")
    data = other.home / "data"
    data.mkdir()
    for name in ("node.db", "node.db-wal"):
        source = alice.home / "data" / name
        if source.exists():
            (data / name).write_bytes(source.read_bytes())
    other.start(wait=False)
    assert other.process.wait(20) == 78
    (line,) = other.log.splitlines()
    assert f"belongs to node {alice.uid}" in line
    (data / "owner.json").write_text(
        json.dumps({"uid": other.uid, "verify_key": other.public["verify_key"], "syft_version": "0.9.1"})
    )
    check = other.command("check", str(other.home / "settings.json"))
    assert (check.returncode, "written by syft 0.9.1" in check.stderr) == (78, True)


def test_node_stops_with_its_parent(grid: Grid) -> None:
    """stop_with_parent: a supervisor that was killed leaves no node behind."""
    node = grid.node("network", "orphan")
    node.settings["stop_with_parent"] = True
    settings_file = node.home / "settings.json"
    settings_file.write_text(json.dumps(node.settings))
    script = (
        "import subprocess, sys, time; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, node.python, "-m", "pygrid_node", "run", str(settings_file)],
        env={**os.environ, "PYTHONPATH": str(RUNTIME)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    child = int(parent.stdout.readline())
    eventually((node.home / "data").exists, seconds=20)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), seconds=10)


def _is_zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()
