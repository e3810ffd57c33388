# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads of backups: what was saved, what a restore is about to do, and what came back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.openmined.pygrid.plugins.plugin_utils.report import duration, table

Grid = Mapping[str, Any]
Variables = Mapping[str, Mapping[str, Any]]
# Kinds of object that people ask for first: table of syft -> word.
COUNTED = {"User": "users", "Dataset": "datasets", "JobItem": "jobs"}


def megabytes(size: float) -> str:
    """``12.3 MB``; below a tenth the kilobytes."""
    return f"{size / 1_000_000:.1f} MB" if size >= 100_000 else f"{size / 1000:.0f} kB"


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def backup_summary(grid: Grid, variables: Variables) -> str:
    """What was saved of each node and where, and what to do next."""
    rows = [["NODE", "BACKUP", "SIZE", "NEW", "TOOK", "VERIFIED", "KEPT", "IN"]]
    failed = []
    for host, answer in _answers(grid, variables, "__backup"):
        node, made = grid["nodes"][host], answer.get("backup")
        if made is None:
            failed.append(f"{node['name']}: no backup was made: {answer.get('msg', 'its host cannot be reached')}")
            continue
        rows.append(
            [
                node["name"],
                made["id"],
                megabytes(made["bytes"]),
                megabytes(made["added_bytes"]),
                duration(made["seconds"]),
                f"{made['read_back_files']} files, {megabytes(made['read_back_bytes'])}",
                str(made["kept"]),
                node["backup"],
            ]
        )
    lines = [*(table(rows) if len(rows) > 1 else []), *([""] if failed else []), *failed, ""]
    lines.append("VERIFIED: what is new was read back from the repository and is what was saved; the rest is there.")
    files = sorted({answer["password_file"] for _host, answer in _answers(grid, variables, "__backup")} - {""})
    if files:
        lines += [
            "",
            f"The password of all backups is in {files[0]}: keep a copy of it somewhere else, since without it nobody"
            " can restore anything.",
        ]
    return "\n".join([*lines, "", "What next: try a restore before you need one (docs/backup.md)."])


def restore_plan(grid: Grid, variables: Variables) -> str:
    """What a restore is about to do."""
    lines = ["What will be restored:"]
    for host, answer in _answers(grid, variables, "__restore"):
        found = answer.get("found")
        if found is None:
            continue
        node = grid["nodes"][host]
        if not found["needed"]:
            lines.append(f"  {node['name']}: nothing, it is still itself; it stops meanwhile")
            continue
        lines.append(f"  {node['name']}: backup {found['id']} of {moment(found['taken_at'])}, {_content(node, found)}")
        if found["loss"]:
            lines.append(f"    instead of what is here now, which is kept as a snapshot: {found['loss']}")
        others = [f"{known['id']} ({known['time'].replace('T', ' ')})" for known in reversed(found["known"])]
        lines.append(f"    there are: {', '.join(others)}")
    return "\n".join(lines)


def restore_left_out(grid: Grid, variables: Variables, hosts: Iterable[str]) -> list[str]:
    """Why a restore of these nodes alone would not do: others, left out by --limit, share a database with them.

    A Domain's Workers use its rows, so they stop while those are replaced. PostgreSQL of a lost host is made
    anew, and lets in the nodes of this run only.
    """
    here = set(hosts)
    reasons = {}
    for host, node in grid["nodes"].items():
        if host in here:
            continue
        on = (node["database"] or {}).get("on")
        if node["domain"] in here:
            reasons[host] = f"{node['name']} is a Worker of {node['domain']} and has to stop meanwhile"
        elif on in here and not variables[on]["__node_state"]["node"]["release"]:
            reasons[host] = f"{node['name']} has its rows in the database on {on}, which has to be made anew"
    together = ",".join([*(host for host in grid["nodes"] if host in here or host in reasons)])
    return [f"{reason}; run with --limit {together}" for reason in reasons.values()]


def restore_summary(grid: Grid, variables: Variables) -> str:
    """What came back."""
    lines = ["Restored:"]
    for host, answer in _answers(grid, variables, "__restore"):
        found = answer.get("found")
        if found is None or not found["needed"]:
            continue
        node = grid["nodes"][host]
        lines.append(f"  {node['name']}: as it was at {moment(found['taken_at'])} (backup {found['id']})")
        lines.append(f"    {_content(node, found)}")
        if found["loss"] and node["kind"] != "worker":
            lines.append("    What was here before is kept as its snapshot before-restore-...: docs/backup.md.")
    return "\n".join([*lines, "", "What next: playbooks/status.yml; a backup of what it is now: playbooks/backup.yml."])


def _answers(grid: Grid, variables: Variables, name: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """What each node of this run has answered, in the order of the grid."""
    for host in grid["nodes"]:
        answer = (variables.get(host) or {}).get(name)
        if answer:
            yield host, {"password_file": "", **answer}


def _content(node: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if node["kind"] == "worker":
        return "its identity"
    counted = [f"{found['rows'].get(table, 0)} {word}" for table, word in COUNTED.items()]
    return (
        f"{', '.join(counted)}, {megabytes(found['bytes'])} of syft {found['syft_version']}, saved on {found['host']}"
    )
