# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From rules with names to nftables; and, as root, a real kernel that keeps them in a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.module_utils import firewall_openings
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_names import (
    addresses_of,
    names_in_hosts_file,
    uid_of,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_openings import (
    Firewalld,
    Ufw,
    sources,
    split_rules,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_rules import Numbers, Rules, render
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_run import checked
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_ssh import connection_ports, ssh_ports
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_table import Table, without_counts

NAMES = {"alice.example": ["192.0.2.5", "2001:db8::5"], "worker": ["192.0.2.9"]}
UIDS = {"root": 0, "pygrid-alice": 901, "pygrid-w1": 902, "nobody": 65534}
EVERYONE = ["0.0.0.0/0", "::/0"]

needs_kernel = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("unshare"),
    reason="needs root, nft and unshare",
)


def numbers(hosts_file: frozenset[str] = frozenset(), servers: list[str] | None = None) -> Numbers:
    return Numbers(lambda name: NAMES.get(name, []), UIDS.get, hosts_file, servers or ["192.0.2.53"])


def rules_of(wanted: dict[str, Any], ssh: tuple[int, ...] = (22,)) -> Rules:
    some = numbers()
    rules = some.rules(wanted, ssh)
    assert some.problems == []
    return rules


def cage(**given: Any) -> dict[str, Any]:
    place = {"address": "192.0.2.5", "port": 5500, "why": "jobs"}
    fixed = {"account": "pygrid-w1", "name": "w1", "to": [place], "networks": [], "everywhere": False}
    return {**fixed, "answers": [{"address": "127.0.0.1", "port": 5600}], **given}


def test_names_become_addresses_of_both_families() -> None:
    rules = rules_of({"incoming": [{"port": 443, "sources": ["alice.example", "192.0.2.0/28"], "why": "x"}]})
    assert [str(network) for network in rules.openings[0].networks] == ["192.0.2.0/28", "2001:db8::5/128"]


def test_a_name_that_does_not_resolve_is_named_once() -> None:
    some = numbers()
    some.rules({"incoming": [{"port": port, "sources": ["gone.example"], "why": "jobs"} for port in (1, 2)]}, [])
    (problem,) = some.problems
    assert "gone.example (jobs) does not resolve" in problem


def test_an_account_that_is_missing_is_left_out_and_told() -> None:
    some = numbers()
    local = [{"address": "127.0.0.1", "port": 1, "accounts": ["root", "new"], "name": "n"}]
    rules = some.rules({"local": local, "egress": [cage(account="newer")]}, [])
    assert some.missing_accounts == ["new", "newer"]
    assert rules.guards[0].uids == (0,)
    assert rules.cages == ()


@pytest.mark.parametrize(
    ("address", "hosts_file", "dns"),
    [
        ("192.0.2.5", frozenset(), False),
        ("alice.example", frozenset(), True),
        ("alice.example", frozenset({"alice.example"}), False),
    ],
)
def test_code_may_ask_name_servers_only_when_it_has_to(address: str, hosts_file: frozenset[str], dns: bool) -> None:
    place = {"address": address, "port": 443, "why": "blobs"}
    rules = numbers(hosts_file).rules({"egress": [cage(to=[place])]}, [])
    assert ("udp dport 53" in render(rules)) is dns


def test_other_ports_are_left_alone_unless_they_are_not() -> None:
    assert "refused-others" not in render(rules_of({}))
    closed = render(rules_of({"deny_others": True}, (22, 2222)))
    assert closed.index("tcp dport { 22, 2222 } accept") < closed.index('counter name "refused-others"')


def test_comments_cannot_break_out() -> None:
    text = render(
        rules_of({"incoming": [{"port": 1, "sources": ["worker"], "why": 'a" ; flush ruleset\n' + "é" * 99}]})
    )
    comment = next(line for line in text.splitlines() if "accept comment" in line)
    assert comment.count('"') == 2
    assert len(comment.split('"')[1].encode()) <= 120


def test_port_of_this_session_is_found_in_an_environment() -> None:
    assert connection_ports("A=1\0SSH_CONNECTION=10.0.0.9 5022 10.0.0.1 2222\0B=2") == {2222}
    assert connection_ports("X_SSH_CONNECTION=10.0.0.9 5022 10.0.0.1 2222") == set()


def test_port_of_this_session_is_found_behind_a_cleared_environment() -> None:
    program = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c',"
        " 'from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_ssh import _session_ports as p;"
        " print(sorted(p()))'], env={'PYTHONPATH': sys.argv[1]}).returncode)"
    )
    checkout = Path(__file__).resolve().parents[3]
    result = subprocess.run(
        [sys.executable, "-c", program, str(checkout / "collections")],
        env={"SSH_CONNECTION": "10.0.0.9 5022 10.0.0.1 2222"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 2222 in json.loads(result.stdout)


def test_given_ports_of_ssh_stay_open() -> None:
    assert {22, 2022} <= ssh_ports([22, 2022])


def test_own_name_and_accounts_are_known() -> None:
    assert "127.0.0.1" in addresses_of("localhost")
    assert addresses_of("no-such-name.invalid") == []
    assert "localhost" in names_in_hosts_file()
    assert uid_of("root") == 0
    assert uid_of("no-such-account") is None


def test_what_fails_is_told_in_one_sentence() -> None:
    with pytest.raises(PygridError, match="no-such-program is not installed"):
        checked(["no-such-program"])
    with pytest.raises(PygridError, match="failed: oh"):
        checked(["sh", "-c", "echo oh >&2; exit 3"])


def test_a_port_for_everybody_needs_no_other_rule() -> None:
    rules = rules_of(
        {
            "incoming": [
                {"port": 443, "sources": EVERYONE, "why": "clients"},
                {"port": 443, "sources": ["worker"], "why": "blobs"},
                {"port": 5500, "sources": ["worker", "192.0.2.9"], "why": "jobs"},
                {"port": 5432, "sources": [], "why": "nobody"},
            ]
        }
    )
    assert [(port, str(network)) for port, network in sources(rules.openings)] == [
        (443, "None"),
        (5500, "192.0.2.9/32"),
    ]


def test_rules_of_ufw_are_told_apart_by_their_comment() -> None:
    listing = (
        "Added user rules (see 'ufw status' for running firewall):\n"
        "ufw allow 22/tcp\n"
        "ufw allow 443/tcp comment 'pygrid'\n"
        "ufw allow 80/tcp comment 'not pygrid'\n"
    )
    assert split_rules(listing) == (["allow 443/tcp"], ["allow 22/tcp", "allow 80/tcp"])


def test_policy_of_firewalld_is_a_file_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "policies" / "pygrid.xml"
    monkeypatch.setattr(firewall_openings, "POLICY_FILE", file)
    rules = rules_of({"incoming": [{"port": 5500, "sources": ["alice.example"], "why": "jobs"}]})
    Firewalld(rules.openings).apply()
    assert '<source address="2001:db8::5/128"/><port port="5500" protocol="tcp"/><accept/>' in file.read_text()
    assert [one.name for one in Firewalld(rules.openings).differences(True)] == []
    Firewalld(None).apply()
    assert not file.exists()


def test_without_ufw_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall_openings, "has", lambda program: False)
    assert Ufw(None).differences(True) == []
    assert not Ufw.is_active()


FULL = {
    "incoming": [
        {"port": 443, "sources": EVERYONE, "why": "clients"},
        {"port": 5500, "sources": ["alice.example", "10.0.0.0/8"], "why": "jobs"},
        {"port": 5432, "sources": [], "why": "rows"},
    ],
    "local": [
        {"address": "127.0.0.1", "port": 5000, "accounts": ["root", "pygrid-alice"], "name": "alice"},
        {"address": "0.0.0.0", "port": 5001, "accounts": ["root"], "name": "x.y_z-1"},
    ],
    "egress": [cage(networks=["10.9.0.0/16", "127.0.0.9"]), cage(account="nobody", name="any", everywhere=True)],
    "deny_others": True,
}


def test_what_was_counted_is_no_difference() -> None:
    before, after = (f"\tcounter c {{\n\t\tpackets {seen} bytes {60 * seen}\t}}\n" for seen in (0, 7))
    assert without_counts(before) == without_counts(after)
    assert without_counts("\t\taccept\n") == "\t\taccept\n"


@needs_kernel
def test_the_kernel_takes_every_kind_of_rule_and_tells_it_the_same_way_again() -> None:
    table = Table(render(rules_of(FULL)))
    text = table._canonical()
    assert text.startswith("table inet pygrid {")
    for name in ("port-443", "port-5500", "local", "from-w1", "from-any", "incoming", "outgoing"):
        assert f"chain {name} {{" in text
    assert table._canonical() == text


# In a network of its own: listens on all PORTS of loopback, then connects to each as the account given.
ATTACK = """
import encodings.idna, json, os, socket, subprocess, sys, threading
rules, ports, uid = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["ip", "addr", "add", "192.0.2.5/32", "dev", "lo"], check=True)
subprocess.run(["nft", "-f", rules], check=True)
for port in ports:
    server = socket.create_server(("", port))
    threading.Thread(target=lambda s=server: [s.accept()[0].close() for _ in iter(int, 1)], daemon=True).start()
def reaches(address, port):
    try:
        socket.create_connection((address, port), 2).close()
        return True
    except OSError:
        return False
reader, writer = os.pipe()
if os.fork() == 0:
    try:
        os.setuid(uid)
        seen = {f"{a}:{p}": reaches(a, p) for a in ("127.0.0.1", "192.0.2.5") for p in ports}
        os.write(writer, json.dumps(seen).encode())
    finally:
        os._exit(0)
os.close(writer)
print(os.read(reader, 65536).decode())
os._exit(0)
"""


def reached(tmp_path: Path, wanted: dict[str, Any], uid: int, ports: list[int]) -> set[str]:
    """What an account reaches on a machine with these rules, where everything listens."""
    file = tmp_path / "rules.nft"
    file.write_text(render(rules_of(wanted)))
    result = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", ATTACK, str(file), json.dumps(ports), str(uid)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return {place for place, open_ in json.loads(result.stdout).items() if open_}


@needs_kernel
def test_code_on_a_worker_gets_nowhere_else(tmp_path: Path) -> None:
    wanted = {"egress": [cage()], "local": FULL["local"]}
    ports = [22, 5000, 5500, 5600]
    assert reached(tmp_path, wanted, UIDS["pygrid-w1"], ports) == {"192.0.2.5:5500"}
    other = reached(tmp_path, wanted, 12345, ports)
    assert {"127.0.0.1:22", "127.0.0.1:5500", "192.0.2.5:5500"} <= other


@needs_kernel
def test_networks_given_to_a_worker_do_not_open_services_of_its_machine(tmp_path: Path) -> None:
    wanted = {"egress": [cage(everywhere=True, networks=["0.0.0.0/0"])]}
    assert reached(tmp_path, wanted, UIDS["pygrid-w1"], [22, 5500]) == {"192.0.2.5:5500"}


@needs_kernel
def test_loopback_networks_given_to_a_worker_do_not_open_nodes(tmp_path: Path) -> None:
    wanted = {"egress": [cage(networks=["127.0.0.0/8"])], "local": FULL["local"]}
    assert reached(tmp_path, wanted, UIDS["pygrid-w1"], [22, 5000, 5500]) == {
        "127.0.0.1:22",
        "127.0.0.1:5500",
        "192.0.2.5:5500",
    }


@needs_kernel
def test_ports_of_nodes_answer_their_own_accounts_only(tmp_path: Path) -> None:
    wanted = {"local": FULL["local"]}
    assert reached(tmp_path, wanted, UIDS["pygrid-alice"], [5000]) == {"127.0.0.1:5000", "192.0.2.5:5000"}
    assert reached(tmp_path, wanted, 0, [5000, 5001]) >= {"127.0.0.1:5000", "127.0.0.1:5001"}
    # bound to 127.0.0.1 a node is not on the machine's other addresses, whose port may be somebody else's
    assert reached(tmp_path, wanted, 12345, [5000, 5001]) == {"192.0.2.5:5000"}
