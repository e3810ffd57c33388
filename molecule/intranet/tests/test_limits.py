# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ingress stops - floods from one address, guesses, bodies without an end - and what it lets through."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.intranet import Intranet

pytestmark = pytest.mark.thorough

AUTHORITY = "/etc/pygrid/grid-ca.pem"
CLIENTS_COPY = "/root/limits-ca.pem"
#: Opens many connections, and counts those that are still open after a moment.
CONNECTIONS = """
import select, socket, sys, time
opened = []
for _number in range(150):
    try:
        opened.append(socket.create_connection((sys.argv[1], 443), 5))
    except OSError:
        pass
time.sleep(2)
closed, _writable, _failed = select.select(opened, [], [], 0)
print(len(opened) - len(closed))
"""


@pytest.fixture(scope="module", autouse=True)
def stranger(grid: Intranet) -> None:
    grid.must("client", f"cat > {CLIENTS_COPY}", text=grid.authority.read_text())


def codes(grid: Intranet, host: str, url: str, options: str = "") -> Counter[str]:
    """How often a host got which HTTP status."""
    authority = CLIENTS_COPY if host == "client" else AUTHORITY
    command = f"curl -s --max-time 60 --cacert {authority} -o /dev/null -w '%{{http_code}}\\n' {options} '{url}'"
    command += " 2>/dev/null"  # of --parallel, which shows its progress despite -s
    return Counter(grid.run(host, command).text.split())


def test_a_flood_from_one_address_is_stopped_and_others_are_served(grid: Intranet) -> None:
    url = f"{grid.url('alice')}/api/v2/metadata"
    answers = codes(grid, "client", f"{url}?[1-700]", "--parallel --parallel-max 20")
    assert answers["429"] > 100, answers
    assert answers["200"] > 100, answers
    assert set(answers) == {"200", "429"}, answers
    assert codes(grid, "bob", url) == {"200": 1}
    grid.eventually(lambda: codes(grid, "client", url) == {"200": 1}, 30)


def test_guessing_passwords_is_slow(grid: Intranet) -> None:
    url = f"{grid.url('alice')}/api/v2/login"
    answers = codes(grid, "workers", f"{url}?[1-60]", "-H 'Content-Type: application/json' -d '{}'")
    assert answers["429"] > 20, answers
    assert codes(grid, "workers", f"{grid.url('alice')}/api/v2/metadata") == {"200": 1}, "only logins are counted"


def test_no_address_takes_all_connections(grid: Intranet) -> None:
    still_open = int(grid.must("client", f"python3 - {grid.address('alice')}", text=CONNECTIONS))
    assert 50 <= still_open <= 101
    assert codes(grid, "bob", f"{grid.url('alice')}/api/v2/metadata") == {"200": 1}


@pytest.mark.parametrize(
    ("header", "code"), [("Content-Length: 3000000000", "413"), ("Transfer-Encoding: chunked", "411")]
)
def test_a_body_that_is_too_large_is_refused_at_once(grid: Intranet, header: str, code: str) -> None:
    url = f"{grid.url('alice')}/api/v2/api_call"
    assert codes(grid, "client", url, f"-X POST -H '{header}' --data-binary @/etc/hostname") == {code: 1}


@pytest.mark.timeout(1200)
def test_a_gigabyte_arrives_and_comes_back(grid: Intranet, tmp_path: Path) -> None:
    owner = grid.identity("bob", tmp_path)
    assert grid.client("large", grid.url("bob"), owner, "1000", seconds=900) == {"megabytes": 1000, "same": True}
