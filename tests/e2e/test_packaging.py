# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection works as a user gets it: built and installed, stripped to the essential, on the oldest Ansible."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.grid import LocalGrid

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"
#: What is left of the collection has to work (a rule of the house).
ESSENTIAL = {"meta", "plugins", "roles", "playbooks"}
PLAYBOOKS = sorted(file.stem for file in (CHECKOUT / "playbooks").glob("*.yml"))
INVENTORY = CHECKOUT / "inventories" / "local" / "hosts.yml"


def clean_environment(folder: Path, tools: Path, collections: Path | None = None) -> dict[str, str]:
    """Surroundings in which nothing of the checkout or of the user's own Ansible can be found by chance."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    variables |= {"PATH": f"{tools}{os.pathsep}{variables['PATH']}", "HOME": str(folder), "ANSIBLE_HOME": str(folder)}
    if collections:
        variables["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
    return variables


def run(folder: Path, *command: str | Path, tools: Path | None = None, collections: Path | None = None) -> str:
    """Run a command in a folder outside the checkout; returns all it printed, and fails with that."""
    environment = clean_environment(folder, tools or Path(sys.executable).parent, collections)
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive that would be published, made from the files that git knows or would add."""
    folder = tmp_path_factory.mktemp("build")
    run(folder, "ansible-galaxy", "collection", "build", CHECKOUT, "--output-path", folder)
    (built,) = folder.glob("openmined-pygrid-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path with the archive installed."""
    folder = tmp_path_factory.mktemp("installed")
    run(folder, "ansible-galaxy", "collection", "install", archive, "--no-deps", "-p", folder, collections=folder)
    return folder


@pytest.fixture(scope="module")
def stripped(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path with nothing but the essential folders of the collection."""
    folder = tmp_path_factory.mktemp("stripped")
    for name in ESSENTIAL:
        shutil.copytree(pygrid(installed) / name, pygrid(folder) / name)
    return folder


@pytest.fixture(scope="session")
def oldest_ansible() -> Path:
    """The `bin` of an environment with the oldest Ansible that meta/runtime.yml promises."""
    promised = re.search(r'requires_ansible: ">=([0-9.]+)"', (CHECKOUT / "meta" / "runtime.yml").read_text())
    assert promised, "meta/runtime.yml promises no oldest version"
    tools = CACHE / "oldest-ansible" / "bin"
    lock = CACHE / "oldest-ansible.in"
    uv = CHECKOUT / ".tools" / "deploy" / "bin" / "uv"
    lock.write_text(f"ansible-core=={promised[1]}\n")
    if not (tools / "ansible-playbook").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", tools.parent], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", tools.parent, "-r", lock], check=True)
    return tools


def pygrid(collections: Path) -> Path:
    """The folder of the collection in a collections path."""
    return collections / "ansible_collections" / "openmined" / "pygrid"


def check_playbooks(collections: Path, folder: Path, tools: Path | None = None) -> None:
    """Every playbook of the collection parses, and lists tasks of our roles, by its full name."""
    for name in PLAYBOOKS:
        command = ("ansible-playbook", f"openmined.pygrid.{name}", "-i", INVENTORY)
        run(folder, *command, "--syntax-check", tools=tools, collections=collections)
        listed = run(folder, *command, "--list-tasks", tools=tools, collections=collections)
        assert re.search(r"play #1 .*\n(.*\n)*? +\S.*TAGS", listed), f"{name} lists no task:\n{listed}"


def test_the_archive_holds_the_collection_and_no_working_files(archive: Path) -> None:
    """Nothing that was made in the checkout travels with the collection, and no link leads out of it."""
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
    top = {member.name.split("/")[0] for member in members}
    assert top >= ESSENTIAL | {"README.md", "LICENSE", "changelogs", "MANIFEST.json"}
    assert not top & {".cache", ".tools", ".ansible", ".git", ".ci", "results"}
    unwanted = [m.name for m in members if m.issym() or "__pycache__" in m.name or "ansible_collections" in m.name]
    assert not unwanted


def test_playbooks_of_the_checkout(tmp_path: Path) -> None:
    """From a checkout, by path, as `make deploy` does."""
    ansible_cfg = {**clean_environment(tmp_path, Path(sys.executable).parent), "ANSIBLE_HOME": str(tmp_path)}
    for name in PLAYBOOKS:
        command = ["ansible-playbook", f"playbooks/{name}.yml", "--syntax-check"]
        done = subprocess.run(command, cwd=CHECKOUT, env=ansible_cfg, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


def test_playbooks_of_the_installed_collection(installed: Path, tmp_path: Path) -> None:
    """After `ansible-galaxy collection install`, by full name."""
    check_playbooks(installed, tmp_path)


def test_playbooks_of_the_stripped_collection(stripped: Path, tmp_path: Path) -> None:
    """With everything but meta, plugins, roles and playbooks deleted."""
    check_playbooks(stripped, tmp_path)


def test_the_oldest_ansible_loads_the_collection(installed: Path, oldest_ansible: Path, tmp_path: Path) -> None:
    """The oldest promised version parses the playbooks and loads every plugin with its documentation."""
    version = run(tmp_path, "ansible", "--version", tools=oldest_ansible)
    assert "core 2.17." in version
    check_playbooks(installed, tmp_path, tools=oldest_ansible)
    for kind in ("module", "filter", "lookup", "callback", "inventory", "role"):
        command = ("ansible-doc", "--type", kind, "--list", "openmined.pygrid")
        shown = run(tmp_path, *command, tools=oldest_ansible, collections=installed)
        assert "UNDOCUMENTED" not in shown, shown


SECRETS = {
    "pygrid_uid": "6f1e2b3c4d5e4f60819293a4b5c6d7e8",
    "pygrid_private_key": secrets.token_hex(32),
    "pygrid_root_password": "a password from a vault, say",
}


@pytest.mark.thorough
def test_the_installed_collection_deploys_with_own_secrets(installed: Path, tmp_path: Path) -> None:
    """A real grid from the archive; identity and password come from outside and stay out of the most verbose output."""
    surroundings = clean_environment(tmp_path, Path(sys.executable).parent, installed)
    grid = LocalGrid(tmp_path / "g", 17600, collection="openmined.pygrid", surroundings=surroundings)
    grid.overrides = {"alice": SECRETS}
    try:
        first = grid.deploy("-vvv", "--diff")
        values = [SECRETS["pygrid_private_key"], SECRETS["pygrid_root_password"]]
        for name in ("net", "bob"):
            values += [grid.identity(name)[key] for key in ("private_key", "root_password")]
        assert [value for value in values if value in first.output] == []
        assert grid.deploy().changed == 0
        assert grid.get("alice", "/api/v2/metadata")["id"] == SECRETS["pygrid_uid"]
        assert grid.identity("alice")["root_password"] == SECRETS["pygrid_root_password"]
        assert grid.client("seed", "alice") == {"sum": 45.0}
    finally:
        grid.remove()
    assert not grid.home.exists()


@pytest.mark.thorough
def test_the_stripped_collection_deploys_with_the_oldest_ansible(
    stripped: Path, oldest_ansible: Path, tmp_path: Path
) -> None:
    """A real grid from nothing but meta, plugins, roles and playbooks, by the oldest Ansible that is promised."""
    surroundings = clean_environment(tmp_path, oldest_ansible, stripped)
    grid = LocalGrid(tmp_path / "g", 17610, collection="openmined.pygrid", surroundings=surroundings)
    try:
        fresh = grid.play("deploy", "--check", "--diff")
        assert fresh.returncode == 0, fresh.output
        grid.deploy()
        assert grid.deploy().changed == 0
        assert grid.client("peers", "net") == {"alice": "ACTIVE", "bob": "ACTIVE"}
        assert grid.play("status").returncode == 0
        assert grid.play("remove").returncode == 0
    finally:
        grid.remove()
    assert not grid.home.exists()


# As the README shows it.
OWN_PLAYS = """
- hosts: pygrid
  gather_facts: false
  roles: [openmined.pygrid.node]
- hosts: pygrid_network
  gather_facts: false
  roles: [openmined.pygrid.network]
- hosts: pygrid_domain
  gather_facts: false
  roles: [openmined.pygrid.domain]
- hosts: pygrid_worker
  gather_facts: false
  roles: [openmined.pygrid.worker]
"""


@pytest.mark.thorough
def test_roles_in_plays_of_ones_own(tmp_path: Path) -> None:
    """The roles by their names bring up the same grid as deploy.yml, and find nothing to do afterwards."""
    grid = LocalGrid(tmp_path / "g", 17620)
    playbook = tmp_path / "own.yml"
    playbook.write_text(OWN_PLAYS)
    try:
        first = grid.play(str(playbook))
        assert first.returncode == 0, first.output
        assert grid.play(str(playbook)).changed == 0
        assert grid.deploy().changed == 0
        assert grid.ready("bob")["workers"]["names"] == ["bob-w1"]
        assert grid.client("peers", "net") == {"alice": "ACTIVE", "bob": "ACTIVE"}
    finally:
        grid.remove()
