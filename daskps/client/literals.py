"""What the literals of a client's graphs take on the scheduler. Runs on the client.

Values below the threshold go inside the graph, and stay on the scheduler for as long as
the client holds results of that graph. One that goes out with every task, or many
different ones, add up there. So what is on the scheduler is counted, and the next values
go by reference if it is too much, or if they are there already.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from distributed import Client

from daskps.dask_private.graphs import DataNode, Task
from daskps.graph.census import HEAVY_NBYTES, Weight
from daskps.objects.sizes import FREE
from daskps.references.nodes import children

#: What a client's literals may take on the scheduler (bytes), about.
BUDGET_NBYTES = 32 << 20
#: Beyond that, values go by reference from this size on; and from the second size on if
#: twice as much is there. A reference itself takes some 700 bytes.
AT_LEAST_NBYTES = HEAVY_NBYTES
OVERDRAWN_AT_LEAST_NBYTES = 4 << 10
# Looking for graphs that were let go takes time in proportion to their number.
LOOK_AGAIN_SECONDS = 0.1


@dataclass(eq=False)
class _Graph:
    """A graph that was sent, with the keys of its results."""

    keys: tuple[Any, ...]
    nbytes: int
    values: frozenset[int]


class Literals:
    """The literals of one client's graphs, as long as the client holds their results.

    Notes
    -----
    Thread-safe. Values are known by their ``id`` alone, and not kept: if another one has
    got the same, it goes by reference for no reason, and nothing else happens.
    """

    _graphs: dict[int, _Graph]
    _by_value: dict[int, _Graph]

    def __init__(self, client: Client):
        self._client = weakref.ref(client)
        self._graphs = {}
        self._by_value = {}
        self._nbytes = 0
        self._looked = 0.0
        self._lock = threading.Lock()

    @staticmethod
    def of(client: Client) -> Literals:
        """Those of a client."""
        if client not in _literals:
            _literals[client] = Literals(client)
        return _literals[client]

    @property
    def nbytes(self) -> int:
        """Bytes that are on the scheduler, about."""
        with self._lock:
            self._look()
            return self._nbytes

    def pack_from(self, weight: Weight, threshold: int) -> int | None:
        """Bytes from which on values of the next graph go by reference although small.

        Parameters
        ----------
        weight
            What it holds.
        threshold
            Bytes from which on they do in any case.

        Returns
        -------
        int or None
            None: they stay in the graph.
        """
        if weight.nbytes < min(OVERDRAWN_AT_LEAST_NBYTES, threshold):
            return None
        with self._lock:
            if self._nbytes + weight.nbytes > BUDGET_NBYTES:
                self._look()
            there = self._nbytes
        # A large value is not going to be there.
        small = min(weight.nbytes, threshold)
        if there + small > 2 * BUDGET_NBYTES:
            return OVERDRAWN_AT_LEAST_NBYTES
        if there + small > BUDGET_NBYTES or self._has_any(_values(weight)):
            return AT_LEAST_NBYTES
        return None

    def sent(self, keys: Iterable[Any], weight: Weight, nbytes: int) -> None:
        """Note that a graph has been sent with literals in it.

        Parameters
        ----------
        keys
            Of its results.
        weight
            What it held.
        nbytes
            Bytes of it that were not stored.
        """
        if nbytes < OVERDRAWN_AT_LEAST_NBYTES:
            return
        graph = _Graph(tuple(keys), nbytes, frozenset(_values(weight)))
        with self._lock:
            self._graphs[id(graph)] = graph
            self._by_value.update(dict.fromkeys(graph.values, graph))
            self._nbytes += nbytes

    def _has_any(self, values: Iterable[int]) -> bool:
        if not self._by_value:
            return False
        # To find them may run code of the user's, who may submit meanwhile.
        wanted = list(values)
        with self._lock:
            graphs = [self._by_value[v] for v in wanted if v in self._by_value]
        return any(map(self._is_held, graphs))

    def _is_held(self, graph: _Graph) -> bool:
        client = self._client()
        return client is not None and any(key in client.futures for key in graph.keys)

    def _look(self) -> None:
        """Forget graphs whose results the client has let go."""
        if time.monotonic() < self._looked + LOOK_AGAIN_SECONDS:
            return
        self._looked = time.monotonic()
        gone = [graph for graph in self._graphs.values() if not self._is_held(graph)]
        for graph in gone:
            del self._graphs[id(graph)]
            self._nbytes -= graph.nbytes
            for value in graph.values:
                if self._by_value.get(value) is graph:
                    del self._by_value[value]


_literals: weakref.WeakKeyDictionary[Client, Literals] = weakref.WeakKeyDictionary()


def _values(weight: Weight) -> Iterable[int]:
    """The ids of values that are worth recognising."""
    for thing, _ in weight.heavy(AT_LEAST_NBYTES):
        for part in _parts(thing):
            if type(part) not in FREE and weight.nbytes_of(part) >= AT_LEAST_NBYTES:
                yield id(part)


def _parts(thing: Any) -> Iterable[Any]:
    if isinstance(thing, Task):
        return children(thing)
    return (thing.value,) if isinstance(thing, DataNode) else (thing,)
