# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From rules with names of hosts and accounts to rules with addresses and numbers, and to the text of nftables."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Union

from ansible_collections.openmined.pygrid.plugins.module_utils.addresses import is_address

TABLE = "inet pygrid"
# before the chains of others, so that what is refused here shows up in our counters
PRIORITY = -5
REFUSE = "reject with icmpx type admin-prohibited"
# nftables keeps at most 128 bytes of a comment
LONGEST_COMMENT = 120
ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on
DNS_PORT = 53

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


@dataclass(frozen=True)
class Opening:
    """Who may connect to a port; no networks: nobody, both families' whole space: everybody."""

    port: int
    networks: tuple[Network, ...]
    why: str

    @property
    def for_everybody(self) -> bool:
        return {network.version for network in self.networks if network.prefixlen == 0} == {4, 6}


@dataclass(frozen=True)
class Guard:
    """Which accounts may connect to a port over loopback; no addresses: the port on any address."""

    addresses: tuple[Network, ...]
    port: int
    uids: tuple[int, ...]
    accounts: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Destination:
    """One service; ``protocols`` are tcp, udp or both."""

    networks: tuple[Network, ...]
    port: int
    why: str
    protocols: tuple[str, ...] = ("tcp",)


@dataclass(frozen=True)
class Cage:
    """All that an account may send to: some services, some networks outside of this machine, or everything outside."""

    uid: int
    account: str
    name: str
    to: tuple[Destination, ...]
    networks: tuple[Network, ...]
    everywhere: bool
    answers: tuple[Destination, ...]


@dataclass(frozen=True)
class Rules:
    """Everything the table of one machine is made of. ``ssh_ports``: None leaves other ports alone."""

    openings: tuple[Opening, ...] = ()
    guards: tuple[Guard, ...] = ()
    cages: tuple[Cage, ...] = ()
    ssh_ports: tuple[int, ...] | None = None


class Numbers:
    """Turns the names in rules into numbers; collects what cannot be turned, instead of stopping at the first."""

    def __init__(
        self,
        addresses_of: Callable[[str], list[str]],
        uid_of: Callable[[str], int | None],
        known_hosts: frozenset[str],
        name_servers: list[str],
    ) -> None:
        self._addresses_of = addresses_of
        self._uid_of = uid_of
        self._known_hosts = known_hosts
        self._name_servers = name_servers
        self.problems: list[str] = []
        self.missing_accounts: list[str] = []

    def rules(self, wanted: dict[str, Any], ssh_ports: Iterable[int]) -> Rules:
        """The rules that ``wanted`` (see the module's documentation) asks for."""
        deny_others = wanted.get("deny_others")
        return Rules(
            openings=tuple(self._openings(wanted.get("incoming") or [])),
            guards=tuple(self._guard(entry) for entry in wanted.get("local") or []),
            cages=tuple(cage for entry in wanted.get("egress") or [] for cage in self._cage(entry)),
            ssh_ports=tuple(sorted(set(ssh_ports))) if deny_others else None,
        )

    def networks(self, values: Iterable[str], what: str) -> tuple[Network, ...]:
        """Addresses, CIDRs and names as networks, each once; overlapping ones are joined."""
        found: list[Network] = []
        for value in values:
            try:
                found.append(ipaddress.ip_network(value, strict=False))
            except ValueError:
                addresses = self._addresses_of(value)
                if not addresses:
                    self._problem(
                        f"{value} ({what}) does not resolve to an address on this machine; add it to the DNS or to"
                        " /etc/hosts, or give the address in the inventory"
                    )
                found += [ipaddress.ip_network(address) for address in addresses]
        return (
            *ipaddress.collapse_addresses(network for network in found if network.version == 4),
            *ipaddress.collapse_addresses(network for network in found if network.version == 6),
        )

    def _problem(self, sentence: str) -> None:
        if sentence not in self.problems:
            self.problems.append(sentence)

    def _openings(self, entries: Iterable[dict[str, Any]]) -> Iterable[Opening]:
        return [
            Opening(int(entry["port"]), self.networks(entry["sources"], entry["why"]), entry["why"])
            for entry in entries
        ]

    def _uids(self, accounts: Iterable[str]) -> tuple[int, ...]:
        found = []
        for account in accounts:
            uid = self._uid_of(account)
            if uid is None:
                self.missing_accounts.append(account)
            else:
                found.append(uid)
        return tuple(sorted(set(found)))

    def _guard(self, entry: dict[str, Any]) -> Guard:
        return Guard(
            addresses=self._listening(entry["address"], entry["name"]),
            port=int(entry["port"]),
            uids=self._uids(entry["accounts"]),
            accounts=tuple(entry["accounts"]),
            name=entry["name"],
        )

    def _listening(self, address: str, what: str) -> tuple[Network, ...]:
        return () if address in ANYWHERE else self.networks([address], what)

    def _cage(self, entry: dict[str, Any]) -> Iterable[Cage]:
        for uid in self._uids([entry["account"]]):
            to = [
                Destination(self.networks([place["address"]], place["why"]), int(place["port"]), place["why"])
                for place in entry["to"]
            ]
            names = [place["address"] for place in entry["to"] if not is_address(place["address"])]
            if entry["everywhere"] or any(name not in self._known_hosts for name in names):
                servers = self.networks(self._name_servers, "a name server in /etc/resolv.conf")
                to.append(Destination(servers, DNS_PORT, "names are looked up", ("tcp", "udp")))
            yield Cage(
                uid=uid,
                account=entry["account"],
                name=entry["name"],
                to=tuple(dict.fromkeys(to)),
                networks=self.networks(entry["networks"], "pygrid_worker_egress"),
                everywhere=bool(entry["everywhere"]),
                answers=tuple(
                    Destination(self._listening(place["address"], entry["name"]), int(place["port"]), "")
                    for place in entry["answers"]
                ),
            )


