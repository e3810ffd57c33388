# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into a bundle, and whether it fits a host."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.action import bundle_archive as action
from ansible_collections.openmined.pygrid.plugins.module_utils import bundle_index, operating_system
from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_checks import check_bundle
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.release_files import platform_tag
from ansible_collections.openmined.pygrid.plugins.plugin_utils import bundle_debs, bundle_licences
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_tools import Target
from ansible_collections.openmined.pygrid.plugins.plugin_utils.bundle_wheels import pip_options, read_pins

NEED = {"version": "0.9.5", "lock_sha256": "a" * 64, "packages": [], "tag": "cp311", "platform": "linux-x86_64"}
INDEX = {
    "releases": [{**NEED, "requirements": "r.txt", "wheels": ["w"]}],
    "uv": [{"platform": "linux-x86_64", "path": "uv/linux-x86_64/uv"}],
    "pythons": [],
    "distributions": [
        {"name": "debian-12", "platform": "linux-x86_64", "folder": "p", "contents": ["haproxy", "libc6"]}
    ],
}


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        ({"platform": "linux-aarch64"}, "its releases are for linux-x86_64, the host is linux-aarch64"),
        ({"tag": "cp312"}, "its releases are for Python cp311, the host has cp312"),
        ({"version": "0.9.3"}, "its releases are with syft 0.9.5, pygrid_version is 0.9.3"),
        (
            {"lock_sha256": "b" * 64},
            f"from the lock file {'a' * 12}, this collection's (or pygrid_lock_file) is {'b' * 12}",
        ),
        ({"packages": ["x==1"]}, "with the packages [], pygrid_worker_packages is [x==1]"),
    ],
)
def test_a_release_that_does_not_fit_is_named(difference: dict[str, Any], sentence: str) -> None:
    assert bundle_index.why_no_release(INDEX, NEED) is None
    assert sentence in (bundle_index.why_no_release(INDEX, {**NEED, **difference}) or "")
    # the summary that goes to the hosts tells the same
    summary = bundle_index.summary(INDEX)
    assert sentence in (bundle_index.why_no_release(summary, {**NEED, **difference}) or "")
    assert "wheels" not in summary["releases"][0]


def test_two_releases_that_both_miss_in_something_are_no_release() -> None:
    other = {**NEED, "platform": "linux-aarch64", "tag": "cp312"}
    index = {**INDEX, "releases": [NEED, other]}
    assert "the host has cp312" in (bundle_index.why_no_release(index, {**NEED, "tag": "cp312"}) or "")


def test_packages_that_are_missing_are_named() -> None:
    def why(key: str, missing: list[str]) -> str | None:
        return bundle_index.why_no_packages(INDEX, key, "linux-x86_64", missing)

    assert why("debian-12", ["haproxy"]) is None
    assert why("debian-11", []) is None
    assert "debian-12 on linux-x86_64, the host is debian-11 on linux-x86_64 and lacks haproxy" in (
        why("debian-11", ["haproxy"]) or ""
    )
    assert why("debian-12", ["haproxy", "nftables"]) == "it has no nftables for debian-12"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian-12"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "ubuntu-24.04"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', "el-9"),
        ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.5"\n', "el-9"),
    ],
)
def test_operating_systems_with_the_same_packages_are_one(text: str, key: str) -> None:
    assert bundle_index.distribution_key(operating_system.describe(text)) == key


def test_a_host_is_told_all_that_the_bundle_lacks() -> None:
    platform = platform_tag()
    index = {**INDEX, "file": "/b.tar", "releases": [{**NEED, "platform": platform}]}
    host = {"os": {"family": "debian", "id": "debian", "version_id": "13"}, "missing_packages": ["haproxy"]}
    wanted = {"tag": "cp311", "staged": False, "python": ""}
    problems = check_bundle(index, host, wanted, {**NEED, "lock_sha256": "b" * 64}, [])
    assert len(problems) == 3
    assert all(problem.startswith("the bundle /b.tar does not fit: ") for problem in problems)
    assert f"no CPython for {platform} (cp311)" in problems[2]
    # what is there already needs no bundle
    host["missing_packages"] = []
    assert check_bundle(index, host, {**wanted, "staged": True}, NEED, []) == []
    assert check_bundle(index, host, {**wanted, "python": "/usr/bin/python3.11"}, NEED, []) == []
    assert check_bundle(None, host, wanted, NEED, ["other==1"]) == []


