"""What this process has put into one store. Runs on the client.

A :class:`StoredObject` is a handle: while one exists, the client holds the object, and the
scheduler does not evict it. Handles are kept by the graphs that are being submitted, and by
the session's :class:`Cache`, for the next graph that has the same data.
"""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import xxhash
from proxystore.store import Store

from daskps.exceptions import DaskpsError, StoreError
from daskps.proxy_node import ObjectId
from daskps.stores import leases
from daskps.stores.content import content_hash, fingerprint
from daskps.stores.frames import Frame, frame_nbytes

#: Address and size of some memory.
_Place: TypeAlias = tuple[int, int]


class Keeper(Protocol):
    """Decides how long objects live; told what this process holds."""

    def stored(self, objects: list[tuple[ObjectId, int]]) -> None:
        """These objects (ids and sizes) are in a store now that does not know by whom.

        Only somebody who is told can evict them if this process dies.
        """

    def hold(self, objects: list[tuple[ObjectId, int]]) -> None:
        """From now on this process holds these objects (ids and sizes)."""

    def release(self, objects: list[ObjectId]) -> None:
        """This process no longer holds these objects.

        Called by the garbage collector, in any thread: it must not block.
        """


class StoredObject:
    """Holds an object for as long as it exists.

    Attributes
    ----------
    id
        The object.
    nbytes
        Its size in the store.
    digest
        The hash of its content, once somebody has asked for it.
    """

    id: ObjectId
    nbytes: int
    digest: bytes | None

    __slots__ = ("__weakref__", "digest", "id", "nbytes")

    def __init__(self, id: ObjectId, nbytes: int):
        self.id = id
        self.nbytes = nbytes
        self.digest = None


