# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP side that every node has: health, status and metrics over TCP and over the node's control socket.

One uvicorn serves both. Administration (/control/…) answers on the Unix socket alone, whose mode 0600 is its
authentication; over TCP it is 403.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from . import blob_gate, members, peer_door
from .environment import syft_version
from .errors import NodeError
from .service_manager import ServiceManager
from .settings import Settings
from .sockets import Sockets
from .trial import Trial

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 1.5  # how long running requests may take after a SIGTERM
_PATIENT_GRACE_SECONDS = 20.0  # the same where systemd waits for a stop, and holds the port meanwhile
_SETTLE_SECONDS = 0.5  # how long connected clients have, after a SIGTERM, for a request that is on its way
_PULSE_SECONDS = 0.5
_DOOR_BACKLOG = 256
_TRIAL_SECONDS = 0.05  # how often is looked whether a trial is over
_HEALTH_THREADS = 4
_CONTROL_MARK = "pygrid_control"
#: Connections to the database that a server uses beside its API: the queue's lock and its holder, health, peers,
#: mail, and one to spare.
_OWN_CONNECTIONS = 6


@dataclass
class Probe:
    """What a kind of node adds to the common answers. All three run in a thread and must be quick.

    Attributes:
        ready: the kind's part of /healthz/ready; key "reasons" lists why it is not ready, empty when it is.
        status: the kind's additional part of /status.
        registry: what /metrics shows.
    """

    ready: Callable[[], dict[str, Any]]
    status: Callable[[], dict[str, Any]] = field(default=dict)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)


def release_name() -> str | None:
    """Folder name of the release this process runs from (<release>/env/bin/python), else None.

    An image cannot know it, because the name is made from the image's own digest: whoever runs the container says it.
    """
    if "PYGRID_RELEASE" in os.environ:
        return os.environ["PYGRID_RELEASE"]
    environment = Path(sys.prefix).resolve()
    return environment.parent.name if environment.name == "env" else None


def make_app(settings: Settings, uid: str, probe: Probe, control: APIRouter | None = None) -> FastAPI:
    """The application of a node without the upstream API.

    Args:
        settings: the node's settings.
        uid: the node's own uid.
        probe: the answers of this kind of node.
        control: routes below /control, reachable over the control socket only.
    """
    common = {
        "kind": settings.kind,
        "name": settings.name,
        "uid": uid,
        "syft_version": syft_version(),
        "release": release_name(),
        "settings_digest": settings.digest,
        "pid": os.getpid(),
        "started_at": time.time(),
    }
    app = FastAPI(title=settings.name, docs_url=None, redoc_url=None, openapi_url=None)

    threads: list[anyio.CapacityLimiter] = []

    async def apart(function: Callable[[], Any]) -> Any:
        """Run in a thread of our own: those of the API may all wait for a database that is away."""
        if not threads:
            threads.append(anyio.CapacityLimiter(_HEALTH_THREADS))  # cannot be made outside of an event loop
        return await anyio.to_thread.run_sync(function, limiter=threads[0])

    def readiness() -> dict[str, Any]:
        own = probe.ready()
        reasons = own.pop("reasons", [])
        return {"status": "not ready" if reasons else "ready", "reasons": reasons, **common, **own}

    @app.get("/healthz/live")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @app.get("/healthz/ready")
    async def ready() -> JSONResponse:
        document = await apart(readiness)
        return JSONResponse(document, 503 if document["reasons"] else 200)

    @app.get("/status")
    async def status() -> JSONResponse:
        return JSONResponse(await apart(lambda: {**readiness(), **probe.status()}))

    @app.get("/metrics")
    async def metrics() -> Response:
        page = await apart(lambda: generate_latest(probe.registry))
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    if control is not None:
        app.include_router(control, prefix="/control")

    @app.exception_handler(NodeError)
    async def refused(_request: Any, error: NodeError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    if control is not None:

        @app.exception_handler(Exception)
        async def failed(_request: Any, error: Exception) -> JSONResponse:
            # The stack trace is in the log; administration also wants a reason, and users get none of it.
            administration = _request.scope.get(_CONTROL_MARK)
            text = f"{type(error).__name__}: {error}" if administration else "internal error"
            return JSONResponse({"error": text}, 500)

    app.add_middleware(_ControlOnly)
    return app


class _ControlOnly:
    """Refuses /control/… unless the request came over the control socket."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get(_CONTROL_MARK):
            path = scope["path"]
            if path == "/control" or path.startswith("/control/"):
                response = JSONResponse({"error": "administration answers on the control socket only"}, 403)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _door_only(app: ASGIApp) -> ASGIApp:
    """What is open to the nodes of the grid while nobody else is let in."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_open = path in (peer_door.PATH, members.PATH) or path.startswith(f"{blob_gate.PATH}/")
        if scope["type"] == "http" and not is_open:
            await JSONResponse({"error": "there is nothing for people here"}, 404)(scope, receive, send)
            return
        await app(scope, receive, send)

    return door


def _marked(app: ASGIApp) -> ASGIApp:
    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, _CONTROL_MARK: True}, receive, send)

    return marked


