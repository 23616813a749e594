"""Objects that stay on the host that made them: the connector behind ``peer://``.

An object is a segment in a directory that the processes of its host share, as those of
``shm://`` are. Its key names the host. Readers there map it; readers on another host pull
it straight from there, once for each host, and map their host's copy.

Nothing has to be started for it. Who may read, delete or give orders is decided by a key
that the owner of the store makes, and that reaches other processes over Dask's connections
(:mod:`daskps.stores.peer.protocol`).
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Sequence
from typing import Any

import dask

from daskps.dask_private.security import configured_tls
from daskps.serialize.frames import Frame, frame_nbytes
from daskps.stores.connectors.base import Serving, StoreConnector
from daskps.stores.files.connector import SegmentConnector
from daskps.stores.files.pieces import Pieces
from daskps.stores.files.places import HostPlaces
from daskps.stores.files.shared_directory import SharedDirectory
from daskps.stores.holdings import Holdings
from daskps.stores.interfaces import Address
from daskps.stores.keys import PeerKey, SegmentKey
from daskps.stores.memory import Room
from daskps.stores.peer.channels import PeerChannels
from daskps.stores.peer.host import PeerHost
from daskps.stores.peer.protocol import Keys
from daskps.stores.peer.registry import PeerRegistry
from daskps.stores.peer.settings import PeerSettings
from daskps.stores.peer.ways import Ways
from daskps.stores.remarks import Remark
from daskps.stores.secret import new_key
from daskps.tls import Tls, source_at_hand


class PeerConnector(StoreConnector[PeerKey]):
    """A ProxyStore ``Connector`` for the processes of several hosts.

    Parameters
    ----------
    settings
        Of the store.
    owner
        On the scheduler, what gives orders to all hosts. Connectors made from this one's
        :meth:`config` are not the owner.
    tls
        This process's certificates, if the store uses TLS; None: those at hand
        (:mod:`daskps.tls`), or else those of Dask's configuration.

    Raises
    ------
    ConfigError
        If the store uses TLS, and there are none.

    Notes
    -----
    Thread-safe, and safe across processes. A process takes part in its host's directories
    from its first object on.
    """

    maps_its_own = True
    marks_creators = True

    def __init__(
        self,
        settings: PeerSettings,
        owner: PeerRegistry | None = None,
        tls: Tls | None = None,
    ):
        self._settings = settings
        if settings.tls and tls is None:
            tls = (source_at_hand() or configured_tls)()
        self._tls = tls if settings.tls else None
        self._owner = owner
        self._lock = threading.Lock()
        self._host: PeerHost | None = None
        self._map_at_most: int | None = None
        self.closed = threading.Event()
        self._keys = Keys(settings.secret.value, self._tls)
        self._channels = PeerChannels(self._keys)
        self._ways = Ways(self._channels, settings.registry)
        # This host's objects, for an owner that is no user of them.
        self._segments: SegmentConnector | None = None

    @classmethod
    def new(
        cls, host: str, lease: float, cache: int | None, tls: Tls | None = None
    ) -> PeerConnector:
        """Make a store that this process owns.

        Parameters
        ----------
        host
            The address by which other hosts reach this one.
        lease, cache
            See :class:`PeerSettings`.
        tls
            This process's certificates; None: the store does without TLS.
        """
        secret = new_key()
        owner = PeerRegistry(host, Keys(secret.value, tls), lease)
        token = f"peer-{secrets.token_urlsafe(12)}"
        settings = PeerSettings(
            token, secret, owner.address, lease, cache, tls is not None
        )
        return cls(settings, owner, tls)

    def __repr__(self) -> str:
        host, port = self._settings.registry
        return f"PeerConnector({host}:{port}{', TLS' if self._tls else ''})"

    def config(self) -> dict[str, Any]:
        """Arguments that make an equal connector on any host."""
        return {"settings": self._settings}

    def close(self) -> None:
        """Use the store no longer; if this process owns it, delete it on all hosts."""
        with self._lock:
            self.closed.set()
            host, self._host = self._host, None
        if self._owner is not None:
            self._owner.close()
        self._channels.close()
        if host is not None:
            # The server may not have reached the owner yet.
            host.close(remove=self._owner is not None)

    def serving(self) -> Serving:
        """Itself: an object is read from the host that stored it."""
        return self

    def serves_at(self) -> Address:
        """Where this host's server is, which is started if there is none.

        Raises
        ------
        OSError
            If it cannot be started.
        """
        return self._here().address()

    def registries(self) -> list[Address]:
        """Where the owner is, whose orders this host's server has to get."""
        return [self._settings.registry]

    def try_connection(self, address: Address, timeout: float) -> None:
        """Reach a server, or the owner.

        Raises
        ------
        OSError
            If it cannot be connected to, nor connects to this host itself, or is not of
            this store.
        """
        self._ways.try_connection(address, self._here().address(), timeout)

    def capacity(self) -> int:
        """Bytes that the directory in memory can hold at most on this host."""
        return self._here().segments.capacity()

    def room(self) -> Room:
        """What this process may still put into the directory in memory."""
        return self._here().segments.room()

    def holdings(self) -> Holdings | None:
        """What this host holds; None if this process takes no part in that."""
        return None if self._host is None else self._host.segments.holdings()

    def rest(self) -> None:
        """Keep no segments mapped, unless they are written soon."""
        if self._host is not None:
            self._host.segments.rest()

    def remark(self) -> Remark | None:
        """Whether this host has no memory for objects, or little."""
        return HostPlaces.configured().remark()

    def map_at_most(self, nbytes: int) -> None:
        """Limit the segments that this process keeps mapped, to write them anew."""
        with self._lock:
            self._map_at_most = nbytes
            if self._host is not None:
                self._host.segments.map_at_most(nbytes)

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> PeerKey:
        """Store one object that is in several pieces, on this host.

        Raises
        ------
        StoreFullError
            If this host has no room.
        OSError
            If the file system fails in another way, or this host's server cannot start.
        """
        here, address = self._ready_for(frames)
        return PeerKey(*here.segments.put_frames(frames, creator), *address)

    def begin(self, nbytes: int, creator: str = "") -> Pieces:
        """Store one object on this host that comes piece by piece.

        Raises
        ------
        StoreFullError
            If this host has no room.
        OSError
            If the file system fails in another way, or this host's server cannot start.
        """
        here = self._here()
        here.cache.give_way(nbytes)
        return here.segments.begin(nbytes, creator)

    def here(self, key: SegmentKey) -> PeerKey:
        """Names an object of this host for all hosts."""
        return PeerKey(*key, *self.serves_at())

    def _ready_for(self, frames: Sequence[Frame]) -> tuple[PeerHost, Address]:
        """This host, with as much room as copies can give, and its server's address."""
        here = self._here()
        here.cache.give_way(sum(map(frame_nbytes, frames)))
        return here, here.address()

    def get(self, key: PeerKey) -> memoryview | None:
        """Map an object, which is brought to this host if need be.

        Returns
        -------
        memoryview
            Writable; what is written is not seen by anyone else. None: no such object.

        Raises
        ------
        DamagedError
            If what came is not what was stored.
        OSError
            If its host cannot be reached.
        """
        here = self._here()
        found = here.segments.get(key.segment)
        if found is not None:
            return found
        address = here.address()
        return here.cache.get(
            key.name, key.nbytes, lambda fd: self._ways.fetch(key, address, fd)
        )

    def exists(self, key: PeerKey) -> bool:
        """Whether the object is on its host."""
        here = self._here()
        if here.segments.exists(key.segment):
            return True
        return key.origin != here.address() and self._ways.has(key)

    def evict(self, key: PeerKey) -> None:
        """Delete the object, wherever it is. Not there: does nothing."""
        if self._owner is None or self._host is not None:
            here = self._here()
            here.segments.evict(key.segment)
            here.cache.evict(key.name)
            if self._owner is None:
                self._ways.evict(key)
        else:
            self._evict_here(key)
        if self._owner is not None:
            self._owner.evict(key.name, key.origin)

    def evict_copy(self, key: PeerKey) -> None:
        """Delete this host's copy of an object of another host."""
        if self._host is not None:
            self._host.cache.evict(key.name)

    def evict_orphans(self, creator: str, keep: set[PeerKey]) -> bool:
        """Have all hosts delete what a process stored, except what is needed.

        Only the store's owner can. What is being written there its server deletes later.
        """
        if self._owner is not None:
            mine = [key.name for key in keep if key.name.startswith(f"{creator}.")]
            self._owner.evict_orphans(creator, mine)
        return False

    def _evict_here(self, key: PeerKey) -> None:
        """Delete an object of this host, of whose part of the store we are no user."""
        with contextlib.suppress(FileNotFoundError):
            if self._segments is None:
                places = HostPlaces.configured()
                paths = [
                    SharedDirectory.path_of(parent, self._settings.token)
                    for parent in places.parents
                ]
                self._segments = SegmentConnector(paths, keep=places.keep)
            self._segments.evict(key.segment)

    def _here(self) -> PeerHost:
        """What this process shares with others of its host."""
        with self._lock:
            if self.closed.is_set():
                raise ValueError("the store is closed")
            if self._host is None:
                self._host = self._open()
            return self._host

    def _open(self) -> PeerHost:
        # Both are of this host, and may differ from those of others.
        places, host = HostPlaces.swept(), dask.config.get("daskps.peer.host")
        opened = PeerHost(self._settings, places, self._tls, host)
        if self._map_at_most is not None:
            opened.segments.map_at_most(self._map_at_most)
        return opened
