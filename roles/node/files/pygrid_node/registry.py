# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registering a worker in its domain's database, under a lock.

Cures fault 5: upstream registers only workers that it started itself in Kubernetes or Docker, and reads, changes and
writes a pool's row without a lock, so that two workers that start together lose one of them.
"""

from __future__ import annotations

from typing import Any

from .database import DatabaseLock, configuration
from .settings import Settings


def open_database(settings: Settings, uid: str, verify_key: str) -> Any:
    """A DBManager of the domain's database that creates nothing in it.

    Args:
        settings: whose `database_url` is used.
        uid: the domain's uid (hex).
        verify_key: the domain's public key (hex).
    """
    from syft.server.credentials import SyftVerifyKey
    from syft.store.db.postgres import PostgresDBConfig, PostgresDBManager
    from syft.store.db.sqlite import SQLiteDBManager
    from syft.types.uid import UID

    config = configuration(settings.database_url)
    manager = PostgresDBManager if isinstance(config, PostgresDBConfig) else SQLiteDBManager
    return manager(config=config, server_uid=UID(uid), root_verify_key=SyftVerifyKey.from_string(verify_key))


class Registry:
    """The rows of workers and pools in a domain's database.

    Args:
        database: upstream's DBManager, the domain's own or one from `open_database`.
    """

    def __init__(self, database: Any) -> None:
        from syft.service.user.user_stash import UserStash
        from syft.service.worker.worker_image_stash import SyftWorkerImageStash
        from syft.service.worker.worker_pool_stash import SyftWorkerPoolStash
        from syft.service.worker.worker_stash import WorkerStash

        self._verify_key = database.root_verify_key
        self._server_uid = database.server_uid
        UserStash(store=database)  # the others look up the role of the caller in its table
        self._workers = WorkerStash(store=database)
        self._pools = SyftWorkerPoolStash(store=database)
        self._images = SyftWorkerImageStash(store=database)
        self.lock = DatabaseLock(database.engine)

    def is_ready(self) -> bool:
        """True once the domain has made its default pool, the last thing before it takes jobs."""
        return bool(self._images.get_all(self._verify_key).unwrap()) and bool(
            self._pools.get_all(self._verify_key).unwrap()
        )

    def register(self, name: str, uid: Any, pool_name: str) -> None:
        """Make the worker's row and its entry in the pool right, whatever is there now; creates the pool if needed."""
        with self.lock():
            self._leave_pools(uid, except_pool=pool_name)
            worker = self._put_worker(name, uid, pool_name)
            self._join_pool(worker, pool_name)

    def deregister(self, uid: Any) -> None:
        """Remove the worker's row and its entry in every pool; harmless when they are gone."""
        with self.lock():
            self._leave_pools(uid)
            if self.name_of(uid) is not None:
                self._workers.delete_by_uid(self._verify_key, uid).unwrap()

    def name_of(self, uid: Any) -> str | None:
        """The name of a registered worker, None when there is no such row."""
        worker = self._worker(uid)
        return None if worker is None else worker.name

    def set_state(self, uid: Any, state: str) -> None:
        """Write what upstream's API shows as a worker's consumer state: Idle, Consuming or Detached."""
        from syft.service.worker.worker_pool import ConsumerState

        worker = self._worker(uid)
        if worker is not None and worker.consumer_state != ConsumerState(state):
            worker.consumer_state = ConsumerState(state)
            self._workers.update(self._verify_key, worker).unwrap()

    def workers(self) -> list[Any]:
        """All rows of workers."""
        return self._workers.get_all(self._verify_key).unwrap()

    def pools(self) -> list[Any]:
        """All rows of pools."""
        return self._pools.get_all(self._verify_key).unwrap()

    def _worker(self, uid: Any) -> Any:
        from syft.store.document_store_errors import NotFoundException

        try:
            return self._workers.get_by_uid(self._verify_key, uid).unwrap()
        except NotFoundException:
            return None

    def _put_worker(self, name: str, uid: Any, pool_name: str) -> Any:
        from syft.service.worker.worker_pool import SyftWorker, WorkerHealth, WorkerStatus

        for other in self.workers():
            if other.name == name and other.id != uid:  # the same worker with a former identity: names are unique
                self._leave_pools(other.id)
                self._workers.delete_by_uid(self._verify_key, other.id).unwrap()
        values = {
            "name": name,
            "worker_pool_name": pool_name,
            "status": WorkerStatus.RUNNING,
            "healthcheck": WorkerHealth.HEALTHY,
            "to_be_deleted": False,
        }
        worker = self._worker(uid)
        if worker is None:
            return self._workers.set(self._verify_key, SyftWorker(id=uid, **values)).unwrap()
        for key, value in values.items():
            setattr(worker, key, value)
        return self._workers.update(self._verify_key, worker).unwrap()

    def _join_pool(self, worker: Any, pool_name: str) -> None:
        from syft.service.worker.worker_service import WorkerService
        from syft.store.linked_obj import LinkedObject

        pool = self._pool(pool_name)
        if worker.id not in [link.object_uid for link in pool.worker_list]:
            pool.worker_list.append(
                LinkedObject.from_obj(worker, service_type=WorkerService, server_uid=self._server_uid)
            )
        pool.max_count = len(pool.worker_list)
        self._pools.update(self._verify_key, pool).unwrap()

    def _pool(self, name: str) -> Any:
        from syft.service.worker.worker_pool import WorkerPool
        from syft.store.document_store_errors import NotFoundException

        try:
            return self._pools.get_by_name(self._verify_key, name).unwrap()
        except NotFoundException:
            image = self._images.get_all(self._verify_key).unwrap()[0]  # the domain makes one at its first start
            pool = WorkerPool(
                name=name,
                max_count=0,
                image_id=image.id,
                worker_list=[],
                syft_server_location=self._server_uid,
                syft_client_verify_key=self._verify_key,
            )
            return self._pools.set(self._verify_key, pool).unwrap()

    def _leave_pools(self, uid: Any, except_pool: str | None = None) -> None:
        for pool in self.pools():
            left = [link for link in pool.worker_list if link.object_uid != uid]
            if pool.name != except_pool and len(left) != len(pool.worker_list):
                pool.worker_list, pool.max_count = left, len(left)
                self._pools.update(self._verify_key, pool).unwrap()
