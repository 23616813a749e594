"""What this process has put into one store. Runs on the client.

A :class:`StoredObject` is a handle: while one exists, the client holds the object, and the
scheduler does not evict it. Handles are kept by the graphs that are being submitted, and by
the session's :class:`Cache`, for the next graph that has the same data.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np

from daskps import progress
from daskps.exceptions import DaskpsError, StoreError
from daskps.objects.content import content_hash, fingerprint
from daskps.references.nodes import ObjectId
from daskps.serialize.frames import Frame, frame_address, frame_nbytes
from daskps.stores import leases
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.patience import Patience, may_wait
from daskps.stores.store import Store

logger = logging.getLogger(__name__)

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
        The hash of its content; None if nobody has needed it yet, or it is not known.
    """

    id: ObjectId
    nbytes: int
    digest: bytes | None
    _alike: _Alike

    __slots__ = ("__weakref__", "_alike", "digest", "id", "nbytes")

    def __init__(self, id: ObjectId, nbytes: int, alike: _Alike):
        self.id = id
        self.nbytes = nbytes
        self.digest = None
        self._alike = alike
        alike.objects[id] = self

    @property
    def mark(self) -> bytes:
        """The fingerprint of its content."""
        return self._alike.mark


class _Alike:
    """All handles of objects with one fingerprint, which keep it."""

    mark: bytes
    objects: weakref.WeakValueDictionary[ObjectId, StoredObject]

    __slots__ = ("__weakref__", "mark", "objects")

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.objects = weakref.WeakValueDictionary()


class Uplink(Protocol):
    """What stores objects in another place: see :mod:`daskps.client.uplink`."""

    def put_frames(self, frames: Sequence[Frame], creator: str) -> Any:
        """Store one object that is in several pieces; its key."""

    def exists(self, key: Any) -> bool:
        """Whether an object is there."""


def _stays(key: Any) -> None:
    """What was stored too late goes with all else that this process has stored."""


