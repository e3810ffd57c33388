# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders, the lock, and what controller and host exchange."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import release_files as files
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.release_stage import only_new
from ansible_collections.openmined.pygrid.plugins.plugin_utils import release_source

COLLECTION = Path(__file__).resolve().parents[3]


def test_a_release_gets_its_name_last(tmp_path: Path) -> None:
    staging = files.staging_folder(tmp_path / "releases")
    target = tmp_path / "releases" / "0.9.5-0123456789ab"
    target.mkdir()
    (target / "broken").touch()
    files.finish(staging, {"schema": 1}, target)
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json"]
    assert len(files.remove_leftovers(tmp_path / "releases")) == 1
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [target.name]


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    leftover = files.staging_folder(tmp_path)
    (leftover / "env").mkdir()
    (tmp_path / "0.9.5-0123456789ab").mkdir()
    assert files.remove_leftovers(tmp_path) == [leftover.name]
    assert [path.name for path in tmp_path.iterdir()] == ["0.9.5-0123456789ab"]
    assert files.remove_leftovers(tmp_path / "missing") == []


def test_the_lock_is_held_until_the_children_are_gone(tmp_path: Path) -> None:
    with files.locked(Home(tmp_path)) as lock:
        child = lock.run([sys.executable, "-c", "import time; time.sleep(0.6)"])
        started = time.monotonic()
    with files.locked(Home(tmp_path)) as lock:
        assert time.monotonic() - started >= 0.4
        assert lock.waited_seconds >= 0.3
    child.wait()


def test_children_die_with_a_killed_run(tmp_path: Path) -> None:
    program = (
        "import sys, time, os, signal, pathlib\n"
        "from ansible_collections.openmined.pygrid.plugins.module_utils import release_files as files\n"
        "from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home\n"
        "with files.locked(Home(pathlib.Path(sys.argv[1]))) as lock:\n"
        "    print(lock.run(['sleep', '60']).pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(COLLECTION / "collections")}
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == -9
    assert run.stdout.strip().isdigit()
    with files.locked(Home(tmp_path)) as lock:  # would take 60 s if the child had lived on
        assert lock.waited_seconds < 5


def test_too_little_space_is_refused(tmp_path: Path) -> None:
    files.check_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(PygridError, match=r"MB of free space and a release needs about 999999999 MB; free some"):
        files.check_space(tmp_path / "not" / "yet", 999_999_999)
    assert not (tmp_path / "not").exists()


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PygridError, match="pygrid_home"):
        files.check_writable(tmp_path / "file" / "home")
    with pytest.raises(PygridError, match="pygrid_home"):
        files.make_folder(tmp_path / "file" / "home")


def test_an_archive_cannot_leave_its_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("../outside")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(PygridError, match="outside"):
        files.unpack(tmp_path / "evil.tar.gz", tmp_path / "in")
    assert not (tmp_path / "outside").exists()


def test_what_the_controller_packs_arrives(tmp_path: Path) -> None:
    source = release_source.find_source("0.9.5")
    files.unpack(release_source.pack(source, tmp_path / "release.tar.gz"), tmp_path / "parts")
    assert (tmp_path / "parts" / "lock.txt").read_bytes() == source.lock_file.read_bytes()
    assert (tmp_path / "parts" / "pygrid_node" / "__init__.py").exists()
    assert {"imports.txt", "supervisor.txt", "verify.py", "bytecode.py"} <= {
        p.name for p in (tmp_path / "parts").iterdir()
    }
    assert (tmp_path / "release.tar.gz").stat().st_size < 1_000_000


def test_every_lock_pins_its_version_with_hashes() -> None:
    assert release_source.supported_versions() == ["0.9.2", "0.9.3", "0.9.5"]
    for lock in (COLLECTION / "roles" / "node" / "files" / "locks").glob("*.txt"):
        if lock.name == "imports.txt":
            continue
        blocks = lock.read_text().replace("\\\n", " ").splitlines()
        pins = [line for line in blocks if line and not line.startswith(("#", " "))]
        assert pins
        assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)
        assert "://" not in lock.read_text()


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("0.9.1", "before 0.9.2"),
        ("0.10.0", "no server any more"),
        ("0.9.4", "'0.9.4' is not supported;"),
        ("nonsense", "looks like 0.9.5"),
        ("../syft-0.9.5", "looks like 0.9.5"),
    ],
)
def test_an_unsupported_version_names_those_that_are(version: str, reason: str) -> None:
    with pytest.raises(PygridError, match=reason) as caught:
        release_source.find_source(version)
    assert "set pygrid_version to one of 0.9.2, 0.9.3, 0.9.5" in str(caught.value)


def test_a_lock_of_ones_own(tmp_path: Path) -> None:
    lock = tmp_path / "mine.txt"
    with pytest.raises(PygridError, match="pygrid_lock_file"):
        release_source.find_source("0.9.5", str(lock))
    lock.write_text("syft==0.9.3 --hash=sha256:00\n")
    with pytest.raises(PygridError, match=r"does not pin syft==0\.9\.5"):
        release_source.find_source("0.9.5", str(lock))
    assert release_source.find_source("0.9.3", str(lock)).lock_file == lock


def test_only_what_the_lock_lacks_is_added() -> None:
    lock = "numpy==1.26.4 \\\n    --hash=sha256:aa\ntyping-extensions==4.0 \\\n    --hash=sha256:bb\n"
    resolved = (
        "joblib==1.4 \\\n    --hash=sha256:cc\nnumpy==1.26.4 \\\n    --hash=sha256:dd\n"
        "typing_extensions==4.0 \\\n    --hash=sha256:ee\n"
    )
    assert only_new(resolved, lock) == "joblib==1.4 \\\n    --hash=sha256:cc\n"
    with pytest.raises(PygridError, match="git\\+ssh"):
        only_new("thing @ git+ssh://somewhere/thing\n", lock)
