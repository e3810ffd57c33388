# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight, which connects and becomes root everywhere, in each way; and a whole deploy in the most cumbersome one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(CHECKOUT))

from tests.lab.lab import Lab  # noqa: E402 - the path is known only now
from tests.support.playbook import Run, run_playbook  # noqa: E402

LAB = Lab(os.environ["MOLECULE_SCENARIO_NAME"])
PARAMIKO = {"ansible_connection": "ansible.builtin.paramiko_ssh"}


class Controller:
    """An administrator's account on the lab's network: a home with SSH's files, and nothing else."""

    def __init__(self, home: Path, agent: str) -> None:
        self.home = home
        self.agent = agent
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        # OpenSSH asks the list of accounts where somebody's home is, not HOME. A jump host gets this file too.
        lines = ["Host *", f"    UserKnownHostsFile {home}/.ssh/known_hosts", "    GlobalKnownHostsFile /dev/null", ""]
        (home / ".ssh" / "config").write_text("\n".join(lines))
        self.trust((LAB.folder / "known_hosts").read_text())

    def trust(self, known_hosts: str) -> None:
        (self.home / ".ssh" / "known_hosts").write_text(known_hosts)

    def inventory(self, connection: dict[str, Any], of_vault: dict[str, Any]) -> Path:
        def host(name: str, **variables: Any) -> dict[str, Any]:
            address = LAB.network.address(LAB.hosts[name].number)
            return {"ansible_host": address, **variables}

        common = {
            "pygrid_scope": "system",
            "pygrid_pki_directory": str(self.home / "pki"),
            "ansible_user": "operator",
            "ansible_become": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            **connection,
        }
        children = {
            "pygrid_network": {"hosts": {"net": host("door", pygrid_database="sqlite")}},
            "pygrid_domain": {"hosts": {"alice": host("vault", **of_vault)}},
        }
        path = self.home / "hosts.json"
        path.write_text(json.dumps({"pygrid": {"vars": common, "children": children}}))
        return path

    def play(
        self,
        playbook: str,
        *arguments: str,
        connection: dict[str, Any],
        of_vault: dict[str, Any] | None = None,
        **environment: str,
    ) -> Run:
        command = ["ansible-playbook", "-i", str(self.inventory(connection, of_vault or {}))]
        surroundings = {
            **os.environ,
            "HOME": str(self.home),
            "ANSIBLE_HOME": str(self.home / ".ansible"),
            # Else a connection of the test before would be used on.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.home / "cp"),
            "ANSIBLE_SSH_EXTRA_ARGS": f"-F {self.home}/.ssh/config",
            "SSH_AUTH_SOCK": "",
            **environment,
        }
        whole = LAB.inside(*command, str(CHECKOUT / "playbooks" / f"{playbook}.yml"), *arguments)
        return run_playbook(whole, CHECKOUT, surroundings, 900)

    def ready(self, connection: dict[str, Any], *arguments: str, **more: Any) -> None:
        """Preflight reaches both hosts, and finds that they are ready."""
        report = self.home / "preflight.json"
        run = self.play("preflight", "-e", f"pygrid_preflight_file={report}", *arguments, connection=connection, **more)
        assert run.returncode == 0, run.output[-4000:]
        assert run.changed == 0
        machines = json.loads(report.read_text())["machines"]
        assert [machine["problems"] for machine in machines] == [[], []]


@pytest.fixture
def controller(tmp_path: Path, agent: str) -> Controller:
    # Short, because the path of a control socket has to be.
    return Controller(tmp_path, agent)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An SSH agent with the lab's key."""
    socket = str(tmp_path_factory.mktemp("agent") / "s")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not Path(socket).exists():
            assert process.poll() is None
        subprocess.run(["ssh-add", "-q", str(LAB.key)], env={**os.environ, "SSH_AUTH_SOCK": socket}, check=True)
        yield socket
    finally:
        process.terminate()
        process.wait()


KEY = {"ansible_ssh_private_key_file": str(LAB.key)}


def test_key(controller: Controller) -> None:
    controller.ready(KEY)


def test_agent(controller: Controller) -> None:
    controller.ready({}, SSH_AUTH_SOCK=controller.agent)


def test_neither_key_nor_agent(controller: Controller) -> None:
    """Else the others would prove nothing."""
    run = controller.play("preflight", connection={})
    assert run.returncode != 0
    assert "Permission denied" in run.output