def render(rules: Rules) -> str:
    """The file for ``nft -f``: in one transaction the table goes, if it is there, and comes back as wanted."""
    lines = [
        "# Written by openmined.pygrid, role firewall; changes by hand are undone by the next deploy.",
        f"add table {TABLE}",
        f"delete table {TABLE}",
        f"table {TABLE} {{",
    ]
    ports: dict[int, list[Opening]] = {}
    for opening in rules.openings:
        ports.setdefault(opening.port, []).append(opening)
    for port in sorted(ports):
        lines += _port_chain(port, ports[port])
    lines += _incoming_chain(sorted(ports), rules.ssh_ports)
    if rules.guards:
        lines += _guard_chain(rules.guards)
    for cage in rules.cages:
        lines += _cage_chain(cage, bool(rules.guards))
    if rules.guards or rules.cages:
        lines += _outgoing_chain(rules)
    return "\n".join([*lines, "}", ""])


def _identifier(text: str) -> str:
    """Names in nftables have letters, digits, underscores, hyphens and dots."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def _comment(text: str) -> str:
    plain = re.sub(r'["\\\n]', " ", text).encode()[:LONGEST_COMMENT].decode(errors="ignore")
    return f'comment "{plain}"'


def _matches(side: str, networks: Iterable[Network]) -> list[str]:
    """``ip saddr {...}`` and ``ip6 saddr {...}``; ``side`` is saddr or daddr."""
    matches = []
    for version, family in ((4, "ip"), (6, "ip6")):
        texts = [_text(network) for network in networks if network.version == version]
        if texts:
            matches.append(f"{family} {side} {{ {', '.join(texts)} }}")
    return matches


def _text(network: Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _refusal(name: str) -> tuple[str, str]:
    """A counter and the statement that counts and refuses."""
    counter = _identifier(name)
    return f"\tcounter {counter} {{ }}", f'counter name "{counter}" {REFUSE}'


def _port_chain(port: int, openings: Iterable[Opening]) -> list[str]:
    counter, refuse = _refusal(f"refused-port-{port}")
    everybody = [opening for opening in openings if opening.for_everybody]
    if everybody:
        return [f"\tchain port-{port} {{", f"\t\taccept {_comment(everybody[0].why)}", "\t}"]
    accepts = [
        f"\t\t{match} accept {_comment(opening.why)}"
        for opening in openings
        for match in _matches("saddr", opening.networks)
    ]
    return [counter, f"\tchain port-{port} {{", *accepts, f"\t\t{refuse}", "\t}"]


def _incoming_chain(ports: list[int], ssh_ports: tuple[int, ...] | None) -> list[str]:
    lines = [
        "\tchain incoming {",
        f"\t\ttype filter hook input priority {PRIORITY}; policy accept;",
        '\t\tiif "lo" accept',
    ]
    if ports:
        verdicts = ", ".join(f"{port} : goto port-{port}" for port in ports)
        lines.append(f"\t\ttcp dport vmap {{ {verdicts} }}")
    if ssh_ports is None:
        return [*lines, "\t}"]
    counter, refuse = _refusal("refused-others")
    return [
        counter,
        *lines,
        "\t\tct state established,related accept",
        f"\t\ttcp dport {{ {', '.join(map(str, ssh_ports))} }} accept {_comment('SSH')}",
        "\t\ticmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept",
        "\t\ticmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem,"
        " nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect, mld-listener-query } accept",
        f"\t\tudp sport 67 udp dport 68 accept {_comment('DHCP')}",
        f"\t\tudp sport 547 udp dport 546 accept {_comment('DHCPv6')}",
        f"\t\t{refuse}",
        "\t}",
    ]


def _guard_chain(guards: Iterable[Guard]) -> list[str]:
    """Loopback connections to the nodes' own ports, by any account but those named."""
    counters, lines = [], []
    for guard in guards:
        counter, refuse = _refusal(f"refused-local-{guard.name}")
        counters.append(counter)
        uids = ", ".join(map(str, guard.uids))
        for match in _matches("daddr", guard.addresses) or [""]:
            line = f"{match} tcp dport {guard.port} meta skuid != {{ {uids} }} {refuse}"
            lines.append(f"\t\t{line.strip()} {_comment('only ' + ', '.join(guard.accounts))}")
    return [*counters, "\tchain local {", *lines, "\t}"]