LOCK = """\
# made somewhere
always==1.0 \\
    --hash=sha256:11 \\
    --hash=sha256:22
old==2.0 ; python_full_version < '3.11' \\
    --hash=sha256:33
patch==3.0 ; python_full_version < '3.11.3' \\
    --hash=sha256:44
arm==4.0 ; platform_machine == 'aarch64' \\
    --hash=sha256:55
windows==5.0 ; sys_platform == 'win32' \\
    --hash=sha256:66
"""


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (Target("3.11", "linux-x86_64"), ["always", "patch"]),
        (Target("3.10", "linux-x86_64"), ["always", "old", "patch"]),
        (Target("3.12", "linux-aarch64"), ["always", "arm"]),
    ],
)
def test_markers_are_those_of_the_hosts_not_of_the_controller(target: Target, names: list[str]) -> None:
    assert [pin.name for pin in read_pins(LOCK, target)] == names


def test_a_line_of_the_bundle_allows_one_file_and_keeps_its_marker() -> None:
    pins = {pin.name: pin for pin in read_pins(LOCK, Target("3.11", "linux-x86_64"))}
    assert pins["always"].plain == "always==1.0 --hash=sha256:11 --hash=sha256:22"
    line = pins["patch"].locked_to(Path("/store/ff00/patch-3.0-py3-none-any.whl"))
    assert line == 'patch==3.0 ; python_full_version < "3.11.3" --hash=sha256:ff00\n'


def test_wheels_are_chosen_that_run_on_the_oldest_host() -> None:
    options = pip_options(Target("3.12", "linux-aarch64"))
    platforms = [word for option, word in pairwise(options) if option == "--platform"]
    assert platforms[0] == "manylinux_2_28_aarch64"
    assert "manylinux_2_17_aarch64" in platforms
    assert "manylinux2014_aarch64" in platforms
    assert not any("x86_64" in word or "2_31" in word for word in platforms)
    assert "cp312" in options


def test_sources_of_another_release_are_those_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_debs, "SOURCES", tmp_path)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "deb http://mirror.example/debian bookworm main\ndeb-src http://x bookworm main\n"
    )
    (tmp_path / "sources.list.d/a.list").write_text("deb https://other.example nodistro main\n")
    (tmp_path / "sources.list.d/b.sources").write_text(
        "Types: deb deb-src\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n\n"
        "Types: deb\nURIs: http://third.example\nSuites: stable\nComponents: main\n"
    )
    lines, stanzas = bundle_debs.own_sources("bookworm", "trixie")
    assert lines == "deb http://mirror.example/debian trixie main\n"
    assert "Suites: trixie-security" in stanzas
    assert "deb-src" not in stanzas
    assert "third.example" not in stanzas


ARGUMENTS: dict[str, Any] = {
    "distributions": ["debian-12"],
    "known_distributions": {
        "debian-12": {"suite": "bookworm", "python": "3.11"},
        "debian-13": {"suite": "trixie", "python": ""},
    },
    "pythons": [],
    "platforms": ["x86_64"],
    "apt_sources": {},
}


def node(**variables: Any) -> dict[str, Any]:
    return {
        "pygrid_scope": "system",
        "pygrid_version": "0.9.5",
        "pygrid_lock_file": "",
        "pygrid_worker_packages": [],
        "pygrid_managed_python": "",
        **variables,
    }


