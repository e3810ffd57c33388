# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as releases, and what an engine is told. A small program stands in for the engine; scenario docker has one."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import container_engine, image_release, images
from ansible_collections.openmined.pygrid.plugins.module_utils.container_engine import Account, Engine
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.services import container
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import Limits, ServiceSpec
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid import Node, build_grid, build_node
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_checks import (
    _check_image,
    find_problems,
    find_warnings,
)
from ansible_collections.openmined.pygrid.plugins.plugin_utils.grid_reader import _release_source
from ansible_collections.openmined.pygrid.plugins.plugin_utils.variables import validate

DIGEST = "0123456789ab" + "c" * 52
PINNED = f"registry.example:5000/pygrid/domain@sha256:{DIGEST}"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """It notes its arguments, one on a line, and a copy of the account that it was given."""
    program = tmp_path / "engine"
    program.write_text(
        "#!/bin/sh\n"
        f"printf '%s\\n' \"$@\" > {tmp_path}/said\n"
        'if [ "$1" = --config ]; then\n'
        f"  cp -p $2/config.json {tmp_path}/account; stat -c %a $2 $2/config.json > {tmp_path}/modes\n"
        "fi\n"
    )
    program.chmod(0o755)
    return Engine("docker", str(program))


def said(tmp_path: Path) -> list[str]:
    return (tmp_path / "said").read_text().splitlines()


def staged(home: Home, name: str) -> None:
    folder = home.releases / name
    (folder / "env" / "bin").mkdir(parents=True)
    (folder / "env" / "bin" / "python").touch(mode=0o755)
    image = {"id": f"sha256:{DIGEST}", "python": "/opt/pygrid/env/bin/python", "reference": PINNED, "pulled": True}
    manifest = {"schema": 1, "name": name, "staged_at": 1.0, "image": image}
    (folder / "manifest.json").write_text(json.dumps(manifest))


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [PINNED, f"sha256:{DIGEST}", f"pygrid/domain:0.9.5@sha256:{DIGEST}"])
def test_a_release_has_the_digest_of_its_image(reference: str) -> None:
    assert images.check_reference(reference) == ""
    assert images.image_release_name("0.9.5", reference) == "0.9.5-0123456789ab"


def test_a_tag_pins_nothing_and_still_has_one_name() -> None:
    assert images.image_digest("pygrid/domain:0.9.5") is None
    first, again = (images.image_release_name("0.9.5", "pygrid/domain:0.9.5") for _number in range(2))
    assert first == again != images.image_release_name("0.9.5", "pygrid/domain:0.9.6")


@pytest.mark.parametrize("reference", ["", "--privileged", "a b", "x;reboot", "sha256:12", "Domain:1", "$(id)", "a\n"])
def test_what_is_no_image_is_not_handed_to_an_engine(reference: str) -> None:
    assert "is no name of an image" in images.check_reference(reference)


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("pygrid/domain:1", "docker.io"),
        ("debian", "docker.io"),
        ("localhost/x", "localhost"),
        (PINNED, "registry.example:5000"),
    ],
)
def test_the_registry_of_an_image(reference: str, registry: str) -> None:
    assert container_engine.registry_of(reference) == registry


# -- secrets of a registry ---------------------------------------------------------------------------------


def test_a_pull_tells_nobody_the_password(engine: Engine, tmp_path: Path) -> None:
    container_engine.pull(engine, PINNED, Account("registry.example:5000", "reader", "pass-word"))
    words = said(tmp_path)
    assert words[0] == "--config"
    assert words[2:] == ["pull", "--quiet", PINNED]
    assert "pass-word" not in " ".join(words)
    assert (tmp_path / "modes").read_text().split() == ["700", "600"]
    auth = json.loads((tmp_path / "account").read_text())["auths"]["registry.example:5000"]["auth"]
    assert base64.b64decode(auth).decode() == "reader:pass-word"
    assert not Path(words[1]).exists()


def test_a_pull_that_fails_names_the_image_and_leaves_no_account(tmp_path: Path) -> None:
    program = tmp_path / "engine"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said\necho "unauthorized: no access" >&2\nexit 1\n'
    )
    program.chmod(0o755)
    with pytest.raises(PygridError, match=r"cannot pull registry\.example:5000/.*unauthorized: no access"):
        container_engine.pull(Engine("docker", str(program)), PINNED, Account("registry.example:5000", "reader", "p"))
    assert not Path(said(tmp_path)[1]).exists()


# -- the interpreter of a release --------------------------------------------------------------------------


def test_the_launcher_shows_a_container_the_home_and_little_else(engine: Engine, tmp_path: Path) -> None:
    home = Home(tmp_path / "my grid")
    (home.root / "nodes").mkdir(parents=True)
    launcher = tmp_path / "python"
    text = image_release.launcher_text(
        home, engine, "0.9.5-0123456789ab", f"sha256:{DIGEST}", "/opt/pygrid/env/bin/python"
    )
    launcher.write_text(text)
    more = f"{tmp_path}/results:{tmp_path}/b c"
    for folder, mounts in ((home.root / "nodes", 3), (Path("/"), 3), (tmp_path, 4)):
        surroundings = {"PATH": os.defpath, "HOME": "/tmp", "PYGRID_FOLDERS": more}
        subprocess.run(["sh", launcher, "-m", "pygrid_node", "a b"], cwd=folder, env=surroundings, check=True)
        words = said(tmp_path)
        assert words[-5:] == ["/opt/pygrid/env/bin/python", f"sha256:{DIGEST}", "-m", "pygrid_node", "a b"]
        shown = [words[at + 1] for at, word in enumerate(words) if word == "--mount"]
        assert len(shown) == mounts
        assert f"type=bind,source={home.root},target={home.root}" in shown
        assert f"type=bind,source={tmp_path}/b c,target={tmp_path}/b c" in shown
        assert {"--read-only", "--cap-drop", "ALL", "no-new-privileges"} <= set(words)
        assert words[words.index("--pull") + 1] == "never"
    assert (tmp_path / "results").is_dir()


