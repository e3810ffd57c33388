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

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from .environment import syft_version
from .errors import EXIT_TEMPORARY, NodeError
from .settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)

CONTROL_SOCKET = "control.sock"
GRACE_SECONDS = 1.5  # how long running requests may take after a SIGTERM
_CONTROL_MARK = "pygrid_control"


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
    """Folder name of the release this process runs from (<release>/env/bin/python), else None."""
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

    def readiness() -> dict[str, Any]:
        own = probe.ready()
        reasons = own.pop("reasons", [])
        return {"status": "not ready" if reasons else "ready", "reasons": reasons, **common, **own}

    @app.get("/healthz/live")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @app.get("/healthz/ready")
    def ready() -> JSONResponse:
        document = readiness()
        return JSONResponse(document, 503 if document["reasons"] else 200)

    @app.get("/status")
    def status() -> JSONResponse:
        return JSONResponse({**readiness(), **probe.status()})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(probe.registry), media_type=CONTENT_TYPE_LATEST)

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


def _marked(app: ASGIApp) -> ASGIApp:
    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, _CONTROL_MARK: True}, receive, send)

    return marked


class Sockets:
    """The listening sockets of a node. Taken before anything slow, so that a taken port is known at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.tcp = _listen_tcp(settings)
        self.control: socket.socket | None = None
        # A job's forked child would otherwise keep the port when its worker is killed.
        os.register_at_fork(after_in_child=self.close)

    def listen_control(self) -> socket.socket:
        """Create run/control.sock, mode 0600; only when the node is about to answer on it."""
        self.control = _listen_unix(self._settings.run_directory)
        return self.control

    def close(self) -> None:
        """Close this process's copies of the sockets."""
        for listener in (self.tcp, self.control):
            if listener is not None:
                listener.close()


def _listen_tcp(settings: Settings) -> socket.socket:
    host, port = settings.listen.host, settings.listen.port
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise NodeError(f"cannot listen on {host}:{port}: {error.strerror}", EXIT_TEMPORARY) from None
    listener.setblocking(False)
    return listener


def _listen_unix(directory: Path) -> socket.socket:
    """Bind below /proc/self/fd, because the address of a Unix socket is limited to 107 bytes and a home may be deep."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = Path(f"/proc/self/fd/{descriptor}") / CONTROL_SOCKET
        if not path.parent.exists():  # no /proc: the plain path then has to be short enough
            path = directory / CONTROL_SOCKET
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
    except OSError as error:
        raise NodeError(f"cannot listen on {directory / CONTROL_SOCKET}: {error}", EXIT_TEMPORARY) from None
    finally:
        os.close(descriptor)
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """uvicorn on two listeners, which leaves the signals to us: its own re-raise would end a clean stop with -15."""

    def __init__(self, app: FastAPI, sockets: Sockets) -> None:
        options: dict[str, Any] = {
            "lifespan": "off", "ws": "none", "log_config": None, "access_log": False, "server_header": False,
            "proxy_headers": False, "timeout_graceful_shutdown": GRACE_SECONDS,
        }  # fmt: skip
        super().__init__(uvicorn.Config(app, **options))
        self._control_config = uvicorn.Config(_marked(app), **options)
        self._sockets = sockets

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._control_config.load()
        listener = await asyncio.get_running_loop().create_unix_server(
            self._control_protocol, sock=self._sockets.listen_control()
        )
        self.servers.append(listener)

    def _control_protocol(self) -> asyncio.Protocol:
        return self._control_config.http_protocol_class(  # type: ignore[call-arg]
            config=self._control_config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def serve_sockets(self) -> None:
        """Serve in this thread until `should_exit` is set."""
        self.run(sockets=[self._sockets.tcp])


def serve(app: FastAPI, sockets: Sockets, on_signal: Callable[[], None] | None = None) -> None:
    """Serve in the main thread until SIGTERM or SIGINT; returns once running requests ended or GRACE_SECONDS passed.

    Args:
        app: the node's application.
        sockets: its listeners.
        on_signal: called in the signal handler, so it may only set flags.
    """
    server = _Server(app, sockets)

    def stop(_number: int, _frame: object) -> None:
        server.should_exit = True
        if on_signal is not None:
            on_signal()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.serve_sockets()


class ServerThread(threading.Thread):
    """Serves an application in the background, for a node whose main thread does something else (a worker)."""

    def __init__(self, app: FastAPI, sockets: Sockets) -> None:
        super().__init__(name="pygrid-http", daemon=True)
        self._server = _Server(app, sockets)

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