def test_the_plan_is_what_the_inventory_needs() -> None:
    nodes = [node(), node(pygrid_worker_packages=["b==1", "a==1"]), node(pygrid_worker_packages=["a==1", "b==1"])]
    plan = action.make_plan(nodes, ARGUMENTS)
    assert [packages for _source, packages in plan.releases] == [[], ["a==1", "b==1"]]
    assert plan.targets == [Target("3.11", "linux-x86_64")]
    assert plan.pythons == []
    assert "haproxy" in plan.distributions[0].packages
    assert "postgresql" in plan.distributions[0].packages
    assert action.make_plan([node(pygrid_scope="user")], ARGUMENTS).distributions == []
    assert plan.is_outline_of(plan.outline())
    assert not plan.is_outline_of({**plan.outline(), "distributions": []})


def test_a_system_without_a_python_needs_one_in_the_bundle() -> None:
    arguments = {**ARGUMENTS, "distributions": ["debian-13"], "platforms": ["x86_64", "aarch64"]}
    with pytest.raises(PygridError, match=r"debian-13 brings no Python .*pygrid_managed_python"):
        action.make_plan([node()], arguments)
    plan = action.make_plan([node(pygrid_managed_python="3.12")], arguments)
    assert plan.pythons == plan.targets == [Target("3.12", "linux-x86_64"), Target("3.12", "linux-aarch64")]
    with pytest.raises(PygridError, match="'debian-8' is no distribution that a host can have; choose of debian-12"):
        action.make_plan([node()], {**ARGUMENTS, "distributions": ["debian-8"]})


def test_nodes_on_one_machine_share_a_bundle() -> None:
    def bundles(**hosts: dict[str, str]) -> list[str]:
        return action.bundles_of({"ansible_play_hosts": list(hosts), "hostvars": hosts})

    assert bundles(net={"pygrid_bundle": "a"}, alice={"ansible_host": "h", "pygrid_bundle": "b"}, bob={}) == ["a", "b"]
    with pytest.raises(
        PygridError, match=r"alice and bob are on one machine and have different bundles \(a and none\)"
    ):
        bundles(alice={"ansible_host": "h", "pygrid_bundle": "a"}, bob={"ansible_host": "h"})


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT\nClassifier: License :: OSI Approved :: BSD License\n", "MIT"),
        ("License: long\nClassifier: License :: OSI Approved :: BSD License\n", "BSD License"),
        ("License: Apache 2.0\n", "Apache 2.0"),
        (f"License: {'whole text ' * 20}\n", "not stated"),
    ],
)
def test_licence_of_a_wheel(tmp_path: Path, metadata: str, licence: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("x-1.dist-info/METADATA", f"Name: x\n{metadata}\n")
    assert bundle_licences.of_wheel(tmp_path / "x.whl") == licence


def test_licence_of_a_debian_package(tmp_path: Path) -> None:
    text = "Format: https://example.org\n\nFiles: *\nLicense: GPL-2+\n\nFiles: x\nLicense: MIT\n text\n"
    assert bundle_licences.names_in(text) == "GPL-2+, MIT"
    assert bundle_licences.names_in("It is free. See /usr/share/common-licenses/LGPL-2.1.") == "LGPL-2.1"
    for name, content in (
        ("control.tar", {"./control": b""}),
        ("data.tar", {"./usr/share/doc/x/copyright": text.encode()}),
    ):
        with tarfile.open(tmp_path / name, "w") as packed:
            for path, data in content.items():
                member = tarfile.TarInfo(path)
                member.size = len(data)
                packed.addfile(member, io.BytesIO(data))
    (tmp_path / "debian-binary").write_text("2.0\n")
    deb = tmp_path / "x.deb"
    command = ["ar", "rc", str(deb), "debian-binary", "control.tar", "data.tar"]
    if subprocess.run(["sh", "-c", "command -v ar dpkg-deb"], capture_output=True, check=False).returncode:
        pytest.skip("needs ar and dpkg-deb")
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert bundle_licences.of_deb(deb, "x") == ("GPL-2+, MIT", None)
