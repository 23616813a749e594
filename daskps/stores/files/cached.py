"""Stores on a network, of whose objects each host keeps copies for all of its processes.

With several workers on a host, an object crosses the network once, and is checked once.
"""

from __future__ import annotations

import logging
import secrets
import threading
from typing import Any

from daskps.serialize.slabs import write_all
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.connectors.sealed import SealedConnector, SealedKey
from daskps.stores.connectors.wrapped import WrappedConnector
from daskps.stores.files.copies import HostCache
from daskps.stores.files.directories import CACHED
from daskps.stores.files.places import HostPlaces
from daskps.stores.files.shared_directory import SharedDirectory
from daskps.stores.files.warm import FREE_PREFIX
from daskps.stores.holdings import Holdings, in_directories

# A smaller object is read again faster than a file is made of it.
COPY_NBYTES_AT_LEAST = 64 << 10

logger = logging.getLogger(__name__)


class CachedConnector(WrappedConnector[SealedKey]):
    """A connector that keeps copies of what another one has read.

    A copy has the seal of its object for a name, so that equal content is one copy. It is
    made by :class:`~daskps.stores.files.copies.HostCache`; those used last are kept. Copies
    are not deleted with their objects, which the scheduler deletes, but make room for
    others, and are gone when the last process of the host has closed the store.

    Parameters
    ----------
    connector
        The other one, or its ``ConnectorConfig``.
    limit
        Bytes to keep on each host; None: a quarter of what the directory in memory can
        hold.
    token
        Names the directories of the copies. Default: a new one.

    Notes
    -----
    As thread-safe as the other one.
    """

    def __init__(
        self,
        connector: SealedConnector | ConnectorConfig,
        limit: int | None = None,
        token: str | None = None,
    ):
        if isinstance(connector, ConnectorConfig):
            connector = SealedConnector.from_config(connector.options)
        super().__init__(connector)
        self._limit = limit
        self._token = token or f"cache-{secrets.token_urlsafe(12)}"
        self._lock = threading.Lock()
        self._directories: list[SharedDirectory] = []
        self._cache: HostCache | None = None
        self._warned = False

    def close(self) -> None:
        """Close the other one. The last process of a host deletes the host's copies."""
        super().close()
        with self._lock:
            self._cache = None
            while self._directories:
                self._directories.pop().close()

    def config(self) -> dict[str, Any]:
        """Arguments that make an equal connector."""
        return {
            "connector": self._connector.connector_config(),
            "limit": self._limit,
            "token": self._token,
        }

    def get(self, key: SealedKey) -> Any:
        """Read an object, or map this host's copy; None if it is not there.

        Raises
        ------
        DamagedError
            If the bytes are not those that were stored.
        """
        if key.nbytes < COPY_NBYTES_AT_LEAST:
            return self._connector.get(key)
        fetch = _Fetch(self._connector, key)
        try:
            return self._here().get(key.seal.hex(), key.nbytes, fetch)
        except OSError as e:
            if fetch.failed or self.closed.is_set():
                raise
            # Without room for a copy, or the right to make one, this process has its own.
            self._warn_once(e)
            return fetch.data if fetch.data is not None else self._connector.get(key)

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("No copy of an object is kept on this host: %s", error)

    def evict(self, key: SealedKey) -> None:
        """Delete the object, and this host's copy. Not there: does nothing."""
        super().evict(key)
        self.evict_copy(key)

    def holdings(self) -> Holdings | None:
        """This host's copies."""
        paths = [directory.path for directory in list(self._directories)]
        return in_directories(paths, CACHED, FREE_PREFIX, 0) if paths else None

    def evict_copy(self, key: SealedKey) -> None:
        """Delete this host's copy."""
        if self._cache is not None:
            self._cache.evict(key.seal.hex())

    def _here(self) -> HostCache:
        with self._lock:
            if self.closed.is_set():
                raise ValueError("the store is closed")
            if self._cache is None:
                places = HostPlaces.swept()
                self._directories = [
                    SharedDirectory(parent, self._token) for parent in places.parents
                ]
                paths = [directory.path for directory in self._directories]
                self._cache = HostCache(paths, self._limit, places.reserve)
            return self._cache


class _Fetch:
    """Writes an object to a file.

    Attributes
    ----------
    data
        The object, once it was read.
    failed
        Whether it could not be read.
    """

    def __init__(self, connector: StoreConnector[SealedKey], key: SealedKey):
        self._connector, self._key = connector, key
        self.data: Any = None
        self.failed = False

    def __call__(self, fd: int) -> bool:
        if self.data is None:
            try:
                self.data = self._connector.get(self._key)
            except OSError:
                self.failed = True
                raise
        if self.data is not None:
            write_all(fd, memoryview(self.data).cast("B"))
        return self.data is not None
