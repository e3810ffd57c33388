# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upstream's servers with the parts replaced that do not fit nodes with workers of their own."""

from __future__ import annotations

import logging
import time
from typing import Any

from syft.server.datasite import Datasite
from syft.server.gateway import Gateway
from syft.types.errors import SyftException

from .guards import hide_parameters

logger = logging.getLogger(__name__)


class _NodeServer:
    """What networks and domains share; placed before upstream's class."""

    def init_stores(self, db_config: Any) -> Any:
        """Open the database, and keep the values of failed statements out of errors and logs."""
        database = super().init_stores(db_config=db_config)  # type: ignore[misc]
        hide_parameters(database.engine)
        return database

    def start_in_memory_workers(self, address: str, message_handler: Any) -> None:
        """Never adopt registered workers, which are processes of their own, as threads of this process (fault 1)."""

    def add_consumer_for_service(self, *_arguments: Any, **_options: Any) -> None:
        """Refuse a worker inside this process: it would run users' code with the node's key, and not survive a restart.

        Raises:
            SyftException: always; `worker_pool.launch` and `add_workers` report it to their caller.
        """
        raise SyftException(
            public_message="workers are nodes of their own here: add one to the inventory and deploy it"
        )

    def run_peer_health_checks(self, context: Any) -> None:
        """Leave the checks to peers.PeerMonitor (fault 6)."""

    def email_notification_dispatcher(self) -> None:
        """Keep upstream's loop alive: it ends for good on its first error."""
        while True:
            try:
                super().email_notification_dispatcher()  # type: ignore[misc]
            except Exception as error:
                logger.warning("email notifications: %s: %s", type(error).__name__, error)
                time.sleep(60)

    def apply_settings(self, name: str, auto_approve: bool) -> None:
        """Make the stored settings follow the node's; upstream reads its arguments on the first start only."""
        stash = self.services.settings.stash  # type: ignore[attr-defined]
        stored = stash.get_all(self.verify_key).unwrap()[0]  # type: ignore[attr-defined]
        if (stored.name, stored.association_request_auto_approval) != (name, auto_approve):
            stored.name, stored.association_request_auto_approval = name, auto_approve
            stash.update(self.verify_key, stored).unwrap()  # type: ignore[attr-defined]
            self._settings = None


class NetworkServer(_NodeServer, Gateway):
    """A network."""


class DomainServer(_NodeServer, Datasite):
    """A domain, whose workers are processes of their own."""

    def init_queue_manager(self, queue_config: Any) -> None:
        """Take back what the former process had taken from the queue but handed to no worker, then start the queue."""
        if not self.is_subprocess:
            from . import queue_producer

            self._match_pool_sizes()
            number = queue_producer.requeue_undelivered(self)
            if number:
                logger.warning("%d jobs that reached no worker wait again", number)
        super().init_queue_manager(queue_config)

    def _match_pool_sizes(self) -> None:
        # create_default_worker_pool() would start threads for max_count - len(worker_list) workers.
        for pool in self.pool_stash.get_all(self.verify_key).unwrap():
            if pool.max_count != len(pool.worker_list):
                pool.max_count = len(pool.worker_list)
                self.pool_stash.update(self.verify_key, pool).unwrap()