# -- containers --------------------------------------------------------------------------------------------


@pytest.fixture
def spec(tmp_path: Path) -> ServiceSpec:
    home = Home(tmp_path / "grid")
    node = home.node("w1")
    staged(home, "0.9.5-0123456789ab")
    node.root.mkdir(parents=True)
    node.current.symlink_to(home.releases / "0.9.5-0123456789ab")
    return ServiceSpec(
        name="w1",
        kind="worker",
        command=[str(node.python), "-m", "pygrid_node", "run", str(node.settings)],
        directory=str(node.root),
        log_file=str(node.log_file),
        stop_seconds=30,
        environment={"PYTHONUNBUFFERED": "1"},
        credentials={"identity.json": str(node.identity)},
        writes=(str(node.data),),
        domain="alice",
    )


def words_of(spec: ServiceSpec, engine: Engine) -> list[str]:
    return container.Containers(Home(Path(spec.directory).parents[1]), engine)._words(spec)


def test_everything_that_matters_makes_another_container(spec: ServiceSpec, engine: Engine) -> None:
    digests = {
        container._digest(words_of(one, engine))
        for one in (
            spec,
            replace(spec, limits=Limits(cpu_percent=150)),
            replace(spec, limits=Limits(memory_mb=500)),
            replace(spec, limits=Limits(tasks=7)),
            replace(spec, stop_seconds=31),
            replace(spec, writes=()),
            replace(spec, domain="bob"),
            replace(spec, environment={}),
        )
    }
    assert len(digests) == 8
    assert container._digest(words_of(spec, engine)) in digests


def test_limits_are_the_engines(spec: ServiceSpec, engine: Engine) -> None:
    text = " ".join(words_of(replace(spec, limits=Limits(cpu_percent=150, memory_mb=500, tasks=7)), engine))
    assert "--cpus 1.5 --memory 500m --memory-swap 500m --pids-limit 7" in text


def test_a_node_can_write_what_it_knows_and_not_what_it_is(spec: ServiceSpec, engine: Engine) -> None:
    words = words_of(spec, engine)
    shown = [words[at + 1] for at, word in enumerate(words) if word == "--mount"]
    own, data = spec.directory, spec.writes[0]
    assert shown == [f"type=bind,source={own},target={own},readonly", f"type=bind,source={data},target={data}"]
    assert words[-5:] == [f"sha256:{DIGEST}", "-m", "pygrid_node", "run", f"{own}/settings.json"]


def test_a_release_that_is_no_image_is_not_run_in_a_container(spec: ServiceSpec, engine: Engine) -> None:
    manifest = Home(Path(spec.directory).parents[1]).releases / "0.9.5-0123456789ab" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "image": None}))
    with pytest.raises(PygridError, match=r"its release 0\.9\.5-0123456789ab is no image"):
        words_of(spec, engine)


@pytest.mark.parametrize(
    "text",
    ["2026-11-22T22:29:19.638425991Z", "2026-11-22T23:29:19.638+01:00", "2026-11-22 23:29:19.638425991 +0100 CET"],
)
def test_moments_as_engines_write_them(text: str) -> None:
    assert container._seconds(text) == pytest.approx(1795386559.638, abs=0.001)


# -- what an inventory may say -----------------------------------------------------------------------------


def node(kind: str = "domain", image: str = PINNED, **variables: object) -> Node:
    given = {"pygrid_install_method": "container", "pygrid_container_images": {kind: image}, **variables}
    values, problems = validate(kind, given)
    assert problems == []
    return build_node("alice", kind, values, "one", _release_source(kind, values))


def problems_of(one: Node) -> list[str]:
    return [sentence for _host, sentence in find_problems(build_grid({one.host: one}, {}))]


def test_a_node_in_a_container_needs_no_lock_of_the_collection() -> None:
    assert problems_of(node(pygrid_version="0.9.4")) == []


def test_its_image_has_to_be_named() -> None:
    assert "names no image for a domain" in problems_of(node(image=""))[0]
    assert "'--privileged' is no name of an image" in problems_of(node(image="--privileged"))[0]


def test_scope_system_is_refused() -> None:
    assert "scope system does not have yet" in next(_check_image(node(pygrid_scope="system")))[1]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"pygrid_bundle": "x.tar"}, "pygrid_bundle is of no use"),
        ({"pygrid_backup_repository": "/backups"}, "pygrid_backup_schedule does not work"),
    ],
)
def test_what_does_not_go_with_containers_is_said(variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(PygridError, match=sentence):
        node(**variables)


def test_a_tag_is_warned_of_and_a_digest_is_not() -> None:
    grids = [build_grid({"alice": node(image=image)}, {}) for image in ("pygrid/domain:0.9.5", PINNED)]
    told = [[sentence for _host, sentence in find_warnings(one)] for one in grids]
    assert "nobody notices when it is moved" in told[0][0]
    assert told[1] == []
