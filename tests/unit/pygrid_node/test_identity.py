# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""identity.json: created once, never shown, and refused when it is weak."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from .conftest import RUNTIME

pytest.importorskip("nacl")
pytest.importorskip("zmq")

from pygrid_node.errors import NodeError
from pygrid_node.identity import create_identity, load_identity


@pytest.mark.parametrize("kind", ["network", "domain", "worker"])
def test_create_and_load(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "identity.json"
    identity, created = create_identity(file, kind)
    assert created
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert uuid.UUID(identity.uid).version == 4
    assert load_identity(file, kind) == identity == load_identity(file)
    assert list(tmp_path.iterdir()) == [file]
    for secret in identity.secrets():
        assert secret not in json.dumps(identity.public())
        assert secret not in repr(identity)


def test_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"
    create_identity(file, "domain")
    before = file.read_bytes()
    assert create_identity(file, "domain")[1] is False
    with pytest.raises(NodeError, match="with another root_password"):
        create_identity(file, "domain", {"root_password": "correct horse battery"})
    assert file.read_bytes() == before


def test_parallel_creation_gives_one_identity(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"
    results: list[tuple[Any, bool]] = []
    threads = [
        threading.Thread(target=lambda: results.append(create_identity(file, "network"))) for _unused in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({identity.uid for identity, _unused in results}) == 1
    assert sum(created for _unused, created in results) == 1


def test_own_values(tmp_path: Path) -> None:
    own = {
        "uid": str(uuid.uuid4()),
        "private_key": "00112233445566778899aabbccddeeff" * 2,
        "root_email": "owner@hospital.example",
        "root_password": "correct horse battery",
    }
    identity, _unused = create_identity(tmp_path / "i", "domain", own)
    assert identity.uid == own["uid"].replace("-", "")
    assert identity.private_key == own["private_key"]
    # From RFC 8032's algorithm, computed with the reference implementation of libsodium.
    from nacl.signing import SigningKey

    assert identity.verify_key == SigningKey(bytes.fromhex(own["private_key"])).verify_key.encode().hex()
    assert identity.root_email == "owner@hospital.example"


@pytest.mark.parametrize(
    ("kind", "own", "reason"),
    [
        ("domain", {"uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, "a"))}, "version-4 UUID, not version 5"),
        ("domain", {"uid": "alice"}, "must be a version-4 UUID"),
        ("domain", {"private_key": "0" * 64}, "private_key is not random"),
        ("domain", {"private_key": "ab"}, "private_key must be 64"),
        ("domain", {"root_password": "changethis"}, "default password"),
        ("domain", {"root_password": "ChangeThis"}, "default password"),
        ("domain", {"root_password": "short"}, "shorter than 12"),
        ("domain", {"root_password": "aaaaaaaaaaaaaaaa"}, "not random"),
        ("domain", {"root_email": "root"}, "not an email address"),
        ("domain", {"colour": "red"}, "unknown key 'colour'"),
        ("worker", {"root_password": "correct horse battery"}, "a worker has no root_password"),
        ("network", {"uid": 7}, "uid must be text"),
    ],
)
def test_unusable_own_values(tmp_path: Path, kind: str, own: dict[str, Any], reason: str) -> None:
    with pytest.raises(NodeError, match=reason):
        create_identity(tmp_path / "i", kind, own)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"root_password": "changethis"}, "default password"),
        ({"root_password": None}, "root_password is missing"),
        ({"private_key": ""}, "private_key is missing"),
        ({"verify_key": "0" * 64}, "verify_key does not belong"),
        ({"queue_public_key": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"}, "queue_public_key does not belong"),
        ({"queue_secret_key": "short"}, "queue_secret_key is not"),
        ({"more": "x"}, "unknown key 'more'"),
    ],
)
def test_refused_on_load(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    file = tmp_path / "identity.json"
    create_identity(file, "domain")
    document = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps(document))
    with pytest.raises(NodeError, match=reason) as caught:
        load_identity(file, "domain")
    assert document["queue_secret_key"] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620])
def test_refused_when_others_may_read_or_write(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "identity.json"
    create_identity(file, "network")
    file.chmod(mode)
    with pytest.raises(NodeError, match="chmod 600"):
        load_identity(file, "network")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="No such file"):
        load_identity(tmp_path / "none", "network")
    with pytest.raises(NodeError, match="cannot create"):
        create_identity(tmp_path / "none" / "i", "network")


def test_command_line_does_not_import_syft(tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv[1:] = ['identity', 'create', '--kind', 'domain', '--file', sys.argv[1]];"
        "from pygrid_node.__main__ import main; assert main() == 0; assert 'syft' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "i")],
        env={"PYTHONPATH": str(RUNTIME)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown.pop("created") is True
    assert set(shown) == {"uid", "verify_key", "root_email", "queue_public_key"}
