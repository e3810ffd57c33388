# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host of the scenario, and its grid as the tests deploy it."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

sys.path.insert(0, os.environ["MOLECULE_PROJECT_DIRECTORY"])

from tests.support import intranet
from tests.support.hospital import HOST, name_urls
from tests.support.intranet import CHECKOUT, Intranet
from tests.support.playbook import Run, killing

grid = intranet.grid

#: All that anybody could see of processes, and what all accounts could read in temporary files (not in large ones,
#: the parcels of the bundle).
WATCH = r"""
mkdir -m 700 /run/watch && cd /run/watch
nohup sh -c 'while [ ! -e stop ]; do
  ps axww -o args= >> seen; sort -u seen > sorted; mv sorted seen
  find /tmp /var/tmp /home -xdev -type f -size -256k -perm -o+r -exec cat {} + 2>/dev/null | sort -u >> files
  sleep 0.2
done' > log 2>&1 &
"""
#: Where runs of the first deploy are killed, one after the other.
KILLS = (
    "end of: openmined.pygrid.node : Stage release",
    "start of: openmined.pygrid.database : Set the verifiers of passwords",
)


@dataclass
class Hospital:
    """What happened on the host, for all tests to look at."""

    grid: Intranet
    #: All that ansible-playbook said.
    output: str = ""
    runs: list[Run] = field(default_factory=list)

    def must(self, command: str, **options: Any) -> str:
        return self.grid.must(HOST, command, **options)

    def identity(self, node: str) -> dict[str, str]:
        return json.loads(self.must(f"cat /etc/pygrid/nodes/{node}/identity.json"))

    def program(self, name: str, *words: str) -> dict[str, Any]:
        """Run a program of tests/support on the host itself, as a client that trusts the grid CA."""
        self.grid.put(HOST, (CHECKOUT / "tests" / "support" / name).read_bytes(), f"/root/{name}")
        trust = "REQUESTS_CA_BUNDLE=/etc/pygrid/grid-ca.pem SSL_CERT_FILE=/etc/pygrid/grid-ca.pem"
        python = "/etc/pygrid/nodes/alice/current/env/bin/python -B"
        said = self.must(f"{trust} {python} /root/{name} {shlex.join(words)}", seconds=240).splitlines()
        return json.loads(next(line for line in reversed(said) if line.startswith("{")))

    def client(self, verb: str, node: str, *words: str) -> dict[str, Any]:
        return self.program(
            "grid_client.py",
            verb,
            f"https://{node}.hospital.example",
            f"/etc/pygrid/nodes/{node}/identity.json",
            *words,
        )


@pytest.fixture(scope="session")
def hospital(grid: Intranet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A bundle is made, the host loses the internet, and then the grid is deployed: watched, killed again and again."""
    hospital = Hospital(grid)
    name_urls(grid)
    grid.must_play("bundle", timeout_seconds=900)
    grid.lab.set_offline([HOST], True)
    hospital.must(WATCH)
    record = tmp_path_factory.mktemp("kills") / "moments"
    loud = ("-vvv", "--diff")
    for moment in KILLS:
        record.unlink(missing_ok=True)
        run = grid.play("deploy", *loud, environment=killing(record, moment))
        assert run.returncode < 0, f"not killed at moment {moment}: {run.output[-3000:]}"
        hospital.output += run.output
    for _again in range(2):
        run = grid.must_play("deploy", *loud)
        hospital.runs.append(run)
        hospital.output += run.output
    hospital.must("touch /run/watch/stop; sleep 1")
    return hospital


@pytest.fixture(scope="session")
def marker() -> str:
    """A value that nobody knows, to see that a search finds what is there."""
    return secrets.token_hex(16)


#: The later ones find what the earlier ones left.
ORDER = ("airgap", "secrets", "tenants", "removal")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))
    for item in items:
        item.add_marker(pytest.mark.timeout(1800))  # the first one waits for the bundle and all deploys
