# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees while a playbook runs: real runs, at a terminal and without one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.plugin_utils.progress import Progress, clock, names

CHECKOUT = Path(__file__).parents[3]
PLAYBOOK = """
- name: First
  hosts: all
  gather_facts: false
  tasks:
    - name: Is quiet
      ansible.builtin.command: {argv: ["true"]}
      changed_when: false
    - name: Keep a secret
      ansible.builtin.command: {argv: [echo, hush-hush]}
      no_log: true
    - name: Do it
      ansible.builtin.command: {argv: [sleep, "{{ seconds }}"]}
      when: inventory_hostname == 'alice'
    - name: Say it
      ansible.builtin.debug: {msg: "What was planned:\\n  this and that"}
      run_once: true
- name: In batches
  hosts: all
  gather_facts: false
  serial: [1, 2]
  tasks:
    - name: Break
      ansible.builtin.fail: {msg: it went wrong}
      when: inventory_hostname == 'carol' and broken | default(false) | bool
    - name: Break in more words
      ansible.builtin.command: {argv: [sh, -c, "echo detail >&2; exit 3"]}
      when: inventory_hostname == 'bob' and broken | default(false) | bool
"""
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")


def play(folder: Path, *options: str, terminal: bool = False, **environment: str) -> tuple[int, str]:
    """Exit code and output of a run with three hosts."""
    (folder / "upgrade.yml").write_text(PLAYBOOK)
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "alice,bob,carol,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", *options, str(folder / "upgrade.yml")]
    surroundings = {
        **os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(folder),
        "ANSIBLE_STDOUT_CALLBACK": "openmined.pygrid.progress", "PYGRID_PROGRESS_SECONDS": "1", "TERM": "xterm",
        **environment,
    }  # fmt: skip
    for name in ("ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        if name not in environment:
            surroundings.pop(name, None)
    if not terminal:
        streams = {"stdin": subprocess.DEVNULL, "capture_output": True}
        run = subprocess.run(command, cwd=CHECKOUT, env=surroundings, text=True, check=False, **streams)
        return run.returncode, run.stdout + run.stderr
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, cwd=CHECKOUT, env=surroundings, **streams) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
    os.close(ours)
    return process.returncode, output.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side was closed
        return b""


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    code, output = play(tmp_path, "-e", "seconds=3")
    assert code == 0, output
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    assert "\x1b" not in output
    assert "\r" not in output
    assert re.fullmatch(r"\d:\d\d  1/2 First: alice, bob, carol", lines[0])
    assert any(re.fullmatch(r"\d:\d\d    Do it: \d+ s, waiting for alice", line) for line in lines), output
    assert any(re.match(r"\d:\d\d    Do it: alice changed \(\d+ s\)", line) for line in lines), output
    assert "Is quiet: alice" not in output
    assert "hush-hush" not in output
    assert "What was planned:\n  this and that\n" in output, "texts for people are no YAML"
    assert any(line.endswith("2/2 In batches, batch 1 of 2: alice") for line in lines), output
    assert any(line.endswith("2/2 In batches, batch 2 of 2: bob, carol") for line in lines), output
    assert re.fullmatch(r"\d:\d\d  upgrade is done: 3 hosts, 4 changed", lines[-1])


def test_failures_in_full(tmp_path: Path) -> None:
    code, output = play(tmp_path, "-e", "seconds=0", "-e", "broken=true")
    assert code == 2, output
    assert re.search(r"FAILED on carol: Break\n +it went wrong\n", output)
    assert "Break in more words" in output
    assert "stderr: detail" in output
    assert not re.search(r"Break[\w ]*: .*changed", output)
    assert re.search(r"upgrade FAILED on bob, carol: 3 hosts, 4 changed", output)


def test_a_line_that_is_painted_again_and_again_at_a_terminal(tmp_path: Path) -> None:
    code, output = play(tmp_path, "-e", "seconds=3", terminal=True, COLUMNS="300")
    assert code == 0, output
    assert re.search(r"\r\x1b\[K0:\d\d upgrade 1/2 First - Do it, \d+ s - waiting for alice\r\x1b\[K", output), output
    assert "\x1b[0;33m" in output, "colours of what changed"
    code, output = play(tmp_path, "-e", "seconds=2", terminal=True, COLUMNS="40", NO_COLOR="1")
    assert code == 0, output
    assert re.search(r"\x1b\[K0:\d\d upgrade 1/2 First - Do it, [\w -]*…\r", output), output
    assert not re.search(r"\x1b\[[0-9;]*m", output)
    painted = [ESCAPES.sub("", line) for line in re.findall(r"\r\x1b\[K([^\r\n]+)", output)]
    assert max(map(len, [line for line in painted if "…" in line])) < 40


def test_all_details_with_verbosity(tmp_path: Path) -> None:
    code, output = play(tmp_path, "-v", "-e", "seconds=0")
    assert code == 0, output
    for expected in ("PLAY [First]", "TASK [Is quiet]", "changed: [alice]", "PLAY RECAP", "censored"):
        assert expected in output
    assert "hush-hush" not in output


class TestTexts:
    def test_clock(self) -> None:
        assert [clock(seconds) for seconds in (7.9, 754, 3723)] == ["0:07", "12:34", "1:02:03"]

    def test_many_hosts(self) -> None:
        assert names("abcdef") == "a, b, c, d, e, f"
        assert names("abcdefgh") == "a, b, c, d, e and 3 more"

    def test_what_hosts_say_that_they_do(self) -> None:
        progress = Progress(now=lambda: 10.0)
        for host in ("net", "alice", "bob", "carol"):
            progress.await_host(host)
        said = {"alice": "ends its job", "net": "starting", "carol": "starting"}
        text = progress.waiting(lambda host: said.get(host, ""))
        assert text == "net, carol (starting), alice (ends its job), bob"
