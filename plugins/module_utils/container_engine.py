# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine of a host, by its command line: docker and podman understand the same words."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible_collections.openmined.pygrid.plugins.module_utils.control import NodeUnavailable, request
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_json, to_json, write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import communicate

ENGINES = ("docker", "podman")
# The first that know `run --pull never`, by which nothing but what was staged is ever run.
OLDEST = {"docker": (20, 10), "podman": (3, 0)}
CALL_SECONDS = 120
PULL_SECONDS = 3600
# Docker's own name for the registry of an image whose reference names none.
DEFAULT_REGISTRY = "docker.io"
_LEGACY_REGISTRY = "https://index.docker.io/v1/"


@dataclass(frozen=True)
class Engine:
    """One engine. ``program``: path of its command line; ``socket``: URL of its daemon, empty for its own choice."""

    name: str
    program: str
    socket: str = ""

    def command(self, *words: str) -> list[str]:
        """The words that run it, wherever they are run."""
        option = "--host" if self.name == "docker" else "--url"
        return [self.program, *([option, self.socket] if self.socket else []), *words]

    def call(
        self,
        *words: str,
        complaint: str,
        seconds: float = CALL_SECONDS,
        tick: Callable[[], None] = lambda: None,
    ) -> str:
        """Run it and return what it writes; a failure is a PygridError that begins with ``complaint``.

        Args:
            tick: is called every now and then while it runs.
        """
        code, answer, problem = self.ask(*words, seconds=seconds, tick=tick)
        if code != 0:
            raise PygridError(f"{complaint}: {_last_words(problem or answer)}")
        return answer

    def ask(
        self, *words: str, seconds: float = CALL_SECONDS, tick: Callable[[], None] = lambda: None
    ) -> tuple[int, str, str]:
        """Run it and return its exit code, what it writes and what it complains about."""
        try:
            with subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            ) as child:
                try:
                    answer, problem = communicate(child, tick, seconds)
                except subprocess.TimeoutExpired:
                    child.kill()
                    raise PygridError(f"{self.name} {words[0]} has not ended after {seconds:.0f} s") from None
        except OSError as error:
            raise PygridError(f"cannot run {self.program}: {error.strerror}") from error
        return child.returncode, answer, problem

    def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        """What the engine knows of a container or an image; None when it has none of this name.

        Raises:
            PygridError: the engine does not answer.
        """
        if self.name == "docker" and self.socket.startswith("unix://"):
            return self._inspect_by_socket(kind, name)
        code, answer, problem = self.ask(kind, "inspect", name)
        if code != 0:
            if re.search(r"no such|not known|no container|does not exist", problem, re.IGNORECASE):
                return None
            raise PygridError(f"{self.name} does not answer: {_last_words(problem)}")
        found = json.loads(answer)
        return found[0] if found else None

    def _inspect_by_socket(self, kind: str, name: str) -> dict[str, Any] | None:
        """The same in a tenth of the time: who waits for nodes asks several times a second."""
        path = Path(self.socket[len("unix://") :])
        try:
            status, answer = request(path, "GET", f"/{kind}s/{quote(name, safe=':@/')}/json", timeout_seconds=60)
        except NodeUnavailable as error:
            raise PygridError(f"docker does not answer: {error}") from error
        if status not in (200, 404):
            raise PygridError(f"docker does not answer: {answer.get('message') or answer}")
        return answer if status == 200 else None


def find_engine(choice: str, socket: str = "") -> tuple[Engine | None, str]:
    """The engine of this host, and what is wrong with it (empty when nothing is).

    Args:
        choice: auto, docker or podman; auto takes docker where it answers, else podman.
        socket: URL of the daemon; empty for the one that the account's own settings lead to.
    """
    wanted = ENGINES if choice == "auto" else (choice,)
    wrong = []
    for name in wanted:
        program = shutil.which(name)
        if program is None:
            wrong.append(f"{name} is not installed")
            continue
        engine = Engine(name, program, socket or _own_choice(name, program))
        problem = _why_unusable(engine)
        if not problem:
            return engine, ""
        wrong.append(problem)
    return None, f"no container engine can be used ({'; '.join(wrong)})"


