# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle on its way: the archive on the controller, and its parts on a host."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_store import Store, UnpackedBundle
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.plugin_utils import bundle_debs
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_archive import BundleArchive, write_archive


def make_bundle(folder: Path, files: dict[str, bytes], name: str = "bundle.tar") -> BundleArchive:
    folder.mkdir(parents=True, exist_ok=True)
    sources = {}
    entries = []
    for path, content in sorted(files.items()):
        sources[path] = folder / hashlib.sha256(path.encode()).hexdigest()
        sources[path].write_bytes(content)
        entries.append({"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    index = {"schema": 1, "files": entries, "releases": [], "uv": [], "pythons": [], "distributions": []}
    write_archive(folder / name, index, sources)
    return BundleArchive(folder / name)


FILES = {"wheels/a.whl": b"a" * 5000, "wheels/b.whl": b"b" * 70000, "packages/x/Packages": b"Package: x\n"}


def bring(archive: BundleArchive, store: Store, paths: list[str], scratch: Path) -> None:
    entries = archive.entries(paths)
    with store.locked():
        store.take_in(archive.pack([entry["path"] for entry in entries], scratch), entries)


def test_the_same_contents_are_the_same_archive(tmp_path: Path) -> None:
    make_bundle(tmp_path / "one", FILES)
    make_bundle(tmp_path / "two", dict(reversed(FILES.items())) | FILES)
    assert (tmp_path / "one/bundle.tar").read_bytes() == (tmp_path / "two/bundle.tar").read_bytes()
    # and people can check it with the tool they know
    subprocess.run(["sha256sum", "--check", "--quiet", "bundle.tar.sha256"], cwd=tmp_path / "one", check=True)


@pytest.mark.parametrize("with_checksum", [True, False])
@pytest.mark.parametrize("content", [b"a" * 5000, b"b" * 70000])
def test_a_single_wrong_byte_is_found(tmp_path: Path, content: bytes, with_checksum: bool) -> None:
    archive = make_bundle(tmp_path, FILES)
    archive.verify()
    data = bytearray(archive.path.read_bytes())
    data[data.index(content) + len(content) - 1] ^= 1
    archive.path.write_bytes(data)
    if not with_checksum:
        (tmp_path / "bundle.tar.sha256").unlink()
    with pytest.raises(PygridError, match=r"is damaged: .* copy it again from where it was made"):
        BundleArchive(archive.path).verify()


@pytest.mark.parametrize("kept", [0, 700, 3000, 40_000, -12_000])
def test_a_truncated_archive_is_refused(tmp_path: Path, kept: int) -> None:
    archive = make_bundle(tmp_path, FILES)
    archive.path.write_bytes(archive.path.read_bytes()[:kept])
    (tmp_path / "bundle.tar.sha256").unlink()
    with pytest.raises(PygridError, match=r"is damaged: .*copy it again"):
        BundleArchive(archive.path).verify()


def test_something_else_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no archive")
    with pytest.raises(PygridError, match="is it a bundle at all"):
        BundleArchive(tmp_path / "x.tar")
    with pytest.raises(PygridError, match="is not on the controller; correct pygrid_bundle"):
        BundleArchive(tmp_path / "nothing.tar")


def test_only_what_is_missing_is_taken_in(tmp_path: Path) -> None:
    archive = make_bundle(tmp_path / "c", FILES)
    store = Store(Home(tmp_path / "home"), archive.digest)
    everything = archive.entries(list(FILES))
    assert len(store.missing(everything)) == 4
    bring(archive, store, ["wheels/a.whl"], tmp_path / "parcel.tar")
    assert [entry["path"] for entry in store.missing(everything)] == ["wheels/b.whl", "packages/x/Packages"]
    # a file that was damaged on the host's disk counts as missing, and is brought again
    (store.folder / "wheels/a.whl").write_bytes(b"c" * 5000)
    assert "wheels/a.whl" in [entry["path"] for entry in store.missing(everything)]
    bring(archive, store, list(FILES), tmp_path / "parcel.tar")
    assert store.missing(everything) == []


def test_what_arrives_damaged_or_unasked_gets_no_name(tmp_path: Path) -> None:
    archive = make_bundle(tmp_path / "c", FILES)
    store = Store(Home(tmp_path / "home"), archive.digest)
    entries = archive.entries(["wheels/a.whl"])
    parcel = archive.pack(["wheels/a.whl"], tmp_path / "parcel.tar")
    parcel.write_bytes(parcel.read_bytes().replace(b"aaa", b"aba", 1))
    with store.locked(), pytest.raises(PygridError, match=r"a\.whl of the bundle arrived damaged"):
        store.take_in(parcel, entries)
    with store.locked(), pytest.raises(PygridError, match="was not asked for"):
        store.take_in(archive.pack(["wheels/b.whl"], parcel), entries)
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []


def test_an_older_bundle_is_used_again_and_removed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    old = make_bundle(tmp_path / "old", FILES)
    old_store = Store(home, old.digest)
    bring(old, old_store, list(FILES), tmp_path / "parcel.tar")
    (old_store.folder / "packages/x/Packages").write_bytes(b"damaged!!!\n")
    new = make_bundle(tmp_path / "new", {**FILES, "wheels/c.whl": b"c"})
    store = Store(home, new.digest)
    with store.locked():
        entries = new.entries([*FILES, "wheels/c.whl"])
        store.reuse(entries)
        assert store.prune() == [old_store.folder.name]
        missing = [entry["path"] for entry in store.missing(entries)]
    assert missing == ["bundle.json", "packages/x/Packages", "wheels/c.whl"]
    assert not old_store.folder.exists()


def test_a_damaged_file_is_never_used(tmp_path: Path) -> None:
    archive = make_bundle(tmp_path / "c", FILES)
    store = Store(Home(tmp_path / "home"), archive.digest)
    bring(archive, store, list(FILES), tmp_path / "parcel.tar")
    bundle = UnpackedBundle(store.folder)
    assert bundle.checked("wheels/a.whl").read_bytes() == b"a" * 5000
    (store.folder / "wheels/a.whl").write_bytes(b"c" * 5000)
    with pytest.raises(PygridError, match="is damaged; run again"):
        bundle.checked("wheels/a.whl")


def make_deb(folder: Path) -> bundle_debs.Package:
    (folder / "x/DEBIAN").mkdir(parents=True)
    control = "Package: pygrid-test\nVersion: 1:2.0\nArchitecture: all\nMaintainer: nobody\nDescription: nothing\n"
    (folder / "x/DEBIAN/control").write_text(control)
    deb = folder / "pygrid-test_1%3a2.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", folder / "x", deb], check=True, capture_output=True)
    sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
    stanza = f"{control}Filename: pool/x.deb\nSize: {deb.stat().st_size}\nMD5sum: 0\nSHA256: {sha256}"
    return bundle_debs.Package("pygrid-test", "1:2.0", deb, stanza, sha256)


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt and dpkg-deb")
def test_apt_takes_packages_from_the_bundle_only_and_compares_them(tmp_path: Path) -> None:
    package = make_deb(tmp_path)
    index, release = bundle_debs.repository([package])
    name = bundle_debs.bundle_name(package)
    content = {"Packages": index.encode(), "Release": release.encode(), name: package.file.read_bytes()}
    files = {f"packages/test/{path}": data for path, data in content.items()}
    archive = make_bundle(tmp_path / "c", files)
    store = Store(Home(tmp_path / "home"), archive.digest)
    bring(archive, store, list(files), tmp_path / "parcel.tar")
    configuration = store.configure_apt("packages/test")
    assert store.configure_apt("packages/test").stat().st_mtime == configuration.stat().st_mtime

    # The test must not need root: a package database of its own, and the package is fetched, not installed.
    (tmp_path / "status").write_text("")
    own = ["-o", f"Dir::State::status={tmp_path / 'status'}", "-o", f"Dir::State={tmp_path}"]

    def apt(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["apt-get", *own, *arguments]
        variables = {"APT_CONFIG": str(configuration), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    update = apt("update")
    assert update.returncode == 0, update.stderr
    assert "http" not in update.stdout + update.stderr
    fetched = apt("install", "-y", "--download-only", "pygrid-test")
    assert fetched.returncode == 0, fetched.stderr
    deb = store.folder / "packages/test" / name
    deb.write_bytes(deb.read_bytes()[:-1] + b"x")
    assert apt("install", "-y", "--download-only", "pygrid-test").returncode != 0
