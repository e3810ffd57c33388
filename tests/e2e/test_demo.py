# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``make demo`` promises: a training on a deployed grid that ends well, or says in one line why it does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.grid import CHECKOUT, LocalGrid, Run

#: The README's own test runs the demo, in `make test` too.
pytestmark = [pytest.mark.timeout(900), pytest.mark.thorough]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGrid]:
    grid = LocalGrid(tmp_path_factory.mktemp("demo"), first_port=18100)
    try:
        grid.deploy()
        yield grid
    finally:
        grid.remove()


def demo(grid: LocalGrid, results: Path, *arguments: str, home: Path | None = None) -> Run:
    """The playbook, as `make demo` runs it."""
    surroundings = {"HOME": str(home), "TMPDIR": str(home)} if home else {}
    return grid.play("demo", "-e", f"pygrid_demo_results={results}", *arguments, environment=surroundings)


def program(
    grid: LocalGrid, results: Path, *arguments: str, examples: Path = CHECKOUT / "examples", network: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The program itself, for what the playbook does not offer."""
    command = [str(grid.node_file("net", "current/env/bin/python")), "-B", "-m", "federated_breast_cancer"]
    command += ["--network", "net", network or grid.url("net"), "--results", str(results)]
    for name in ("alice", "bob"):
        command += ["--domain", name, grid.url(name), str(grid.node_file(name, "identity.json"))]
    return subprocess.run(
        [*command, *arguments], cwd=examples, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_job_that_takes_too_long_is_named(grid: LocalGrid, tmp_path: Path) -> None:
    """First of all tests: what it leaves behind must not matter to the next ones."""
    run = program(grid, tmp_path, "--job-timeout-seconds", "0.1")
    assert run.returncode == 1, run.stdout + run.stderr
    late = r"demo failed: the job feature_totals did not end within 0\.1 s at alice \(\w+\), bob \(\w+\)\n"
    assert re.fullmatch(late, run.stderr)


def test_demo_ends_well_and_can_be_run_again(grid: LocalGrid, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    before = set(grid.processes())
    for number in (1, 2):
        results = tmp_path / f"results{number}"
        run = demo(grid, results, home=home)
        assert run.returncode == 0, run.output
        record = json.loads((results / "results.json").read_text())
        assert abs(record["federated_accuracy"] - record["central_accuracy"]) <= 0.02
        assert record["rounds"][-1]["accuracy"] == record["federated_accuracy"]
        assert len(record["rounds"]) == 5
        assert (results / "accuracy_per_round.png").read_bytes().startswith(PNG)
        assert "round 5/5" in run.output
        told = run.output + (results / "syft-client.log").read_text()
        for name in ("net", "alice", "bob"):
            assert grid.identity(name)["root_password"] not in told
        assert "has uploaded its 213 patients before" in run.output, "the first test has uploaded them"
    assert [entry.name for entry in home.iterdir() if entry.name != ".ansible"] == []
    assert set(grid.processes()) == before


def test_nothing_of_a_run_stays_open(grid: LocalGrid, tmp_path: Path) -> None:
    """Accounts and approvals are taken back, whether the run ended well or not."""
    work = tmp_path / "client"
    work.mkdir()
    script = """
import json, sys, syft
identity = json.load(open(sys.argv[2]))
client = syft.login(url=sys.argv[1], email=identity["root_email"], password=identity["root_password"], cache=False)
print(json.dumps({
    "users": [user.email for user in client.users.get_all()],
    "datasets": [dataset.name for dataset in client.datasets],
    "approved": [code.service_func_name for code in client.code.get_all() if code.status.approved],
}))
"""
    answer = subprocess.run(
        [grid.node_file("alice", "current/env/bin/python"), "-c", script, grid.url("alice"),
         grid.node_file("alice", "identity.json")],
        env={"HOME": str(work), "TMPDIR": str(work), "PATH": os.defpath},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    left = json.loads(answer.stdout.strip().splitlines()[-1])
    assert left["users"] == [grid.identity("alice")["root_email"]]
    assert len(left["datasets"]) == 1
    assert left["approved"] == []


def test_another_accuracy_is_a_failure(grid: LocalGrid, tmp_path: Path) -> None:
    run = program(grid, tmp_path, "--rounds", "1", "--tolerance-points", "0")
    assert run.returncode == 1
    assert run.stderr.startswith("demo failed: the federated accuracy 94.4% differs from the central 95.8%")
    assert run.stderr.count("\n") == 1


def test_a_job_that_fails_is_named(grid: LocalGrid, tmp_path: Path) -> None:
    copy = tmp_path / "examples"
    shutil.copytree(CHECKOUT / "examples", copy, ignore=shutil.ignore_patterns("__pycache__"))
    functions = copy / "federated_breast_cancer" / "functions.py"
    text = functions.read_text()
    wrong = text.replace(
        '    return {\n        "patients"', '    1 / (len(table) < 100)\n    return {\n        "patients"'
    )
    assert wrong != text
    functions.write_text(wrong)
    run = program(grid, tmp_path, examples=copy)
    assert run.returncode == 1
    # Both Domains run it at the same time; whichever fails first is named.
    assert re.match("demo failed: the job feature_totals at (alice|bob) is errored: ", run.stderr)
    assert run.stderr.count("\n") == 1


def test_a_node_that_does_not_answer_is_named(grid: LocalGrid, tmp_path: Path) -> None:
    run = program(grid, tmp_path, network="http://127.0.0.1:9")
    assert run.returncode == 1
    assert run.stderr.startswith("demo failed: net does not answer at http://127.0.0.1:9 ")
    assert run.stderr.count("\n") == 1


def test_a_domain_without_worker_is_named(grid: LocalGrid, tmp_path: Path) -> None:
    removed = grid.play("remove", "--limit", "bob-w1", "-e", "pygrid_confirm=true")
    assert removed.returncode == 0, removed.output
    run = demo(grid, tmp_path)
    assert run.returncode != 0
    assert "demo failed: no Worker is attached to the Domain bob" in run.output


def test_a_grid_that_is_not_deployed_is_named(tmp_path: Path) -> None:
    run = demo(LocalGrid(tmp_path / "nothing", first_port=18150), tmp_path)
    assert run.returncode != 0
    assert "net is not deployed on this machine; run `make deploy` first." in run.output
