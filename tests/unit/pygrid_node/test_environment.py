# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What syft finds in the environment, and what a child process does not find there any more."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from pygrid_node.environment import forget_secrets, prepare, version_numbers
from pygrid_node.errors import NodeError
from pygrid_node.identity import Identity
from pygrid_node.settings import parse_settings

from .test_settings import document

ME = Identity(uid="1" * 32, private_key="a" * 64, root_email="root@a.example", root_password="a-long-password")


def test_prepare_and_forget(tmp_path: Path) -> None:
    settings = parse_settings(document("network", node_directory=str(tmp_path / "alice")))
    leftovers = {"SYFT_DB_URL": "sqlite:////old", "CONTAINER_HOST": "k8s", "DEV_MODE": "true", "PATH": "/bin"}
    with patch.dict(os.environ, leftovers, clear=True):
        prepare(settings, ME)
        assert os.environ["SERVER_UID"] == ME.uid
        assert os.environ["DEFAULT_ROOT_PASSWORD"] == ME.root_password
        assert os.environ["HOME"] == os.environ["TMPDIR"] == str(tmp_path / "alice" / "tmp")
        assert os.environ["PATH"] == "/bin"
        assert not {"SYFT_DB_URL", "CONTAINER_HOST", "DEV_MODE"} & set(os.environ)
        forget_secrets()
        assert not {ME.private_key, ME.root_password} & set(os.environ.values())
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "alice").iterdir()} == {
        "data": 0o700, "run": 0o700, "tmp": 0o700,
    }  # fmt: skip


def test_whom_a_node_trusts(tmp_path: Path) -> None:
    bundle = tmp_path / "trust.pem"
    settings = parse_settings(
        document(
            "network", node_directory=str(tmp_path), run_directory=str(tmp_path / "elsewhere"), trust_file=str(bundle),
            database_url="postgresql://u:p@db.example:5432/d", database_tls=True,
        )
    )  # fmt: skip
    with patch.dict(os.environ, {"PGSSLMODE": "prefer", "PGSERVICE": "other"}, clear=True):
        with pytest.raises(NodeError, match=r"trust\.pem: missing"):
            prepare(settings, ME)
        bundle.touch()
        prepare(settings, ME)
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "PGSSLROOTCERT"):
            assert os.environ[name] == str(bundle)
        assert os.environ["PGSSLMODE"] == "verify-full"
        assert "PGSERVICE" not in os.environ
    assert (tmp_path / "elsewhere").is_dir()


def test_postgresql_of_the_same_host_needs_no_tls(tmp_path: Path) -> None:
    local = {"database_url": "postgresql://u:p@127.0.0.1:5432/d", "database_tls": False}
    with patch.dict(os.environ, {}, clear=True):
        prepare(parse_settings(document("network", node_directory=str(tmp_path), **local)), ME)
        assert os.environ["PGSSLMODE"] == "disable"
        assert "PGSSLROOTCERT" not in os.environ


@pytest.mark.parametrize(
    ("text", "numbers"), [("0.9.5", (0, 9, 5)), ("0.9.5-beta.1", (0, 9, 5)), ("0.10.0", (0, 10, 0)), ("x", (0,))]
)
def test_version_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers
