# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a network or a domain: upstream's Gateway or Datasite, with the faults of a stock server cured."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import Any

from . import blobs, database, environment, large_calls, logs, tls
from .blob_store import Store
from .errors import EXIT_TEMPORARY, NodeError
from .http import Probe, grace_seconds, make_app, serve
from .identity import Identity
from .owner import write_owner
from .service_manager import ServiceManager
from .settings import Settings
from .sockets import Sockets
from .trial import Trial

logger = logging.getLogger(__name__)

# Upstream's queue threads may take seconds to notice a stop; nothing is lost by not waiting, as all state is on disk.
STOP_SECONDS = 1.0
# How long a call of the API waits for a PostgreSQL that is being restarted, instead of failing.
PATIENCE_SECONDS = 15.0


def run(settings: Settings, identity: Identity) -> int:
    """Run the node until SIGTERM or SIGINT.

    Raises:
        NodeError: the port is taken, the database does not answer, or its data belongs to somebody else.
    """
    started = time.monotonic()
    manager = ServiceManager(settings.notify, parts=("http",))
    sockets = Sockets(settings, manager.passed)
    logs.configure(
        settings.name, settings.log_level, [*identity.secrets(), *logs.database_secrets(settings.database_url)]
    )
    logger.info("starting %s %s (%s)", settings.kind, settings.name, identity.uid)
    manager.status("starting")
    settings.blob_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = blobs.make_store(settings, identity)
    blobs.check(store)
    trial = Trial(settings.trial_file)
    with environment.without_collector():
        server = _build(settings, identity, store, trial)
    logs.own_handlers()
    database.be_patient(PATIENCE_SECONDS)
    environment.forget_secrets()
    write_owner(settings, identity, environment.syft_version())

    from .association import Associations
    from .control import control_routes
    from .inspection import Inspection
    from .members import member_routes
    from .metrics import make_registry, server_metrics
    from .peer_door import peer_routes
    from .peers import PeerMonitor
    from .probes import Probes

    monitor, probes = PeerMonitor(server), Probes(server)
    if settings.kind == "domain":
        database.note_version(server.db.engine, environment.syft_version())
        probes.forget()  # those of a former process that was killed
    inspection = Inspection(server, settings, monitor, trial)
    registry = make_registry(settings, lambda: server_metrics(inspection, settings))
    app = make_app(
        settings,
        identity.uid,
        Probe(ready=inspection.ready, status=inspection.status, registry=registry),
        control_routes(settings, Associations(server, monitor), trial, probes),
    )
    channel = blobs.channel_routes(settings, identity, store)
    if channel is not None:
        app.include_router(channel)
    app.include_router(peer_routes(server))
    if settings.observer_digest is not None:
        app.include_router(member_routes(settings.observer_digest, inspection.members))
    _add_upstream_routes(app, server)
    monitor.start()
    place = f"{settings.listen.host}:{settings.listen.port}"
    logger.info("ready to serve on %s after %.1f s", place, time.monotonic() - started)
    manager.status(f"serving on {place}")

    def stopping() -> None:
        inspection.stopping = True
        monitor.stop()
        _exit_at_the_latest(grace_seconds(settings) + STOP_SECONDS)

    serve(app, settings, sockets, manager, stopping, trial)
    _stop(server)
    logger.info("stopped")
    logs.flush()
    # Threads of upstream would hold the interpreter's exit; nothing of theirs is worth waiting for.
    os._exit(0)


def _build(settings: Settings, identity: Identity, store: Store, trial: Trial) -> Any:
    """Import syft, close its holes, and build the server.

    Raises:
        NodeError: one line for what upstream reports as a stack trace.
    """
    from syft.abstract_server import ServerType
    from syft.service.queue.zmq_client import ZMQClientConfig, ZMQQueueConfig
    from syft.store.blob_storage.on_disk import OnDiskBlobStorageClientConfig, OnDiskBlobStorageConfig

    from .guards import guard_routes
    from .node_server import DomainServer, NetworkServer

    logs.own_handlers()
    # One connection is health's.
    database.tune(settings.database_connections and settings.database_connections - 1)
    guard_routes()
    large_calls.install()
    blobs.install(store)
    tls.keep_ports()
    if settings.client_certificate_file is not None:
        tls.show_client_certificate(settings.client_certificate_file)
    network = settings.kind == "network"
    if not network:
        from . import queue_producer

        queue_producer.install(settings, identity, trial)
    server_class = NetworkServer if network else DomainServer
    with _one_line_reasons(settings):
        server = server_class(
            name=settings.name,
            server_type=ServerType.GATEWAY if network else ServerType.DATASITE,
            root_username="Root",
            db_config=database.configuration(settings.database_url),
            blob_storage_config=OnDiskBlobStorageConfig(
                client_config=OnDiskBlobStorageClientConfig(base_directory=settings.blob_directory), min_blob_size=1
            ),
            queue_config=ZMQQueueConfig(
                client_config=ZMQClientConfig(
                    create_producer=not network,
                    queue_port=settings.queue.port if settings.queue else None,
                    n_consumers=0,
                )
            ),
            in_memory_workers=True,  # False makes the API ask Docker for the state of each worker
            association_request_auto_approval=settings.auto_approve_domains,
            background_tasks=True,
            log_level=settings.log_level,
        )
    server.apply_settings(settings.name, settings.auto_approve_domains)
    return server


@contextlib.contextmanager
def _one_line_reasons(settings: Settings) -> Any:
    from sqlalchemy.exc import OperationalError
    from syft.types.errors import SyftException

    place = settings.sqlite_file or "PostgreSQL"
    try:
        yield
    except OperationalError as error:
        raise NodeError(f"database {place}: {database.reason(error)}", EXIT_TEMPORARY) from None
    except SyftException as error:
        logger.debug("the server could not be built", exc_info=True)
        raise NodeError(f"database {place}: not usable with this identity: {error.public_message}") from None
    except OSError as error:
        raise NodeError(f"cannot start: {error}", EXIT_TEMPORARY) from None


def _add_upstream_routes(app: Any, server: Any) -> None:
    from syft.server.routes import make_routes
    from syft.util.telemetry import instrument_fastapi

    app.include_router(make_routes(worker=server), prefix="/api/v2")
    instrument_fastapi(app)


def _stop(server: Any) -> None:
    """Close the queue, in a thread, since upstream joins its own threads for up to five seconds each."""
    thread = threading.Thread(target=server.stop, daemon=True)
    thread.start()
    thread.join(STOP_SECONDS)


def _exit_at_the_latest(seconds: float) -> None:
    """A request that never ends must not hold a stop."""

    def leave() -> None:
        logger.warning("stopped with requests still running")
        logs.flush()
        os._exit(0)

    timer = threading.Timer(seconds + 0.5, leave)
    timer.daemon = True
    timer.start()
