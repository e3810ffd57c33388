# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening ports in a firewall that runs on the machine already.

Our own table (firewall_table.py) can only refuse: what firewalld or ufw refuse stays refused, whatever it accepts. So
where one of them runs, it is told what to let in, in objects of our own that can be found and removed again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import quoteattr

from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text, write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_rules import Network, Opening
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_run import checked, has, output_of
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_table import Difference

POLICY = "pygrid"
POLICY_FILE = Path("/etc/firewalld/policies") / f"{POLICY}.xml"
COMMENT = "pygrid"
UFW_DEFAULTS = Path("/etc/default/ufw")


def sources(openings: Iterable[Opening]) -> list[tuple[int, Network | None]]:
    """(port, network) for every opening, None for everybody; in a stable order."""
    found: dict[tuple[int, Network | None], None] = {}
    for opening in sorted(openings, key=lambda one: one.port):
        for network in (None,) if opening.for_everybody else opening.networks:
            found[opening.port, network] = None
    everybody = {port for port, network in found if network is None}
    return [(port, network) for port, network in found if network is None or port not in everybody]


class Firewalld:
    """One policy of our own, from every zone to this machine, that is asked before the zones are."""

    def __init__(self, openings: Iterable[Opening] | None) -> None:
        self._sources = None if openings is None else sources(openings)

    @staticmethod
    def is_active() -> bool:
        return has("firewall-cmd") and output_of(["firewall-cmd", "--state"]).strip() == "running"

    def differences(self, _dry_run: bool) -> list[Difference]:
        found = [Difference(str(POLICY_FILE), read_text(POLICY_FILE) or "", self._file())]
        if self.is_active():
            found.append(Difference("firewalld", self._live(), self._rules()))
        return [difference for difference in found if difference.before != difference.after]

    def apply(self) -> None:
        if self._sources is None:
            if POLICY_FILE.exists():
                POLICY_FILE.unlink()
        else:
            POLICY_FILE.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            write_if_different(POLICY_FILE, self._file(), 0o600)
        if self.is_active():
            checked(["firewall-cmd", "--quiet", "--reload"])

    def _file(self) -> str:
        if self._sources is None:
            return ""
        rules = []
        for port, network in self._sources:
            family = f' family="ipv{network.version}"' if network else ""
            source = f"<source address={quoteattr(str(network))}/>" if network else ""
            rules.append(f'  <rule{family}>{source}<port port="{port}" protocol="tcp"/><accept/></rule>')
        return "\n".join(
            [
                '<?xml version="1.0" encoding="utf-8"?>',
                "<!-- Written by openmined.pygrid, role firewall. -->",
                '<policy priority="-1" target="CONTINUE">',
                f"  <short>{POLICY}</short>",
                '  <ingress-zone name="ANY"/>',
                '  <egress-zone name="HOST"/>',
                *rules,
                "</policy>",
                "",
            ]
        )

    def _rules(self) -> str:
        """The rules as firewalld lists them."""
        lines = []
        for port, network in self._sources or []:
            match = f' family="ipv{network.version}" source address="{network}"' if network else ""
            lines.append(f'rule{match} port port="{port}" protocol="tcp" accept\n')
        return "".join(sorted(lines))

    @staticmethod
    def _live() -> str:
        if POLICY not in output_of(["firewall-cmd", "--get-policies"]).split():
            return ""
        listed = checked(["firewall-cmd", f"--policy={POLICY}", "--list-rich-rules"])
        return "".join(sorted(line.strip() + "\n" for line in listed.splitlines() if line.strip()))


class Ufw:
    """Rules with a comment of our own; a rule that the administrator has already made is left to him."""

    def __init__(self, openings: Iterable[Opening] | None) -> None:
        self._wanted = [_ufw_rule(port, network) for port, network in sources(openings or []) if _ufw_knows(network)]

    @staticmethod
    def is_active() -> bool:
        return has("ufw") and output_of(["ufw", "status"]).startswith("Status: active")

    def differences(self, _dry_run: bool) -> list[Difference]:
        ours, others = self._existing()
        wanted = {rule for rule in self._wanted if rule not in others}
        before, after = ("".join(f"ufw {rule}\n" for rule in sorted(rules)) for rules in (set(ours), wanted))
        return [Difference("ufw", before, after)] if before != after else []

    def apply(self) -> None:
        ours, others = self._existing()
        # opened before the old ones are closed: no moment with a port shut that stays open
        for rule in self._wanted:
            if rule not in ours and rule not in others:
                checked(["ufw", *rule.split(), "comment", COMMENT])
        for rule in ours:
            if rule not in self._wanted:
                checked(["ufw", "delete", *rule.split()])

    def _existing(self) -> tuple[list[str], list[str]]:
        """Our rules and those of others, as ufw itself writes them."""
        return split_rules(output_of(["ufw", "show", "added"])) if has("ufw") else ([], [])


def split_rules(listing: str) -> tuple[list[str], list[str]]:
    """From the output of ``ufw show added``: our rules, and those of others; without their comments."""
    ours, others = [], []
    for line in re.findall(r"(?m)^ufw (.*)$", listing):
        rule, _comment, comment = line.partition(" comment ")
        (ours if shlex.split(comment) == [COMMENT] else others).append(rule)
    return ours, others


def _ufw_rule(port: int, network: Network | None) -> str:
    if network is None:
        return f"allow {port}/tcp"
    address = network.network_address if network.prefixlen == network.max_prefixlen else network
    return f"allow from {address} to any port {port} proto tcp"


def _ufw_knows(network: Network | None) -> bool:
    """Whether ufw handles this address family; it can be told to leave IPv6 alone."""
    off = re.search(r"(?mi)^\s*IPV6=\W*no\b", read_text(UFW_DEFAULTS) or "")
    return network is None or network.version == 4 or not off