def _own_choice(name: str, program: str) -> str:
    """Which daemon the account's own settings lead to: later runs, timers among them, may not have these settings."""
    if name == "podman":
        return os.environ.get("CONTAINER_HOST", "")
    code, answer, _problem = Engine(name, program).ask(
        "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", seconds=20
    )
    return answer.strip() if code == 0 else ""


def _why_unusable(engine: Engine) -> str:
    """One sentence, empty for an engine that answers and is new enough."""
    template = "{{.Server.Version}}" if engine.name == "docker" else "{{.Client.Version}}"
    try:
        code, answer, problem = engine.ask("version", "--format", template, seconds=20)
    except PygridError as error:
        return str(error)
    if code != 0:
        return f"{engine.name} does not answer this account: {_last_words(problem)}"
    numbers = tuple(int(number) for number in re.findall(r"\d+", answer)[:2])
    if numbers < OLDEST[engine.name]:
        oldest = ".".join(map(str, OLDEST[engine.name]))
        return f"{engine.name} is {answer.strip()}, and has to be {oldest} or newer"
    return ""


# -- the engine of a home ----------------------------------------------------------------------------------


def engine_file(home: Home) -> Path:
    """Remembers which engine has the images of a home; whoever finds it there need not look for one."""
    return home.tools / "container-engine.json"


def recorded_engine(home: Home) -> Engine | None:
    """The engine that runs nodes of this home; None where no release ever was an image."""
    document = read_json(engine_file(home))
    return Engine(**document) if document else None


def record_engine(home: Home, engine: Engine) -> None:
    """Remember it.

    Raises:
        PygridError: another one runs nodes here already.
    """
    present = recorded_engine(home)
    if present is not None and (present.name, present.socket) != (engine.name, engine.socket):
        raise PygridError(
            f"{present.name} {present.socket} has the containers of {home.root}, not {engine.name} {engine.socket};"
            " remove the nodes first (remove.yml keeps their data)"
        )
    home.tools.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_if_different(engine_file(home), to_json(asdict(engine)))


# -- images ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """An account of a registry. ``registry``: its host and port."""

    registry: str
    username: str
    password: str


def registry_of(reference: str) -> str:
    """Host and port of the registry that a reference leads to."""
    first, separator, _rest = reference.partition("/")
    return first if separator and (re.search(r"[.:]", first) or first == "localhost") else DEFAULT_REGISTRY


def pull(engine: Engine, reference: str, account: Account | None, tick: Callable[[], None] = lambda: None) -> None:
    """Bring an image to this host.

    The account stands in a file of this call's own, never in an argument list and never in that of the host's account.
    """
    complaint = f"cannot pull {reference}; is the registry reachable from this host, and may the account read it"
    with _login(engine, account) as (before, after):
        engine_words = [*before, "pull", *after, "--quiet", reference]
        engine.call(*engine_words, complaint=complaint, seconds=PULL_SECONDS, tick=tick)


@contextlib.contextmanager
def _login(engine: Engine, account: Account | None) -> Iterator[tuple[list[str], list[str]]]:
    """Words before and after the engine's command that let it use the account."""
    if account is None:
        yield [], []
        return
    server = _LEGACY_REGISTRY if engine.name == "docker" and account.registry == DEFAULT_REGISTRY else account.registry
    secret = base64.b64encode(f"{account.username}:{account.password}".encode()).decode()
    with tempfile.TemporaryDirectory(prefix="pygrid-registry-") as folder:  # of mode 0700
        file = Path(folder) / "config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps({"auths": {server: {"auth": secret}}}), encoding="utf-8")
        yield (["--config", folder], []) if engine.name == "docker" else ([], ["--authfile", str(file)])


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (" ".join(lines[-3:]) if lines else "no reason given")[-500:]