def test_root_without_sudo(controller: Controller) -> None:
    controller.ready({**KEY, "ansible_user": "root", "ansible_become": False})


def test_sudo_with_a_password(controller: Controller) -> None:
    controller.ready({**KEY, "ansible_user": "careful"}, "--become-password-file", str(LAB.password_file))


def test_sudo_without_the_password_is_said(controller: Controller) -> None:
    run = controller.play("preflight", connection={**KEY, "ansible_user": "careful"})
    assert run.returncode != 0
    assert re.search(r"sudo|[Bb]ecome", run.output)
    assert "password" in run.output


def test_paramiko(controller: Controller) -> None:
    controller.ready({**KEY, **PARAMIKO})


def test_paramiko_and_sudo_with_a_password(controller: Controller) -> None:
    controller.ready({**KEY, **PARAMIKO, "ansible_user": "careful"}, "--become-password-file", str(LAB.password_file))


@pytest.mark.parametrize("connection", [{}, PARAMIKO], ids=["ssh", "paramiko"])
def test_a_host_with_another_key_is_refused(controller: Controller, connection: dict[str, Any]) -> None:
    """Somebody sits at the address of vault."""
    lines = (LAB.folder / "known_hosts").read_text().splitlines()
    door, vault = (next(line for line in lines if line.startswith(name)) for name in ("door", "vault"))
    controller.trust(f"{door}\n{vault.split()[0]} {' '.join(door.split()[1:])}\n")
    run = controller.play("preflight", connection={**KEY, **connection})
    assert run.returncode != 0
    assert re.search(
        r"\(alice\): 1 to mend\s+PROBLEM .*host key (mismatch|verification failed).*compare", run.output, re.I
    )


@pytest.mark.parametrize("connection", [{}, PARAMIKO], ids=["ssh", "paramiko"])
def test_a_host_that_nobody_knows_is_not_trusted(controller: Controller, connection: dict[str, Any]) -> None:
    controller.trust("")
    run = controller.play("preflight", connection={**KEY, **connection})
    assert run.returncode != 0
    assert len(re.findall(r"PROBLEM .*host key.*put it into known_hosts", run.output, re.IGNORECASE)) == 2


def test_a_machine_that_goes_by_two_names_is_said(controller: Controller) -> None:
    """Else what is done once for each machine would be done twice at the same time there."""
    address = LAB.network.address(LAB.hosts["door"].number)
    by_name = {"ansible_host": "door.example", "ansible_ssh_common_args": f"-o HostName={address}"}
    run = controller.play("deploy", connection=KEY, of_vault=by_name)
    assert run.returncode != 0
    said = "alice: it is on the same machine as net, but its ansible_host is door.example"
    assert said in " ".join(run.output.split())
    assert run.changed == 0


@pytest.fixture
def hidden() -> Iterator[dict[str, Any]]:
    """Vault cannot be reached any more but through door; how that is said in an inventory."""
    LAB.hide("vault", "door")
    jump = f"operator@{LAB.network.address(LAB.hosts['door'].number)}"
    yield {"ansible_ssh_common_args": f"-o ProxyJump={jump}"}
    LAB.hide("vault", None)


def test_jump_host(controller: Controller, hidden: dict[str, Any]) -> None:
    direct = controller.play("preflight", connection={}, SSH_AUTH_SOCK=controller.agent)
    assert direct.returncode != 0
    controller.ready({}, of_vault=hidden, SSH_AUTH_SOCK=controller.agent)


@pytest.mark.thorough
def test_deploy_behind_a_jump_host_with_a_password_for_sudo(controller: Controller, hidden: dict[str, Any]) -> None:
    """PostgreSQL is told as its own account, files go through copy and template, everything by sudo with a password."""
    hidden["ansible_user"] = "careful"
    way: dict[str, Any] = {
        "connection": {"ansible_user": "careful"},
        "of_vault": hidden,
        "SSH_AUTH_SOCK": controller.agent,
    }
    password = ("--become-password-file", str(LAB.password_file))
    first = controller.play("deploy", *password, **way)
    assert first.returncode == 0, first.output[-6000:]
    again = controller.play("deploy", *password, **way)
    assert (again.returncode, again.changed) == (0, 0), again.output[-6000:]
    secret = LAB.password_file.read_text().strip()
    assert secret not in first.output
