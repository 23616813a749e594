"""Which objects there are, who needs each of them, and what they add up to, by store.

Totals are kept as objects come and go, so that to ask for them costs nothing, however many
objects there are. Runs on the scheduler.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daskps.references.nodes import ObjectId


class Entry:
    """What is known of one object.

    Attributes
    ----------
    nbytes
        Size in the store.
    tasks, clients
        Who needs it: keys of tasks, ids of clients.
    graphs
        For how many graphs a client has held it.
    since
        When the scheduler was told of it (``time.time``).
    """

    nbytes: int
    tasks: set[Any]
    clients: set[str]
    graphs: int
    since: float

    __slots__ = ("clients", "graphs", "nbytes", "since", "tasks")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self.tasks = set()
        self.clients = set()
        self.graphs = 0
        self.since = time.time()

    @property
    def hits(self) -> int:
        """How often a client would have stored it again, had it not been there."""
        return max(0, self.graphs - 1)


@dataclass(slots=True)
class Totals:
    """What the objects of one store add up to.

    Attributes
    ----------
    objects, nbytes
        All of them.
    kept
        Bytes of those that no task needs, which clients keep for graphs that could follow.
    hits
        How often they were found stored already.
    """

    objects: int = 0
    nbytes: int = 0
    kept: int = 0
    hits: int = 0


class Ledger:
    """The objects that somebody needs. Not thread-safe, but for :meth:`keys`."""

    _entries: dict[ObjectId, Entry]
    _totals: dict[str, Totals]

    def __init__(self) -> None:
        self._entries = {}
        self._totals = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[ObjectId]:
        return iter(self._entries)

    def __getitem__(self, id: ObjectId) -> Entry:
        return self._entries[id]

    def get(self, id: ObjectId) -> Entry | None:
        """What is known of an object, if somebody needs it."""
        return self._entries.get(id)

    def items(self) -> list[tuple[ObjectId, Entry]]:
        """All of them."""
        return list(self._entries.items())

    def keys(self, store: str) -> list[Any]:
        """Keys of the objects of a store. For any thread."""
        # Copying the names is one step for the interpreter.
        return [id.key for id in list(self._entries) if id.store == store]

    def totals(self, store: str) -> Totals:
        """What the objects of a store add up to."""
        return self._totals.get(store) or Totals()

    def largest(self, n: int) -> list[tuple[ObjectId, Entry]]:
        """The largest objects of all stores, the largest first."""
        return heapq.nlargest(n, self._entries.items(), lambda item: item[1].nbytes)

    def note(self, id: ObjectId, nbytes: int) -> Entry:
        """An object is there that somebody is about to need; again: does nothing."""
        entry = self._entries.get(id)
        if entry is None:
            entry = self._entries[id] = Entry(nbytes)
            totals = self._totals.setdefault(id.store, Totals())
            totals.objects += 1
            totals.nbytes += nbytes
            totals.kept += nbytes
        return entry

    def hold(self, id: ObjectId) -> None:
        """A client holds it for one more graph."""
        entry = self._entries[id]
        entry.graphs += 1
        self._totals[id.store].hits += entry.graphs > 1

    def need(self, id: ObjectId, task: Any) -> None:
        """A task needs it."""
        entry = self._entries[id]
        if not entry.tasks:
            self._totals[id.store].kept -= entry.nbytes
        entry.tasks.add(task)

    def need_no_more(self, id: ObjectId, task: Any) -> None:
        """A task needs it no longer."""
        entry = self._entries[id]
        if task in entry.tasks:
            entry.tasks.discard(task)
            if not entry.tasks:
                self._totals[id.store].kept += entry.nbytes

    def drop(self, id: ObjectId) -> None:
        """It is deleted."""
        entry = self._entries.pop(id)
        totals = self._totals[id.store]
        totals.objects -= 1
        totals.nbytes -= entry.nbytes
        totals.hits -= entry.hits
        if not entry.tasks:
            totals.kept -= entry.nbytes

    def clear(self) -> None:
        """Nothing is needed any more."""
        self._entries.clear()
        self._totals.clear()