class Catalog:
    """Stores objects, and finds again what is stored already.

    Equal content is one object, whatever held it and wherever it was, as long as a handle
    exists. Content is compared by a 128-bit hash of all bytes, since an array may have been
    changed in place since it was last stored (:mod:`daskps.objects.content`). Most data is
    seen once, and its fingerprint shows that it is new. So what is stored in this host's
    memory is hashed only when something comes whose fingerprint is equal.

    Only an array on the memory of a :class:`bytes` object is known again without looking at
    its content. One whose flag ``writeable`` is cleared is not: its owner can set the flag
    again, and views that were made before can be written to.

    Parameters
    ----------
    store
        Where to.
    keeper
        Whom to tell.
    creator
        Who stores, so that what is left can be found if this process dies: see
        :func:`~daskps.stores.keys.creator_name`.

    Attributes
    ----------
    name
        Of the store.
    maps_its_own
        Whether what is stored is in this host's memory: a put takes no more than a copy.

    Notes
    -----
    Thread-safe. Two threads that store the same content at the same time may store it
    twice.
    """

    name: str
    store: Store
    creator: str
    maps_its_own: bool
    _connector: StoreConnector[Any]
    _keeper: Keeper
    _patience: Patience
    _lock: threading.Lock
    _held: weakref.WeakValueDictionary[ObjectId, StoredObject]
    #: By fingerprint.
    _alike: weakref.WeakValueDictionary[bytes, _Alike]
    _immutable: dict[_Place, tuple[weakref.ref[np.ndarray], weakref.ref[StoredObject]]]
    _capacity: int | None
    _uplink: Uplink | None

    def __init__(self, store: Store, keeper: Keeper, creator: str = ""):
        self.name = store.name
        self.creator = creator
        self.store = store
        self._connector = store.connector
        self._keeper = keeper
        self._patience = Patience(store.name)
        self._lock = threading.Lock()
        self._held = weakref.WeakValueDictionary()
        self._alike = weakref.WeakValueDictionary()
        self._immutable = {}
        self._capacity = None
        self.send_by(None)
        # What is stored is announced to nobody yet, and storing a large graph takes long.
        leases.renew(self._connector, self, lambda self: [id.key for id in self.held()])

    def send_by(self, uplink: Uplink | None) -> None:
        """Have objects stored by somebody else from now on, or by this process if None."""
        self._uplink = uplink
        # Reading its own again takes no more than memory's time.
        self.maps_its_own = uplink is None and self._connector.maps_its_own

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
            return self._found(known)
        alike = self._alike_to(fingerprint(frames))
        others = _living(alike.objects)
        # Without others it is certainly new: most data is.
        digest = content_hash(frames) if others or not self.maps_its_own else None
        found = self._find(others, digest)
        if found is not None:
            self._found(found)
        stored = found or self._store(alike, frames, digest)
        if array is not None:
            self._note_immutable(array, stored)
        return stored

    def _found(self, stored: StoredObject) -> StoredObject:
        self.store.traffic.was_found(stored.nbytes)
        progress.done(stored.nbytes)
        return stored

    def _alike_to(self, mark: bytes) -> _Alike:
        """What has this fingerprint."""
        with self._lock:
            alike = self._alike.get(mark)
            if alike is None:
                alike = self._alike[mark] = _Alike(mark)
            return alike

    def _find(
        self, others: list[StoredObject], digest: bytes | None
    ) -> StoredObject | None:
        """The one whose content has this hash, if it is in the store."""
        for stored in others:
            if self._digest(stored) == digest and self._is_there(stored):
                return stored
        return None

    def _digest(self, stored: StoredObject) -> bytes | None:
        """The hash of what is in the store, which nobody can change."""
        if stored.digest is None and self.maps_its_own:
            try:
                data = self._connector.get(stored.id.key)
            except Exception as e:
                # No reason not to store it again.
                logger.debug("Object %s could not be read again: %r", stored.id.key, e)
                return None
            if data is not None:
                stored.digest = content_hash([data])
        return stored.digest

    def _put_before(self, array: np.ndarray) -> StoredObject | None:
        """What was stored of this memory before, if it is still the same array's."""
        known, stored = self._immutable.get(_place(array), (None, None))
        if known is None or stored is None:
            return None
        return stored() if known() is array else None

    def _note_immutable(self, array: np.ndarray, stored: StoredObject) -> None:
        place, places = _place(array), self._immutable

        def forget(reference: weakref.ref[np.ndarray]) -> None:
            # The memory may be another array's by now.
            if place in places and places[place][0] is reference:
                del places[place]

        places[place] = weakref.ref(array, forget), weakref.ref(stored)

    def _is_there(self, stored: StoredObject) -> bool:
        """Whether nobody has emptied the store behind our back."""
        try:
            uplink = self._uplink
            there = uplink or self._connector
            return bool(self._ask(partial(there.exists, stored.id.key), uplink))
        except DaskpsError:
            raise
        except Exception as e:
            raise _failed(self.name, e) from e

    def _ask(
        self, function: Callable[[], Any], uplink: Uplink | None, **options: Any
    ) -> Any:
        """Call a function of the store, which may not answer unless it is on this host."""
        if uplink is None and self._connector.maps_its_own:
            return function()
        if uplink is not None and not may_wait():
            raise StoreError(
                f"Store {self.name!r} cannot be waited for by an event loop"
            )
        return self._patience.call(function, **options)

    def _store(
        self, alike: _Alike, frames: Sequence[Frame], digest: bytes | None
    ) -> StoredObject:
        nbytes = sum(map(frame_nbytes, frames))
        # Read once: another may be chosen meanwhile.
        uplink = self._uplink
        there = uplink or self._connector
        late = self._connector.evict if uplink is None else _stays
        creator = self.creator

        def put() -> Any:
            with progress.part(nbytes):
                return there.put_frames(frames, creator)

        began = time.perf_counter()
        try:
            key = self._ask(put, uplink, nbytes=nbytes, late=late)
        except DaskpsError:
            raise
        except Exception as e:  # whatever a connector raises
            raise _failed(self.name, e) from e
        self.store.traffic.was_put(nbytes, time.perf_counter() - began)
        id = ObjectId(self.name, key)
        stored = StoredObject(id, nbytes, alike)
        finalizer = weakref.finalize(stored, self._keeper.release, [id])
        finalizer.atexit = False
        # Only the scheduler can evict what is on its host.
        if not self._connector.marks_creators or uplink is not None:
            self._keeper.stored([(id, stored.nbytes)])
        self._held[id] = stored
        # What another thread has changed while a slow store took it is not known.
        if not self.maps_its_own and content_hash(frames) == digest:
            stored.digest = digest
        return stored

    def held(self) -> list[ObjectId]:
        """The objects that this process holds."""
        return [stored.id for stored in self.handles()]

    def handles(self) -> list[StoredObject]:
        """The same, with their sizes."""
        return _living(self._held)

    def may_keep(self, wanted: int, kept: int = 0) -> int:
        """How much of the store may be kept for later graphs (bytes).

        Parameters
        ----------
        wanted
            At most.
        kept
            How much is kept now.
        """
        try:
            if self._capacity is None:
                self._capacity = self._connector.capacity()
            room = self._connector.room()
        except (OSError, ValueError):
            return 0  # it is gone, or closed: the next put will say so
        most = wanted if self._capacity is None else min(wanted, self._capacity // 4)
        return most if room is None else min(most, (room.free + kept) // 2)

    def rest(self) -> None:
        """Nothing may be stored by this process for a while."""
        self._connector.rest()

    def hold(self, objects: Iterable[StoredObject]) -> None:
        """Say that a graph which uses these objects is about to be submitted."""
        ids = self.refer(objects)
        if ids:
            self._keeper.hold(list(ids.items()))

    def refer(self, objects: Iterable[StoredObject]) -> dict[ObjectId, int]:
        """Note that a message has references to these objects, and not their bytes.

        Returns
        -------
        dict
            Their sizes, each once.
        """
        ids = {stored.id: stored.nbytes for stored in objects}
        self.store.traffic.went_by_reference(sum(ids.values()))
        return ids


def _living(
    handles: weakref.WeakValueDictionary[ObjectId, StoredObject],
) -> list[StoredObject]:
    # valuerefs() is one step for the interpreter: other threads may add objects.
    objects = (reference() for reference in handles.valuerefs())
    return [stored for stored in objects if stored is not None]


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
    if getattr(array, "nbytes", None) != frames[0].nbytes:
        return None  # a part of it
    root = array
    while isinstance(root, np.ndarray):
        root = root.base
    return array if type(root) is bytes and root is not array else None


def _place(array: np.ndarray) -> _Place:
    return frame_address(array), array.nbytes