def _cage_chain(cage: Cage, guarded: bool) -> list[str]:
    """Ends in a refusal. A network that is not on loopback never opens a service of this machine."""
    counter, refuse = _refusal(f"refused-from-{cage.name}")
    lines = []
    for answer in cage.answers:
        # ct direction: a client socket of the same account could be bound to this port on another address
        for match in _matches("saddr", answer.networks) or [""]:
            lines.append(
                f'oif "lo" {match} tcp sport {answer.port} ct direction reply accept'
                f" {_comment('answers of the Worker')}"
            )
    for place in cage.to:
        for protocol in place.protocols:
            lines += [
                f"{match} {protocol} dport {place.port} accept {_comment(place.why)}"
                for match in _matches("daddr", place.networks)
            ]
    inside = [network for network in cage.networks if network.is_loopback]
    outside = [network for network in cage.networks if not network.is_loopback]
    if cage.everywhere:
        lines.append(f'oif != "lo" accept {_comment("pygrid_worker_egress: any")}')
    else:
        lines += [
            f'oif != "lo" {match} accept {_comment("pygrid_worker_egress")}' for match in _matches("daddr", outside)
        ]
    if inside and guarded:
        lines.append('oif "lo" jump local')
    lines += [f'oif "lo" {match} accept {_comment("pygrid_worker_egress")}' for match in _matches("daddr", inside)]
    body = ["\t\t" + re.sub(" +", " ", line) for line in (*lines, f"{refuse} {_comment(cage.account)}")]
    return [counter, f"\tchain {_identifier('from-' + cage.name)} {{", *body, "\t}"]


def _outgoing_chain(rules: Rules) -> list[str]:
    lines = ["\tchain outgoing {", f"\t\ttype filter hook output priority {PRIORITY}; policy accept;"]
    if rules.cages:
        verdicts = ", ".join(f"{cage.uid} : goto {_identifier('from-' + cage.name)}" for cage in rules.cages)
        lines.append(f"\t\tmeta skuid vmap {{ {verdicts} }}")
    if rules.guards:
        lines.append('\t\toif "lo" jump local')
    return [*lines, "\t}"]
