# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two tenants on one host: what is the one's is out of reach for a shell of the other's accounts and for its jobs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Hospital

#: Of the other tenant, by node and service; they are tried as alice's Domain, as her Worker, and from a job on it.
FILES = """
cat /etc/pygrid/nodes/{node}/settings.json
cat /etc/pygrid/nodes/{node}/identity.json
cat /etc/pygrid/nodes/{node}/database.url
cat /etc/pygrid/tls/bob.pem
ls /var/lib/pygrid/{node}/data
ls /run/pygrid/{node}
ls /run/credentials/pygrid-{kind}@{node}.service
cat /proc/{pid}/environ
ls /proc/{pid}/fd
journalctl -q -u pygrid-{kind}@{node} | grep .
curl -sf --max-time 5 --unix-socket /run/pygrid/{node}/control.sock http://node/status
"""
SERVICES = """
curl -sf --max-time 5 http://127.0.0.1:5001/api/v2/metadata
curl -sf --max-time 5 http://127.0.0.1:5601/metrics
timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/5501'
psql -h /var/run/postgresql -U postgres -c 'select 1'
psql -h 127.0.0.1 -U pygrid_bob -d pygrid_bob -w -c 'select 1'
cat /var/lib/postgresql/15/main/PG_VERSION
cat /etc/shadow
sudo -n true
kill -0 {pid}
"""
OUTSIDE = """
timeout 5 bash -c 'exec 3<>/dev/tcp/{address}/22'
timeout 5 bash -c 'exec 3<>/dev/tcp/192.0.2.1/443'
"""
#: What must work, so that a broken probe is not taken for a wall.
ALLOWED = {
    "id -un": "pygrid-alice",
    "cat /etc/hostname": "hospital",
}


@pytest.fixture(scope="module")
def attempts(hospital: Hospital) -> list[str]:
    """Commands, none of which may succeed."""
    found = []
    for node, kind in (("bob", "domain"), ("bob-w1", "worker")):
        pid = hospital.must(f"systemctl show -p MainPID --value pygrid-{kind}@{node}")
        values = {"node": node, "kind": kind, "pid": pid, "address": hospital.grid.address("hospital")}
        found += (FILES + SERVICES).format(**values).split("\n")
    return list(dict.fromkeys(filter(None, found)))


@pytest.mark.parametrize("account", ["pygrid-alice", "pygrid-alice-w1"])
def test_from_a_shell(hospital: Hospital, attempts: list[str], account: str) -> None:
    for command, said in ALLOWED.items():
        assert said in hospital.must(command, account=account)
    for attempt in attempts:
        answer = hospital.grid.run("hospital", attempt, account=account)
        assert not answer.succeeded, f"{attempt}: {answer.text[:200]}"


def test_from_inside_a_job(hospital: Hospital, attempts: list[str]) -> None:
    outside = OUTSIDE.format(address=hospital.grid.address("hospital")).split("\n")
    tried = [*ALLOWED, *attempts, *filter(None, outside)]
    identity = "/etc/pygrid/nodes/alice/identity.json"
    found = hospital.program("attacks.py", "job", "https://alice.hospital.example", identity, json.dumps(tried))
    assert set(found) == set(tried)
    for command, said in ALLOWED.items():
        assert found[command]["code"] == 0
        assert said in found[command]["said"]
    reached = {
        attempt: found[attempt]["said"] for attempt in tried if attempt not in ALLOWED and not found[attempt]["code"]
    }
    assert reached == {}
