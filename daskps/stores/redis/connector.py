"""Objects in a Redis server: the connector behind ``redis://`` and ``rediss://``.

An object is a key, or several where it is larger than one may be. Its name has 128 random
bits and is told to nobody before all of it is there, and its exact size is part of the
reference: so nobody sees half of one. Each key has a lease, after which the server forgets
it. The process that owns the store renews the leases of what is needed
(:mod:`daskps.stores.leases`), so nothing stays for ever when all processes are killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import redis

from daskps.serialize.frames import Frame, contiguous_parts, frame_nbytes
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.keys import RedisKey
from daskps.stores.redis.server import RedisAddress, RedisServer
from daskps.stores.redis.wire import read_value, set_command

logger = logging.getLogger(__name__)

PREFIX = "daskps:"
OWNER = "owner"
# For how long (seconds) an owner counts as alive after it said so.
OWNER_LEASE_SECONDS = 60.0
# One value holds 512 MiB at most (proto-max-bulk-len), and the server needs memory for it
# in one piece: 256 MiB took longer in one value than in four.
PART_NBYTES = 64 << 20


class RedisConnector(StoreConnector[RedisKey]):
    """A ProxyStore ``Connector`` over a Redis server.

    Parameters
    ----------
    address
        Of the server.
    namespace
        Begins the names of all keys of this store.
    lease
        Seconds after which the server forgets an object, unless it is renewed.
    part_nbytes
        Bytes in one key at most.
    owner
        Whether all objects of the store are to be deleted with this connector. Connectors
        made from this one's :meth:`config` do not own them.

    Raises
    ------
    OSError
        If the server cannot be used.

    Notes
    -----
    Thread-safe, and safe across processes, forked ones included. Every method connects
    again if the connection was lost, and raises ``OSError`` if it cannot.
    """

    marks_creators = True
    has_heartbeat = True
    lease: float

    def __init__(
        self,
        address: RedisAddress,
        namespace: str,
        lease: float,
        part_nbytes: int = PART_NBYTES,
        owner: bool = False,
    ):
        self._address = address
        self._namespace = namespace
        self.lease = lease
        self.closed = threading.Event()
        self._part_nbytes = part_nbytes
        self._owner = os.getpid() if owner else None
        self._prefix = f"{PREFIX}{namespace}:"
        self._server = RedisServer(address)
        # Also finds out at once that the server cannot be used.
        self._capacity = self._ask_capacity()
        if owner:
            self.heartbeat()

    def __repr__(self) -> str:
        return f"RedisConnector({str(self._address)!r})"

    def close(self) -> None:
        """Close idle connections; if this connector owns the store, delete all objects."""
        self.closed.set()
        # A process forked from the owner deletes nothing.
        if self._owner == os.getpid():
            self._owner = None
            try:
                self._server.delete(self._server.keys(self._prefix))
            except OSError as e:
                logger.warning("Objects are left for %g s: %s", self.lease, e)
        self._server.close()

    def config(self) -> dict[str, Any]:
        """Arguments that make an equal connector."""
        return {
            "address": self._address,
            "namespace": self._namespace,
            "lease": self.lease,
            "part_nbytes": self._part_nbytes,
        }

    def capacity(self) -> int:
        """Bytes that the server can hold at most."""
        return self._capacity

    def _ask_capacity(self) -> int:
        ask = self._server.client.info
        info = self._server.call(lambda: ask("memory"), attempts=1)
        return int(info["maxmemory"] or info["total_system_memory"])

    # Objects

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> RedisKey:
        """Store one object that is in several pieces, without joining them first.

        Raises
        ------
        StoreFullError
            If the server has no room.
        OSError
            If it cannot be reached.
        """
        nbytes = sum(map(frame_nbytes, frames))
        key = RedisKey(f"{creator}.{secrets.token_urlsafe(16)}", nbytes)
        try:
            self._server.call(lambda: self._write(key, frames))
        except BaseException:
            with contextlib.suppress(OSError):
                self.evict(key)
            raise
        return key

    def _write(self, key: RedisKey, frames: Sequence[Frame]) -> None:
        stream = _Stream(part for f in frames for part in contiguous_parts(f))
        with self._server.connection() as connection:
            for name, nbytes in self._parts(key):
                parts = stream.take(nbytes)
                command = set_command(name, nbytes, parts, self._milliseconds)
                connection.send_packed_command(command)
                connection.read_response()

    def get(self, key: RedisKey) -> memoryview | None:
        """Read an object; None if it is not there, or not whole.

        Returns
        -------
        memoryview
            Writable, of memory that nobody else has.
        """
        return self._server.call(lambda: self._read(key))

    def _read(self, key: RedisKey) -> memoryview | None:
        if key.nbytes == 0:
            return memoryview(bytearray()) if self._holds(key) else None
        # Not a bytearray, which would be filled with zeros first.
        data = np.empty(key.nbytes, np.uint8).data
        start = 0
        for name, nbytes in self._parts(key):
            with self._server.connection() as connection:
                whole = read_value(connection, name, data[start : start + nbytes])
            if not whole:
                # Raises if it was an error: the server is loading, or lets nobody in.
                if self._holds(key):
                    raise redis.ConnectionError("the server was not ready")
                return None
            start += nbytes
        return data

    def exists(self, key: RedisKey) -> bool:
        """Whether the object is there, and whole. Renews its lease."""
        return self._server.call(lambda: self._holds(key))

    def _holds(self, key: RedisKey) -> bool:
        parts = self._parts(key)
        with self._server.client.pipeline(transaction=False) as pipe:
            for name, _ in parts:
                pipe.pexpire(name, self._milliseconds)
                pipe.strlen(name)
            found = pipe.execute()
        return all(found[::2]) and found[1::2] == [nbytes for _, nbytes in parts]

    def evict(self, key: RedisKey) -> None:
        """Delete the object. Not there: does nothing."""
        self._server.delete(name for name, _ in self._parts(key))

    def evict_orphans(self, creator: str, keep: set[RedisKey]) -> bool:
        """Delete what a process stored, except what is needed."""
        needed = {name for key in keep for name, _ in self._parts(key)}
        found = self._server.keys(f"{self._prefix}{creator}.")
        self._server.delete(set(found) - needed)
        return False

    def _parts(self, key: RedisKey) -> list[tuple[str, int]]:
        """Names and sizes of the keys that an object is in."""
        size, name = self._part_nbytes, self._prefix + key.name
        starts = range(0, max(key.nbytes, 1), size)
        return [
            (f"{name}:{i}", min(size, key.nbytes - s)) for i, s in enumerate(starts)
        ]

    # Leases

    @property
    def _milliseconds(self) -> int:
        return round(1000 * self.lease)

    def heartbeat(self) -> None:
        """Say that the owner is alive."""
        name, lease = self._prefix + OWNER, round(1000 * OWNER_LEASE_SECONDS)
        self._server.call(lambda: self._server.client.set(name, "", px=lease))

    def renew(self, keys: Iterable[RedisKey] | None) -> None:
        """Have the server keep these objects for one more lease; None: all of the store."""
        if keys is None:
            names = self._server.keys(self._prefix)
            names = [name for name in names if name != self._prefix + OWNER]
        else:
            names = [name for key in keys for name, _ in self._parts(key)]
        self._server.expire(names, self._milliseconds)


class _Stream:
    """Pieces of bytes, to be taken in other pieces."""

    def __init__(self, parts: Iterator[memoryview]):
        self._parts = parts
        self._rest = memoryview(b"")

    def take(self, nbytes: int) -> Iterator[memoryview]:
        """Pieces that are so long together."""
        while nbytes:
            part = self._rest or next(self._parts)
            yield part[:nbytes]
            self._rest = part[nbytes:]
            nbytes -= min(nbytes, part.nbytes)


def sweep(address: RedisAddress, *, dry_run: bool = False) -> list[str]:
    """Delete the objects of stores whose owners have not said for long that they live.

    Parameters
    ----------
    address
        Of the server.
    dry_run
        Only say what would be deleted.

    Returns
    -------
    list of str
        The beginnings of the keys' names, one for each store.

    Raises
    ------
    OSError
        If the server cannot be used.
    """
    server = RedisServer(address)
    stores: dict[str, list[str]] = {}
    for name in server.keys(PREFIX):
        store = name[: name.find(":", len(PREFIX)) + 1]
        stores.setdefault(store, []).append(name)
    dead = {s: names for s, names in stores.items() if s and s + OWNER not in names}
    # Asked again: a list does not promise keys that were added meanwhile.
    for store in [s for s in dead if server.client.exists(s + OWNER)]:
        del dead[store]
    for names in dead.values() if not dry_run else ():
        server.delete(names)
    server.close()
    return sorted(dead)
