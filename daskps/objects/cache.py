"""What a session keeps stored for its next graph. Runs on the client."""

from __future__ import annotations

import collections
import threading
import weakref
from dataclasses import dataclass
from typing import ClassVar

from daskps.objects.catalog import StoredObject
from daskps.references.nodes import ObjectId
from daskps.stores import pressure

# Fingerprints of what was let go without a hit, to see that it was wanted after all.
MISSED_AT_MOST = 1000


class GraphTurn:
    """The time in which one graph is stored: for as long as this exists.

    Attributes
    ----------
    number
        Later graphs have larger ones.
    """

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int):
        self.number = number


@dataclass(slots=True)
class _Kept:
    """One object that is kept.

    Attributes
    ----------
    graph
        Number of the graph that used it last.
    hit
        Whether another graph used it than the one that stored it.
    """

    stored: StoredObject
    graph: int
    hit: bool


class Cache(pressure.Spare):
    """Keeps the handles that were used last, up to a number of bytes.

    What the next graph does not use either goes then: most data is computed with once.
    What is stored again after that was let go too early, and is kept as if it had been
    used again.

    Parameters
    ----------
    limit
        Bytes. A single object larger than this is not kept.

    Attributes
    ----------
    in_memory
        Whether what is kept takes memory of this host: then it goes when that is scarce.

    Notes
    -----
    Thread-safe.
    """

    order: ClassVar[int] = 2  # the dearest: to store it again takes longest
    limit: int
    in_memory: bool
    _lock: threading.Lock
    _objects: collections.OrderedDict[ObjectId, _Kept]
    _nbytes: int
    _turns: weakref.WeakSet[GraphTurn]
    _number: int
    #: Fingerprints.
    _missed: collections.OrderedDict[bytes, None]

    def __init__(self, limit: int):
        self.limit = limit
        self.in_memory = False
        self._lock = threading.Lock()
        self._objects = collections.OrderedDict()
        self._nbytes = 0
        self._turns = weakref.WeakSet()
        self._number = 0
        self._missed = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def spare_nbytes(self) -> int:
        """Bytes that are kept."""
        return self._nbytes

    def turn(self) -> GraphTurn:
        """Begin to store a graph."""
        with self._lock:
            self._number += 1
            turn = GraphTurn(self._number)
            self._turns.add(turn)
        return turn

    def add(self, stored: StoredObject, turn: GraphTurn | None = None) -> None:
        """Keep this handle, as the one used last.

        Parameters
        ----------
        stored
            The handle.
        turn
            Of the graph that uses it. Default: the latest.
        """
        number = self._number if turn is None else turn.number
        dropped = []
        with self._lock:
            kept = self._objects.get(stored.id)
            if kept is None:
                hit = self._missed.pop(stored.mark, self) is None
                kept = self._objects[stored.id] = _Kept(stored, number, hit)
                self._nbytes += stored.nbytes
            else:
                kept.hit |= kept.graph != number
                kept.graph = max(kept.graph, number)
            self._objects.move_to_end(stored.id)
            while self._nbytes > self.limit:
                dropped.append(self._drop(next(iter(self._objects))))
        # The last reference goes outside the lock: it calls the keeper.
        del dropped
        if self.in_memory and self._nbytes:
            pressure.watch(self)

    def was_stored(self, turn: GraphTurn) -> None:
        """A graph is stored as a whole: it does not use what it has not used by now."""
        with self._lock:
            unused = [
                id
                for id, kept in self._objects.items()
                if not kept.hit and kept.graph < turn.number
            ]
            dropped = [self._drop(id) for id in unused]
            for stored in dropped:
                self._missed[stored.mark] = None
            while len(self._missed) > MISSED_AT_MOST:
                self._missed.popitem(last=False)
        del dropped

    def give_back(self, nbytes: int) -> int:
        """Let go of objects; first of those without a hit, of each kind the oldest.

        What a graph uses that is being stored would stay in the store all the same.
        """
        given, dropped = 0, []
        with self._lock:
            # One that is collected in this thread is no longer in the set.
            since = min((turn.number for turn in self._turns), default=self._number + 1)
            idle = [k for k in self._objects.values() if k.graph < since]
            for kept in sorted(idle, key=lambda kept: kept.hit):
                if given >= nbytes:
                    break
                dropped.append(self._drop(kept.stored.id))
                given += kept.stored.nbytes
        del dropped, idle
        return given

    def _drop(self, id: ObjectId) -> StoredObject:
        stored = self._objects.pop(id).stored
        self._nbytes -= stored.nbytes
        return stored

    def clear(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            dropped, self._objects = self._objects, collections.OrderedDict()
            self._missed.clear()
            self._nbytes = 0
        del dropped