class _Server(uvicorn.Server):
    """uvicorn on two listeners, which leaves the signals to us: its own re-raise would end a clean stop with -15."""

    def __init__(
        self, app: FastAPI, settings: Settings, sockets: Sockets, manager: ServiceManager, trial: Trial | None = None
    ) -> None:
        options: dict[str, Any] = {
            "lifespan": "off", "ws": "none", "log_config": None, "access_log": False, "server_header": False,
            "proxy_headers": False, "timeout_graceful_shutdown": grace_seconds(settings),
        }  # fmt: skip
        super().__init__(uvicorn.Config(self._last_answers(app), **options))
        self._control_config = uvicorn.Config(self._last_answers(_marked(app)), **options)
        self._door_config = uvicorn.Config(self._last_answers(_door_only(app)), **options)
        self._sockets, self._manager, self._threads = sockets, manager, api_threads(settings)
        self._trial = trial or Trial(None)
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._threads is not None:
            anyio.to_thread.current_default_thread_limiter().total_tokens = self._threads
        on_trial = self._trial.on
        await super().startup([] if on_trial else sockets)
        self._control_config.load()
        self._door_config.load()
        loop = asyncio.get_running_loop()
        if on_trial:
            self._tasks.append(loop.create_task(self._let_in_after_the_trial()))
        control = functools.partial(self._protocol, self._control_config)
        self.servers.append(await loop.create_unix_server(control, sock=self._sockets.listen_control()))
        if self._sockets.door is not None:
            door = functools.partial(self._protocol, self._door_config)
            self.servers.append(await loop.create_server(door, sock=self._sockets.door, backlog=_DOOR_BACKLOG))
        self._tasks.append(loop.create_task(self._beat()))
        self._manager.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, and close no connection that a request may be coming over.

        uvicorn closes idle connections at once; a client whose request is on its way at that moment gets a reset. Here
        each connection ends with its next answer, which says so (`_last_answers`), or after a while of silence.
        """
        for server in self.servers:
            server.close()
        deadline = time.monotonic() + _SETTLE_SECONDS
        while self.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _beat(self) -> None:
        """Only a loop that turns gets here again."""
        while True:
            self._manager.alive("http")
            await asyncio.sleep(_PULSE_SECONDS)

    def _last_answers(self, app: ASGIApp) -> ASGIApp:
        """Tell clients of a node that is stopping to come again over a new connection, which its successor accepts."""

        async def answering(scope: Scope, receive: Receive, send: Send) -> None:
            async def last(message: Any) -> None:
                if self.should_exit and message["type"] == "http.response.start":
                    message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
                await send(message)

            await app(scope, receive, last)

        return answering

    async def _let_in_after_the_trial(self) -> None:
        while self._trial.on:
            await asyncio.sleep(_TRIAL_SECONDS)
        loop = asyncio.get_running_loop()
        public = functools.partial(self._protocol, self.config)
        self.servers.append(await loop.create_server(public, sock=self._sockets.tcp, backlog=self.config.backlog))

    def _protocol(self, config: uvicorn.Config) -> asyncio.Protocol:
        return config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def serve_sockets(self) -> None:
        """Serve in this thread until `should_exit` is set."""
        self.run(sockets=[self._sockets.tcp])


def grace_seconds(settings: Settings) -> float:
    """How long requests may go on after a SIGTERM."""
    return _PATIENT_GRACE_SECONDS if settings.notify else _GRACE_SECONDS


def api_threads(settings: Settings) -> int | None:
    """How many calls of the API may run at once, None for the web server's own limit of 40.

    Some of upstream's calls hold two connections to the database: more calls would wait for each other's.
    """
    most = settings.database_connections
    return None if most is None else max(2, min(40, (most - _OWN_CONNECTIONS) // 2))


def serve(
    app: FastAPI,
    settings: Settings,
    sockets: Sockets,
    manager: ServiceManager,
    on_signal: Callable[[], None] | None = None,
    trial: Trial | None = None,
) -> None:
    """Serve in the main thread until SIGTERM or SIGINT; returns once running requests ended or their time is up.

    Args:
        app: the node's application.
        settings: the node's settings.
        sockets: its listeners.
        manager: is told when the node answers, that it goes on, and that it stops.
        on_signal: called in the signal handler, so it may only set flags.
        trial: while it is on, nobody is let in over TCP.
    """
    server = _Server(app, settings, sockets, manager, trial)

    def stop(_number: int, _frame: object) -> None:
        server.should_exit = True
        manager.stopping()
        if on_signal is not None:
            on_signal()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.serve_sockets()


class ServerThread(threading.Thread):
    """Serves an application in the background, for a node whose main thread does something else (a worker)."""

    def __init__(self, app: FastAPI, settings: Settings, sockets: Sockets, manager: ServiceManager) -> None:
        super().__init__(name="pygrid-http", daemon=True)
        self._server = _Server(app, settings, sockets, manager)

    def run(self) -> None:
        """Serve until `stop`; a server that dies is logged, for nobody reads a thread's exception."""
        try:
            self._server.serve_sockets()
        except Exception:
            logger.exception("the HTTP server died")

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Stop serving; waits at most `timeout_seconds`."""
        self._server.should_exit = True
        self.join(timeout_seconds)
