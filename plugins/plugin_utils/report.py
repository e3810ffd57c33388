# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads at the end of a run: the summary of a deploy, the table of a status."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.controller_process import is_dead
from ansible_collections.openmined.pygrid.plugins.plugin_utils.rollout import path_problems, version_of
from ansible_collections.openmined.pygrid.plugins.plugin_utils.seen import unknown, unmanaged

UNREAD = (
    "version", "release", "uptime_seconds", "backlog", "certificate", "wanted_release", "drift", "last_change",
    "backup",
)  # fmt: skip
LOCAL_STEPS = (
    "  make demo         a federated training over both Domains' private data (playbooks/demo.yml)",
    "  make status       who is up and what each Worker does (playbooks/status.yml)",
    "  make credentials  passwords of the root accounts (playbooks/credentials.yml)",
    "  make remove       take the grid away again, data kept (playbooks/remove.yml)",
)
SERVER_STEPS = (
    "  playbooks/status.yml        who is up, what each Worker does, how long certificates are valid",
    "  playbooks/credentials.yml   passwords of the root accounts (-e pygrid_show_credentials=true)",
    "  docs/intranet.md            how data scientists reach the grid, and what an operator does when",
)


def table(rows: list[list[str]]) -> list[str]:
    """Left-aligned columns, two spaces apart; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def duration(seconds: float | None) -> str:
    """``3d 4h``, ``2h 10m``, ``5m 3s`` or ``12s``; a dash for none."""
    if seconds is None:
        return "-"
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (left, "s")]
    first = next((index for index, (number, _unit) in enumerate(parts) if number), 3)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number or first == 3)


def format_summary(grid: Mapping[str, Any], hostvars: Mapping[str, Any]) -> str:
    """What runs where, how to log in and what to try next."""
    rows = [["NODE", "KIND", "URL", "LOG IN AS", "SERVES"]]
    for node in grid["nodes"].values():
        state = (hostvars[node["host"]].get("__node_state") or {}).get("node") or {}
        created = (hostvars[node["host"]].get("__node_identity") or {}).get("identity") or {}
        email = (created or state.get("identity") or {}).get("root_email", "-")
        serves = grid["nodes"][node["domain"]]["name"] if node["domain"] else "-"
        rows.append([node["name"], node["kind"], node["url"] if node["kind"] != "worker" else "-", email, serves])
    lines = ["The grid runs.", "", *table(rows), "", *_places(grid, hostvars), "", "What next:"]
    if grid["scope"] == "system":
        return "\n".join([*lines, *SERVER_STEPS])
    return "\n".join([*lines, *LOCAL_STEPS])


def _places(grid: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[str]:
    """Where things lie, and what a client needs to trust the grid."""
    if grid["scope"] == "system":
        return [
            "Each node is the systemd service pygrid-<kind>@<name>; journalctl -u pygrid-<kind>@<name> shows its log.",
            "Settings lie in /etc/pygrid, data in /var/lib/pygrid and in PostgreSQL.",
        ]
    homes = {(hostvars[host].get("__node_state") or {}).get("node", {}).get("home") for host in grid["nodes"]}
    return [f"Everything lies in {home} on its host." for home in sorted(filter(None, homes))]


def _jobs(health: Mapping[str, Any]) -> str:
    jobs = health.get("jobs") or {}
    return ", ".join(f"{number} {state}" for state, number in sorted(jobs.items()) if number) or "-"


def _task(health: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """What a Worker does now; for a Domain or a Network, whom it sees."""
    if node["kind"] == "worker":
        task = health.get("task") or health.get("job")
        busy = f" for {duration(health['busy_seconds'])}" if health.get("busy_seconds") else ""
        return f"{health.get('state', '-')}: {task}{busy}" if task else str(health.get("state", "-"))
    peers = [f"{peer['name']} {peer['status']}" for peer in health.get("peers") or []]
    if node["kind"] == "domain":
        workers = health.get("workers") or []
        peers.append(f"{len(workers)} worker{'' if len(workers) == 1 else 's'}")
    return ", ".join(peers) or "-"


def _certificate(expiry: Mapping[str, Any] | None) -> str:
    """How long the certificate that a node shows is valid."""
    if not expiry or expiry["days_left"] is None:
        return "-"
    return f"{expiry['days_left']:.0f} days" if expiry["days_left"] > 0 else "expired"


@dataclass(frozen=True)
class Known:
    """What a run has read of a host: ``node`` and its ``wanted`` release, what a deploy would change (``drift``, None
    when that is not known) or why that is not known (``mystery``), and the last change in the host's record."""

    node: Mapping[str, Any]
    wanted: str | None
    drift: list[str] | None
    mystery: str
    last_change: Mapping[str, Any] | None

    @classmethod
    def of(cls, variables: Mapping[str, Any]) -> Known:
        """From the variables of the host."""
        state = variables.get("__node_state") or {}
        answer = variables.get("__node_drift") or {}
        wanted = state.get("wanted") or {}
        mystery = ""
        if "changes" not in answer:
            unread = "its Domain was not read" if state.get("node") else "it was not read"
            mystery = str(answer.get("msg") or wanted.get("problem") or unread)
        drift = answer.get("changes")
        node = state.get("node") or {}
        if drift is not None and node.get("exists") is False:
            drift = ["everything"]
        elif drift is not None and not node.get("identity"):
            drift = ["identity", *drift]
        last_change = (state.get("host") or {}).get("last_change")
        return cls(state.get("node") or {}, wanted.get("release"), drift, mystery, last_change)


