# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single entries of an allow-list come and go, and nothing else changes."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils.allow_list import edit
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.node("alice").root.mkdir(parents=True)
    home.node("alice").settings.write_text("{}")
    return home


def test_entries_come_and_go(home: Home) -> None:
    file = home.node("alice").workers
    edit(home, "alice", {"w1": "one", "w2": "two"}, [])
    assert json.loads(file.read_text()) == {"w1": "one", "w2": "two"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before, after = edit(home, "alice", {"w3": "three"}, ["w1", "never-there"])
    assert (json.loads(before), json.loads(after)) == ({"w1": "one", "w2": "two"}, {"w2": "two", "w3": "three"})
    assert json.loads(file.read_text()) == {"w2": "two", "w3": "three"}


def test_an_unchanged_list_is_not_written(home: Home) -> None:
    edit(home, "alice", {"w1": "one"}, [])
    file = home.node("alice").workers
    number = file.stat().st_ino
    before, after = edit(home, "alice", {"w1": "one"}, ["w2"])
    assert before == after
    assert file.stat().st_ino == number


def test_check_mode_writes_nothing(home: Home) -> None:
    before, after = edit(home, "alice", {"w1": "one"}, [], dry_run=True)
    assert before != after
    assert not home.node("alice").workers.exists()


def test_a_domain_that_is_not_there_is_named(home: Home) -> None:
    with pytest.raises(PygridError, match="bob is not deployed on this host"):
        edit(home, "bob", {"w1": "one"}, [])
