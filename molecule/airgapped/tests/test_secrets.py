# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every secret that the deploy made is searched for, by its value, wherever somebody else could read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.hospital import NODES

if TYPE_CHECKING:
    from .conftest import Hospital

SECRET_FIELDS = ("root_password", "private_key", "queue_secret_key")
KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)-----END", re.DOTALL)


@pytest.fixture(scope="module")
def secrets(hospital: Hospital) -> dict[str, str]:
    """What it is -> its value."""
    found = {}
    for node in NODES:
        identity = hospital.identity(node)
        found |= {f"{field} of {node}": identity[field] for field in SECRET_FIELDS if field in identity}
        url = hospital.must(f"cat /etc/pygrid/nodes/{node}/database.url")
        found[f"database password of {node}"] = unquote(urlsplit(url).password or "")
    for file in ("tls/net.pem", "tls/alice.pem", "tls/bob.pem", "tls/database.key"):
        found |= key_lines(file, hospital.must(f"cat /etc/pygrid/{file}"))
    found |= key_lines("grid CA", (hospital.grid.pki / "current" / "grid-ca.key").read_text())
    return found


def key_lines(what: str, pem: str) -> dict[str, str]:
    """The second line of a key: the first one of a P-256 key begins alike in all of them."""
    key = KEY.search(pem)
    assert key, what
    return {f"key of {what}": key[1].splitlines()[1]}


def search(text: str, secrets: dict[str, str]) -> list[str]:
    return [what for what, value in secrets.items() if value in text]


def test_there_are_secrets_to_search_for(secrets: dict[str, str]) -> None:
    assert len(secrets) == 5 + 5 + 3 + 5 + 3 - 1
    assert all(len(value) >= 20 for value in secrets.values())
    assert len(set(secrets.values())) == len(secrets)


def test_not_in_what_ansible_says(hospital: Hospital, secrets: dict[str, str]) -> None:
    assert "TASK [" in hospital.output
    assert "--- before" in hospital.output, "no diff was shown"
    assert search(hospital.output, secrets) == []


def test_not_in_the_journal(hospital: Hospital, secrets: dict[str, str], marker: str) -> None:
    hospital.must(f"logger {marker}; journalctl --sync")
    journal = hospital.must("journalctl -q -a -o cat --no-pager")
    assert marker in journal
    assert search(journal, secrets) == []


def test_not_in_any_command_line(hospital: Hospital, secrets: dict[str, str]) -> None:
    seen = hospital.must("cat /run/watch/seen")
    assert "pygrid_node" in seen
    assert search(seen, secrets) == []


def test_not_in_temporary_files_that_others_may_read(hospital: Hospital, secrets: dict[str, str]) -> None:
    assert search(hospital.must("cat /run/watch/files"), secrets) == []


def test_not_in_any_file_that_all_accounts_may_read(hospital: Hospital, secrets: dict[str, str], marker: str) -> None:
    hospital.must(f"echo {marker} > /var/tmp/marker")
    patterns = "".join(f"{value}\n" for value in [marker, *secrets.values()])
    hospital.must("cat > /run/watch/patterns", text=patterns)
    readable = "find / -xdev -path /run/watch -prune -o -type f -perm -o+r -print0"
    found = hospital.must(f"{readable} | xargs -0 grep -lF -f /run/watch/patterns || true", seconds=300).splitlines()
    assert found == ["/var/tmp/marker"]


def test_not_in_the_environment_of_processes(hospital: Hospital, secrets: dict[str, str]) -> None:
    environments = hospital.must("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | sort -u || true")
    assert "CREDENTIALS_DIRECTORY" in environments
    assert search(environments, secrets) == []
