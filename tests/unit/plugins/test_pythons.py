# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python a release is made from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import pythons


def fake_python(folder: Path, answer: str, code: int = 0) -> str:
    """A program that answers as an interpreter would that this machine does not have."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nprintf '{answer}'\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_the_interpreter_is_asked(tmp_path: Path) -> None:
    found, problem = pythons.find(fake_python(tmp_path, "/usr/bin/python3.10\\ncpython\\n3\\n10\\n2\\n"))
    assert problem is None
    assert found is not None
    assert found.as_data() == {"path": "/usr/bin/python3.10", "version": "3.10.2", "tag": "cp310"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("/x\\ncpython\\n3\\n9\\n18\\n", "cpython 3.9.18; syft runs on CPython 3.10, 3.11 or 3.12"),
        ("/x\\ncpython\\n3\\n13\\n0\\n", "cpython 3.13.0; syft runs on CPython"),
        ("/x\\npypy\\n3\\n11\\n1\\n", "pypy 3.11.1; syft runs on CPython"),
        ("no such version\\n", "is no Python that can be run here"),
    ],
)
def test_an_interpreter_that_will_not_do_is_refused_with_a_remedy(tmp_path: Path, answer: str, reason: str) -> None:
    _interpreter, problem = pythons.find(fake_python(tmp_path, answer))
    assert reason in (problem or "")
    assert "in PATH are" in (problem or "") or "install CPython" in (problem or "")


def test_nothing_in_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    _interpreter, problem = pythons.find("python3")
    assert "install CPython 3.10, 3.11 or 3.12" in (problem or "")


def test_the_one_that_runs_us_costs_nothing_and_is_no_virtual_environment() -> None:
    own = pythons.own()
    assert own.version == sys.version_info[:3]
    if own.is_supported:
        assert pythons.find("") == (own, None)
