# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of releases, and what counts as a complete one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import releases

INGREDIENTS = {
    "version": "0.9.5",
    "lock_sha256": "a" * 64,
    "runtime_sha256": "b" * 64,
    "packages": ["numpy==1.26.4"],
    "python_tag": "cp311",
}


def stage(home: Path, name: str, staged_at: float = 1.0) -> Path:
    folder = home / "releases" / name
    (folder / "env" / "bin").mkdir(parents=True)
    (folder / "env" / "bin" / "python").symlink_to(sys.executable)
    manifest = {"schema": releases.SCHEMA, "name": name, "staged_at": staged_at}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def use(home: Path, node: str, name: str) -> None:
    (home / "nodes" / node).mkdir(parents=True)
    (home / "nodes" / node / "current").symlink_to(f"../../releases/{name}")


def test_the_same_ingredients_are_the_same_release() -> None:
    assert releases.release_name(**INGREDIENTS) == releases.release_name(**INGREDIENTS)
    assert releases.is_release_name(releases.release_name(**INGREDIENTS))


@pytest.mark.parametrize(
    ("ingredient", "value"),
    [
        ("version", "0.9.3"),
        ("lock_sha256", "c" * 64),
        ("runtime_sha256", "c" * 64),
        ("packages", []),
        ("python_tag", "cp312"),
    ],
)
def test_every_ingredient_makes_another_release(ingredient: str, value: object) -> None:
    assert releases.release_name(**INGREDIENTS) != releases.release_name(**{**INGREDIENTS, ingredient: value})


def test_order_blanks_and_repetitions_of_packages_do_not_matter() -> None:
    one = releases.release_name(**{**INGREDIENTS, "packages": ["b", "a"]})
    other = releases.release_name(**{**INGREDIENTS, "packages": [" a ", "b", "a", ""]})
    assert one == other


@pytest.mark.parametrize(
    "name", ["..", "", ".staging-x", "0.9.5", "0.9.5-xyz", "0.9.5-0123456789ab/..", "a-0123456789ab"]
)
def test_other_folders_are_no_releases(name: str) -> None:
    assert not releases.is_release_name(name)


def test_a_release_is_complete_with_its_manifest_and_its_python(tmp_path: Path) -> None:
    name = releases.release_name(**INGREDIENTS)
    assert not releases.is_staged(tmp_path, name)
    folder = stage(tmp_path, name)
    assert releases.is_staged(tmp_path, name)
    (folder / "env" / "bin" / "python").unlink()
    (folder / "env" / "bin" / "python").symlink_to("/nowhere/python")
    assert not releases.is_staged(tmp_path, name)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1, "name": "another"}', '{"schema": 99}'])
def test_a_damaged_manifest_is_no_release(tmp_path: Path, content: str) -> None:
    name = releases.release_name(**INGREDIENTS)
    (stage(tmp_path, name) / "manifest.json").write_text(content)
    assert releases.read_manifest(tmp_path, name) is None
    assert releases.staged_releases(tmp_path) == []


def test_releases_come_by_age_and_with_their_nodes(tmp_path: Path) -> None:
    stage(tmp_path, "0.9.3-0123456789ab", staged_at=2.0)
    stage(tmp_path, "0.9.5-0123456789ab", staged_at=1.0)
    (tmp_path / "releases" / ".staging-x").mkdir()
    use(tmp_path, "bob", "0.9.5-0123456789ab")
    use(tmp_path, "alice", "0.9.5-0123456789ab")
    (tmp_path / "nodes" / "new").mkdir()
    assert releases.staged_releases(tmp_path) == ["0.9.5-0123456789ab", "0.9.3-0123456789ab"]
    assert releases.releases_in_use(tmp_path / "nodes") == {"0.9.5-0123456789ab": ["alice", "bob"]}
