"""The connector behind ``daos://``: the objects of one cluster in a DAOS namespace."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from daskps.exceptions import StoreError
from daskps.serialize.frames import Frame, frame_nbytes
from daskps.stores import leases
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.daos.namespace import DaosKey, Namespace

logger = logging.getLogger(__name__)


class DaosConnector(StoreConnector[DaosKey]):
    """A connector over a namespace in a DAOS container.

    Parameters
    ----------
    pool, container
        Labels or UUIDs of what is there already.
    namespace
        Made if it is not there.
    cluster
        Marks the cluster's objects: 16 hexadecimal digits.
    lease
        For how long (seconds) others are to take the cluster for alive when this process,
        which owns it, does not renew that; when the connector is closed, the cluster's
        objects are deleted. None: this process does not own them, nor do those that make
        a connector from :meth:`config`.

    Notes
    -----
    Thread-safe, and safe across processes, which each make their own from :meth:`config`.
    Pickling does the same: handles of DAOS are never copied.
    """

    marks_creators = True

    def __init__(
        self,
        pool: str,
        container: str,
        namespace: str,
        cluster: str,
        lease: float | None = None,
    ):
        self._config = {
            "pool": pool,
            "container": container,
            "namespace": namespace,
            "cluster": cluster,
        }
        self._cluster = cluster
        self.closed = threading.Event()
        self._objects = Namespace(pool, container, namespace)
        owner = None if lease is None else _Owner(self._objects, cluster, lease)
        self._close = weakref.finalize(self, _close, self._objects, owner, os.getpid())

    def __repr__(self) -> str:
        return repr(self._objects)

    def __reduce__(self) -> tuple[Any, ...]:
        return DaosConnector.from_config, (self._config,)

    def close(self) -> None:
        """Let go of DAOS; the owner deletes the cluster's objects before."""
        self.closed.set()
        self._close()

    def config(self) -> dict[str, Any]:
        """Arguments that make an equal connector, which owns nothing."""
        return dict(self._config)

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> DaosKey:
        """Store one object that is in several pieces, without joining them first.

        Raises
        ------
        daskps.exceptions.StoreFullError
            If the pool has no room.
        daskps.exceptions.StoreError
            If DAOS fails in another way.
        """
        name = f"{self._cluster}.{creator}.{secrets.token_urlsafe(16)}"
        key = DaosKey(name, sum(map(frame_nbytes, frames)))
        try:
            self._objects.put(key, frames)
        except BaseException:
            with contextlib.suppress(StoreError):  # the first error counts
                self._objects.delete([key])
            raise
        return key

    def get(self, key: DaosKey) -> memoryview | None:
        """Read an object; None if it is not there, or not whole.

        Returns
        -------
        memoryview
            Writable; nobody else has it.
        """
        return self.get_batch([key])[0]

    def get_batch(self, keys: Sequence[DaosKey]) -> list[memoryview | None]:
        """Read several objects, small ones together."""
        ours = [key for key in keys if self._is_ours(key)]
        found = iter(self._objects.get(ours))
        return [next(found) if self._is_ours(key) else None for key in keys]

    def exists(self, key: DaosKey) -> bool:
        """Whether the object is there; it is not read."""
        return self._is_ours(key) and self._objects.exists(key)

    def evict(self, key: DaosKey) -> None:
        """Delete the object. Not there: does nothing."""
        if self._is_ours(key):
            self._objects.delete([key])

    def evict_orphans(self, creator: str, keep: set[DaosKey]) -> bool:
        """Delete what a process stored, or was storing, except what is needed."""
        found = self._objects.find(f"{self._cluster}.{creator}.")
        self._objects.delete(key for key in found if key not in keep)
        return False

    def _is_ours(self, key: DaosKey) -> bool:
        """Other clusters' objects, in the same namespace, do not exist for this one."""
        return key.name.startswith(f"{self._cluster}.")


class _Owner:
    """Says that a cluster lives, for as long as it does."""

    #: Set when this process says so no more.
    closed: threading.Event

    def __init__(self, objects: Namespace, cluster: str, lease: float):
        self.closed = threading.Event()
        self._objects = objects
        self._cluster = cluster
        self._lease = lease
        self.heartbeat()
        leases.repeat_heartbeat(self)

    def __repr__(self) -> str:
        return repr(self._objects)

    def heartbeat(self) -> None:
        """Renew the lease."""
        self._objects.renew(self._cluster, self._lease)

    def close(self) -> None:
        """Delete what the cluster stored, and renew no more."""
        self.closed.set()
        try:
            self._objects.delete_cluster(self._cluster)
        except StoreError as e:
            logger.error("Objects are left, for `dask daskps sweep` to delete: %s", e)


def _close(objects: Namespace, owner: _Owner | None, process: int) -> None:
    if os.getpid() != process:
        return  # what this forked process has is its parent's
    if owner is not None:
        owner.close()
    objects.close()
