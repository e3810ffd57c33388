# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret in a log line (fault 8), and every record on one line."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pygrid_node.guards import may_change_routes
from pygrid_node.logs import (
    JournalFormatter,
    LineFormatter,
    Redactor,
    UpstreamFilter,
    database_secrets,
    is_journal,
)

REDACT = Redactor(["0123456789abcdef", "my secret (1)"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key 0123456789abcdef here", "key *** here"),
        ("my secret (1)", "***"),
        ("postgresql://u:p@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("sqlite:////n/data/node.db", "sqlite:////n/data/node.db"),
        ("{'email': 'a@b.c', 'password': 'x1', 'name': 'n'}", "{'email': 'a@b.c', 'password': ***, 'name': 'n'}"),
        ("password=hello, next=1", "password=***, next=1"),
        ('"signing_key": "abcd"', '"signing_key": ***'),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_redactor(text: str, expected: str) -> None:
    assert REDACT(text) == expected


def test_database_secrets_also_decoded() -> None:
    assert database_secrets("postgresql://u:a%40b-word@h:5432/d") == ["a%40b-word", "a@b-word"]
    assert database_secrets("postgresql://u:a%40b%20w@h:5432/d") == ["a%40b%20w", "a@b w", "a%40b w"]
    assert database_secrets("sqlite:////n.db") == []


def record(name: str, message: str, **more: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "f", 1, message, (), more.get("exc_info"))


def test_upstream_records_that_leak() -> None:
    leaky = UpstreamFilter()
    assert not leaky.filter(record("syft.server.server", "API Call: SyftAPICall(kwargs={'password': 'x'})"))
    assert not leaky.filter(record("syft.server.server", "Hash of the signing key 'abcde...'"))
    form = record("syft.server.routes", "Register Error: no. user={'password': 'x', 'institution': 'y'}")
    assert leaky.filter(form)
    assert form.getMessage() == "Register Error (the form is not logged)"
    assert leaky.filter(record("syft.server.server", "something else"))


def test_one_line_with_time_node_and_level() -> None:
    error = ValueError("password=hello")
    made = record("x", "failed\nbadly", exc_info=(ValueError, error, None))
    line = LineFormatter("alice", REDACT).format(made)
    assert "\n" not in line
    assert "hello" not in line
    assert line.split()[1:4] == ["alice", "ERROR", "x:"]
    assert line.endswith("ValueError: password=***")


@pytest.mark.parametrize(
    ("level", "priority"), [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3), ("CRITICAL", 2)]
)
def test_the_journal_gets_the_level_as_it_reads_it_and_nothing_it_knows(level: str, priority: int) -> None:
    made = logging.LogRecord("syft.server", getattr(logging, level), "f", 1, "text\nof 0123456789abcdef", (), None)
    assert JournalFormatter(REDACT).format(made) == f"<{priority}>syft.server: text | of ***"


def test_only_the_journals_own_stream_is_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not is_journal(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(stream.fileno())
        assert not is_journal(other.fileno())


@pytest.mark.parametrize(
    ("level", "caller", "entry", "allowed"),
    [(2, "k", "k2", False), (2, "k", None, False), (2, "k", "k", True), (32, "k", None, True), (128, "k", "k2", True)],
)
def test_who_may_change_routes(level: int, caller: str, entry: str | None, allowed: bool) -> None:
    """Levels are those of upstream's ServiceRole: guest 1, data scientist 2, data owner 32, admin 128."""
    assert may_change_routes(level, 32, caller, entry) is allowed
