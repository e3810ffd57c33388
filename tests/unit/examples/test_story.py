# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo says and writes, and how it asks the nodes."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from federated_breast_cancer import story as stories
from federated_breast_cancer.nodes import DomainAddress, attached_workers, describe_node
from federated_breast_cancer.story import DemoError, Round, Story


class Node(BaseHTTPRequestHandler):
    """Answers like a Domain that is up but not ready."""

    answers: ClassVar = {
        "/api/v2/metadata": (200, {"server_type": "datasite", "name": "alice", "syft_version": "0.9.5"}),
        "/healthz/ready": (503, {"status": "not ready", "workers": {"attached": 0, "names": []}}),
    }

    def do_GET(self) -> None:
        status, body = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Node)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_node_is_what_it_says(url: str) -> None:
    assert describe_node("alice", url, "datasite")["syft_version"] == "0.9.5"


@pytest.mark.parametrize(("name", "kind"), [("bob", "datasite"), ("alice", "gateway")])
def test_somebody_else_at_the_url_is_named(url: str, name: str, kind: str) -> None:
    with pytest.raises(DemoError, match=f"expected the {kind} {name} at {url}, found the datasite alice"):
        describe_node(name, url, kind)


def test_nobody_at_the_url_is_one_line() -> None:
    with pytest.raises(DemoError, match=r"alice does not answer at http://127.0.0.1:9 .*Connection refused") as error:
        describe_node("alice", "http://127.0.0.1:9", "datasite")
    assert "\n" not in str(error.value)


def test_workers_are_read_from_a_domain_that_is_not_ready(url: str) -> None:
    assert attached_workers(url) == []
    assert attached_workers("http://127.0.0.1:9") is None


def test_the_owner_is_read_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"
    file.write_text(json.dumps({"root_email": "root@example.org", "root_password": "quite secret"}))
    login = DomainAddress("alice", "http://127.0.0.1:5000", file).login()
    assert login.password == "quite secret"
    assert "quite secret" not in repr(login)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_bad_identity_file_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "identity.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DemoError, match=re.escape(str(file))):
        DomainAddress("alice", "http://127.0.0.1:5000", file).login()


def test_every_line_tells_the_time() -> None:
    out = io.StringIO()
    story = Story(out)
    story.chapter("1. Title")
    story.tell("text")
    story.quote("their\nwords\n")
    assert re.fullmatch(r"\n\[ +0\.\d s\] 1\. Title\n\[ +0\.\d s\] text\n +\| their\n +\| words\n", out.getvalue())


def test_results_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(stories, "_draw", lambda picture, *_: drawn.append(picture))
    rounds = [Round(1, 0.94, {"alice": 0.93, "bob": 0.92}, 2.5)]
    record, picture = stories.write_results(tmp_path, rounds, 0.95, {"difference_points": -1.0})
    assert drawn == [picture]
    written = json.loads(record.read_text())
    assert written["central_accuracy"] == 0.95
    assert written["difference_points"] == -1.0
    assert written["rounds"][0]["accuracy_by_owner"] == {"alice": 0.93, "bob": 0.92}