def status_rows(
    grid: Mapping[str, Any],
    known: Mapping[str, Known],
    certificates: Mapping[str, Mapping[str, Any]],
    late_hours: Mapping[str, float],
    seen: Mapping[str, Any] | None = None,
) -> Iterable[dict[str, Any]]:
    """One plain record for each node of the grid; what could not be read is None.

    late_hours: for each host, from which age on the last backup is too old.
    seen: what the nodes themselves say of who belongs to them; those that the inventory lacks come last.
    """
    for host, node in grid["nodes"].items():
        state = known[host].node
        health = state.get("health") or {}
        service = (state.get("service") or {}).get("state", "unreachable")
        yield {
            "node": node["name"],
            "kind": node["kind"],
            "url": node["url"],
            "version": health.get("syft_version") or (state.get("release") or "").partition("-")[0] or None,
            "release": state.get("release"),
            "service": service,
            "health": health.get("status") or ("no answer" if service == "running" else service),
            "reasons": [*(health.get("reasons") or []), *filter(None, [unknown(node, grid, seen)])],
            "uptime_seconds": time.time() - health["started_at"] if health.get("started_at") else None,
            "jobs": health.get("jobs") or {},
            "backlog": (health.get("queue") or {}).get("backlog"),
            "doing": _task(health, node),
            "certificate": certificates.get(host),
            "wanted_release": known[host].wanted,
            "drift": known[host].drift,
            "drift_unknown": known[host].mystery,
            "last_change": known[host].last_change,
            "backup": state.get("backup"),
            "backup_problem": backup_problem(state.get("backup"), late_hours.get(host, 48), time.time()),
            "details": health,
        }
    yield from (_unmanaged_row(member) for member in unmanaged(grid, seen))


def _unmanaged_row(member: Mapping[str, Any]) -> dict[str, Any]:
    """A node of which nobody told us but the grid; it was not read."""
    where = member["url"] or f"of {member['domain']}"
    kind = member["kind"].capitalize()
    return {
        **dict.fromkeys(UNREAD),
        "node": member["name"],
        "kind": member["kind"],
        "url": member["url"],
        "service": "unreachable",
        "health": "not in the inventory",
        "reasons": [f"the grid knows this {kind} ({where}), and the inventory has no machine for it"],
        "jobs": {},
        "doing": member["status"].lower(),
        "drift_unknown": "it is not in the inventory",
        "backup_problem": "",
        "details": {},
    }


def backup_problem(backup: Mapping[str, Any] | None, late_hours: float, now: float) -> str:
    """What a person should know of a node's backups; empty when they are as they should be."""
    if not backup:
        return ""
    good, failed = backup["good"], backup["failed"]
    if failed:
        since = f"the last good one is {duration(now - good['at'])} old" if good else "there is no good one yet"
        return f"its last backup failed, {since}: {failed['error']}"
    if good and backup["schedule"] and now - good["at"] > late_hours * 3600:
        return f"its last backup is {duration(now - good['at'])} old; does its timer run?"
    return ""