class Catalog:
    """Stores objects, and finds again what is stored already.

    Equal content is one object, whatever held it and wherever it was, as long as a handle
    exists. Content is compared by a 128-bit hash of all bytes, since an array may have been
    changed in place since it was last stored (:mod:`daskps.stores.content`). Most data is
    seen once, and is not hashed: a fingerprint shows that it is new, and what is stored is
    hashed when something comes whose fingerprint is equal. Only an array
    on the memory of a :class:`bytes` object is known again without looking at its content.
    One whose flag ``writeable`` is cleared is not: its owner can set the flag again, and
    views that were made before can be written to.

    Parameters
    ----------
    store
        Where to.
    keeper
        Whom to tell.
    creator
        Who stores, so that what is left can be found if this process dies: see
        :func:`creator_name`.

    Attributes
    ----------
    name
        Of the store.

    Notes
    -----
    Thread-safe. Two threads that store the same content at the same time may store it
    twice.
    """

    name: str
    store: Store[Any]
    creator: str
    _connector: Any
    _keeper: Keeper
    _held: weakref.WeakValueDictionary[ObjectId, StoredObject]
    #: By fingerprint, what was stored last. Others that have the same have been hashed.
    _fingerprints: weakref.WeakValueDictionary[bytes, StoredObject]
    #: By hash, what has been hashed.
    _hashed: weakref.WeakValueDictionary[bytes, StoredObject]
    _immutable: dict[_Place, tuple[weakref.ref[np.ndarray], weakref.ref[StoredObject]]]
    _capacity: int | None

    def __init__(self, store: Store[Any], keeper: Keeper, creator: str = ""):
        self.name = store.name
        self.creator = creator
        self.store = store
        self._connector = store.connector
        self._keeper = keeper
        self._held = weakref.WeakValueDictionary()
        self._fingerprints = weakref.WeakValueDictionary()
        self._hashed = weakref.WeakValueDictionary()
        self._immutable = {}
        self._capacity = None
        # What is stored is announced to nobody yet, and storing a large graph takes long.
        leases.renew(self._connector, self, lambda self: [id.key for id in self.held()])

    def put(self, frames: Sequence[Frame]) -> StoredObject:
        """Store the bytes of `frames`, one after the other, as one object.

        Raises
        ------
        daskps.exceptions.StoreError
            If there is no room, or the store fails in another way.
        """
        array = _immutable(frames)
        known = None if array is None else self._put_before(array)
        if known is not None and self._is_there(known):
            return known
        mark = fingerprint(frames)
        stored = self._find(mark, frames) or self._store(mark, frames)
        if array is not None:
            self._immutable[_place(array)] = weakref.ref(array), weakref.ref(stored)
        return stored

    def _find(self, mark: bytes, frames: Sequence[Frame]) -> StoredObject | None:
        """What has the same content, if that is stored."""
        alike = self._fingerprints.get(mark)
        if alike is None:
            return None  # certainly new: most data is
        if alike.digest is None and not self._hash_stored(alike):
            return None
        known = self._hashed.get(content_hash(frames))
        return known if known is not None and self._is_there(known) else None

    def _hash_stored(self, stored: StoredObject) -> bool:
        """Hash what is in the store, which nobody can change; whether it is there."""
        try:
            data = self._connector.get(stored.id.key)
        except Exception as e:
            raise _failed(self.name, e) from e
        if data is None:
            return False
        self._note_hash(stored, content_hash([data]))
        return True

    def _note_hash(self, stored: StoredObject, digest: bytes) -> None:
        stored.digest = digest
        self._hashed[digest] = stored

    def _put_before(self, array: np.ndarray) -> StoredObject | None:
        """What was stored of this memory before, if it is still the same array's."""
        known, stored = self._immutable.get(_place(array), (None, None))
        if known is None or stored is None:
            return None
        if known() is array:
            return stored()
        del self._immutable[_place(array)]
        return None

    def _is_there(self, stored: StoredObject) -> bool:
        """Whether nobody has emptied the store behind our back."""
        try:
            return bool(self._connector.exists(stored.id.key))
        except Exception as e:
            raise _failed(self.name, e) from e

    def _store(self, mark: bytes, frames: Sequence[Frame]) -> StoredObject:
        # Where reading it again would cost much, before it is stored: it may change while
        # a slow store takes it.
        later = hasattr(self._connector, "maps_its_own")
        digest = None if later else content_hash(frames)
        try:
            key = self._connector.put_frames(frames, self.creator)
        except DaskpsError:
            raise
        except Exception as e:  # whatever a connector raises
            raise _failed(self.name, e) from e
        id = ObjectId(self.name, key)
        stored = StoredObject(id, sum(map(frame_nbytes, frames)))
        finalizer = weakref.finalize(stored, self._keeper.release, [id])
        finalizer.atexit = False
        if not hasattr(self._connector, "evict_orphans"):
            self._keeper.stored([(id, stored.nbytes)])
        self._held[id] = stored
        if digest is not None:
            self._note_hash(stored, digest)
        self._fingerprints[mark] = stored
        return stored

    def held(self) -> list[ObjectId]:
        """The objects that this process holds."""
        # valuerefs() is one step for the interpreter: other threads may add objects.
        handles = (reference() for reference in self._held.valuerefs())
        return [stored.id for stored in handles if stored is not None]

    def may_keep(self, wanted: int) -> int:
        """How much of the store may be kept for later graphs, of what is wanted (bytes)."""
        if self._capacity is None:
            if not hasattr(self._connector, "capacity"):
                return wanted
            try:
                self._capacity = self._connector.capacity()
            except OSError:
                return 0  # the directory is gone: the next put will say so
        return min(wanted, self._capacity // 4)

    def hold(self, objects: Iterable[StoredObject]) -> None:
        """Say that a graph which uses these objects is about to be submitted."""
        ids = {stored.id: stored.nbytes for stored in objects}
        if ids:
            self._keeper.hold(list(ids.items()))


def _failed(store: str, error: Exception) -> StoreError:
    return StoreError(
        f"A value could not be put into store {store!r}: {type(error).__name__}: "
        f"{error}. Check that the store can be reached and has room, or give another "
        "one: daskps.proxy_graph(store=...)"
    )


def _immutable(frames: Sequence[Frame]) -> np.ndarray | None:
    """The array whose memory the frames are, if nothing can write to that."""
    if len(frames) != 1 or not isinstance(frames[0], memoryview):
        return None
    array: Any = frames[0].obj
    root = array
    while isinstance(root, np.ndarray):
        root = root.base
    return array if type(root) is bytes and root is not array else None


def _place(array: np.ndarray) -> _Place:
    return array.__array_interface__["data"][0], array.nbytes


def creator_name(client: str) -> str:
    """What marks the objects of a client, given its id."""
    return xxhash.xxh64_hexdigest(client.encode())


class Cache:
    """Keeps the handles that were used last, up to a number of bytes.

    Parameters
    ----------
    limit
        Bytes. A single object larger than this is not kept.

    Notes
    -----
    Thread-safe.
    """

    limit: int
    _lock: threading.Lock
    _objects: collections.OrderedDict[ObjectId, StoredObject]
    _nbytes: int

    def __init__(self, limit: int):
        self.limit = limit
        self._lock = threading.Lock()
        self._objects = collections.OrderedDict()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, stored: StoredObject) -> None:
        """Keep this handle, as the one used last."""
        dropped = []
        with self._lock:
            if stored.id not in self._objects:
                self._objects[stored.id] = stored
                self._nbytes += stored.nbytes
            self._objects.move_to_end(stored.id)
            while self._nbytes > self.limit:
                _, oldest = self._objects.popitem(last=False)
                self._nbytes -= oldest.nbytes
                dropped.append(oldest)
        # The last reference goes outside the lock: it calls the keeper.
        del dropped

    def clear(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            dropped, self._objects = self._objects, collections.OrderedDict()
            self._nbytes = 0
        del dropped
