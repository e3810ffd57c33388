# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Network with certificates of Pebble, which looks for the challenge on port 80, and a Domain that brings its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.intranet import Intranet
    from tests.support.playbook import Run

NAME = "net.hospital.example"


class Controller:
    """Plays on the lab's own side of the network, from where the ACME server is reached, and trusts its certificate."""

    def __init__(self, grid: Intranet, folder: Path) -> None:
        self.grid = grid
        self.folder = folder

    def play(self, playbook: str, *arguments: str) -> Run:
        trust = {"SSL_CERT_FILE": str(self.folder / "acme-server.pem")}
        server = ("-e", f"pygrid_acme_directory=https://{self.grid.address('acme')}:14000/dir")
        return self.grid.play(playbook, *server, *arguments, environment=trust, inside=True)

    def must_play(self, playbook: str, *arguments: str) -> Run:
        run = self.play(playbook, *arguments)
        assert run.returncode == 0, run.output[-6000:]
        return run


@pytest.fixture(scope="module")
def controller(grid: Intranet) -> Controller:
    """What an administrator has before the first deploy: names that resolve, roots to trust, his own certificate."""
    folder = grid.pki
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "own").mkdir(parents=True)
    for host in ("net", "alice"):
        grid.must(host, "cat >> /etc/hosts", text=f"{grid.address('net')} {NAME}\n")
    (folder / "acme-server.pem").write_text(grid.must("acme", "cat /etc/pebble/cert.pem") + "\n")
    root = grid.must(
        "acme",
        "curl -sS --retry 5 --retry-connrefused --cacert /etc/pebble/cert.pem"
        f" https://{grid.address('acme')}:15000/roots/0",
    )
    (folder / "acme-root.pem").write_text(root + "\n")
    own_certificate(folder / "own", grid.address("alice"))
    return Controller(grid, folder)


def own_certificate(folder: Path, address: str) -> None:
    """A CA of the house, and a certificate and key of it for alice's address."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    authority = ["-x509", "-subj", "/CN=house CA", "-keyout", "ca.key", "-out", "ca.pem"]
    leaf = [
        "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=alice", "-keyout", "alice.key", "-out", "alice.pem",
        "-addext", f"subjectAltName=IP:{address}", "-addext", "basicConstraints=critical,CA:false",
    ]  # fmt: skip
    for more in (authority, leaf):
        subprocess.run(["openssl", "req", *key, *more], cwd=folder, check=True, capture_output=True)


def shown(grid: Intranet, name: str, address: str, what: str) -> str:
    """A field of the certificate that a node shows."""
    server_name = f"-servername {name}" if name else "-noservername"
    ask = f"openssl s_client -connect {address}:443 {server_name} </dev/null 2>/dev/null"
    return grid.must("acme", f"{ask} | openssl x509 -noout -{what}")


def test_a_key_that_does_not_fit_is_refused_before_anything_changes(controller: Controller, tmp_path: Path) -> None:
    own_certificate(tmp_path, "192.0.2.7")
    wrong = controller.play("deploy", "-e", f"pygrid_tls_key_file={tmp_path / 'alice.key'}", "--limit", "alice")
    assert wrong.returncode != 0
    assert "alice: the private key does not belong to the certificate" in wrong.output


def test_both_serve_and_trust_each_other(controller: Controller) -> None:
    grid = controller.grid
    controller.must_play("deploy")
    assert "Pebble Intermediate CA" in shown(grid, NAME, grid.address("net"), "issuer")
    assert "house CA" in shown(grid, "", grid.address("alice"), "issuer")
    assert controller.must_play("deploy").changed == 0
    peers = {peer["name"]: peer["status"] for peer in grid.status("alice", "alice")["peers"]}
    assert peers == {"net": "ACTIVE"}
    ask = f"curl -sS -o /dev/null -w '%{{http_code}}' --cacert /root/root.pem https://{NAME}/api/v2/metadata"
    grid.put("acme", (controller.folder / "acme-root.pem").read_bytes(), "/root/root.pem")
    assert grid.must("acme", ask) == "200"


def test_the_acme_certificate_is_renewed_without_a_restart(controller: Controller) -> None:
    grid = controller.grid
    before = shown(grid, NAME, grid.address("net"), "serial")
    pid = "systemctl show -p MainPID --value pygrid-network@net"
    former = grid.must("net", pid)
    assert controller.must_play("certificates").changed == 0
    controller.must_play("certificates", "-e", "pygrid_certificates_renew=true")
    assert shown(grid, NAME, grid.address("net"), "serial") != before
    assert grid.must("net", pid) == former


def test_port_80_answers_challenges_and_nothing_else(controller: Controller) -> None:
    grid = controller.grid
    for path in ("/", "/api/v2/metadata"):
        answer = grid.run("acme", f"curl -sS --max-time 10 -o /dev/null -w '%{{http_code}}' http://{NAME}{path}")
        assert not answer.text.endswith("200"), answer.text
    challenge = f"curl -sS --max-time 10 http://{NAME}/.well-known/acme-challenge/abc"
    assert grid.must("acme", challenge).startswith("abc.")