def _backup(row: Mapping[str, Any]) -> str:
    """How old the last good backup is."""
    good = (row["backup"] or {}).get("good")
    age = f"{duration(time.time() - good['at'])} ago" if good else "none" if row["backup"] else "-"
    return f"{age} (!)" if row["backup_problem"] else age


def format_status(rows: Iterable[Mapping[str, Any]]) -> str:
    """The records as a table, one line each; then why nodes are not ready, what differs, and who was at work last."""
    rows = list(rows)
    with_certificates = any(row["certificate"] for row in rows)
    with_backups = any(row["backup"] for row in rows)
    columns = [*(["CERTIFICATE"] * with_certificates), *(["BACKUP"] * with_backups)]
    lines = [["NODE", "KIND", "VERSION", "UP", "HEALTH", *columns, "DRIFT", "JOBS", "DOING"]]
    for row in rows:
        lines.append(
            [
                row["node"],
                row["kind"],
                row["version"] or "-",
                duration(row["uptime_seconds"]),
                row["health"],
                *([_certificate(row["certificate"])] * with_certificates),
                *([_backup(row)] * with_backups),
                "?" if row["drift"] is None else ", ".join(row["drift"]) or "-",
                _jobs(row["details"]),
                row["doing"],
            ]
        )
    reasons = [
        f"{row['node']}: {reason}" for row in rows for reason in [*row["reasons"], row["backup_problem"]] if reason
    ]
    notes = [*reasons, *_drift_lines(rows), *_last_change_lines(rows)]
    return "\n".join([*table(lines), *([""] if notes else []), *notes])


def _drift_lines(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """What a deploy or an upgrade would change, and of which nodes that cannot be told."""
    unknown: dict[str, list[str]] = {}
    upgrade: dict[tuple[str, str], list[str]] = {}
    deploy = []
    for row in rows:
        old, new = version_of(row["release"]), version_of(row["wanted_release"])
        if row["drift"] is None:
            if row["service"] != "unreachable":
                unknown.setdefault(row["drift_unknown"], []).append(row["node"])
        elif old and new and old != new:
            upgrade.setdefault((old, new), []).append(row["node"])
        elif row["drift"]:
            deploy.append(f"{row['node']} ({', '.join(row['drift'])})")
    if deploy:
        yield f"deploy.yml would change {', '.join(deploy)}; with --check --diff it shows how"
    for (old, new), nodes in upgrade.items():
        problems = list(path_problems(old, new))
        yield from (f"{', '.join(nodes)}: {problem}" for problem in problems)
        if not problems:
            yield f"upgrade.yml would bring {', '.join(nodes)} from {old} to {new}"
    for reason, nodes in unknown.items():
        yield f"not compared with what a deploy would make: {', '.join(nodes)} ({reason})"


def _last_change_lines(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The newest entry of all machines' records."""
    changes = [row["last_change"] for row in rows if row["last_change"]]
    if changes:
        yield last_change_text(min(changes, key=lambda change: change["ago_seconds"]))


def last_change_text(change: Mapping[str, Any]) -> str:
    """One line: what, from which version to which, who, when, and how it ended."""
    before, after = _versions(change["nodes"]), _versions(change["nodes_after"])
    if not change["result"]:
        after = change.get("wanted") or ""
    versions = f"{before} -> {after}" if before and after and before != after else after or before
    what = f"{change['verb']}{f' {versions}' if versions else ''} by {change['who'].partition(' (process')[0]}"
    ago, took = duration(change["ago_seconds"]), duration(change["seconds"])
    if change["result"] == "done":
        changed = f", it changed {', '.join(change['changes'])}" if change["changes"] else ""
        return f"last change: {what} {ago} ago, done in {took}{changed}"
    if change["result"]:
        after_what = f" after {took}" if change["seconds"] is not None else ""
        return f"last change: {what} {ago} ago, {change['result']}{after_what}: {change['message']}"
    if change["holds"] and not is_dead(change["run"]):
        return f"under way: {what}, begun {ago} ago"
    return f"did not end: {what}, begun {ago} ago; it was cut off or failed, so run it again"


def _versions(nodes: Mapping[str, str | None] | None) -> str:
    found = {version_of(release) for release in (nodes or {}).values() if release}
    return ", ".join(sorted(filter(None, found)))
