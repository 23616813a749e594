"""Values of one task that share an object, stored as one. Resolved on the worker.

In plain Dask a task is pickled as a whole: what was one object on the client is one for the
function, which may look whether it is, or write to it here and read it there. Nodes read a
value each. So what shares objects is stored as one value, and each node takes its part.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol


class Readable(Protocol):
    """What a node or a function in a graph has in place of its value."""

    @property
    def refers_to(self) -> tuple[Any, ...]:
        """Objects that the value does not consist of, but needs."""

    @property
    def owners(self) -> list[Any]:
        """On the client only: what keeps the objects alive."""

    def objects(self) -> set[Any]:
        """All objects that the value needs."""

    def resolve(self) -> Any:
        """Read the value."""

    def __dask_tokenize__(self) -> tuple[Any, ...]: ...


class StoredTogether:
    """Values of one task, stored as one.

    Parameters
    ----------
    value
        Of a tuple with an item for each place in the task, or of one object for all.
    places
        How many.
    same
        Whether it is one object for all.
    """

    value: Readable
    places: int
    same: bool
    #: Items that were read and not yet taken, by thread: tasks of a symbolic layer in this
    #: process, where nothing is pickled, run with the same nodes at once.
    _rest: dict[int, dict[int, Any]]

    __slots__ = ("_rest", "places", "same", "value")

    def __init__(self, value: Readable, places: int, same: bool):
        self.value = value
        self.places = places
        self.same = same
        self._rest = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredTogether, (self.value, self.places, self.same)

    def take(self, index: int) -> Any:
        """An item: a task takes each once, and all are read with the first.

        Raises
        ------
        ObjectMissingError
            If they cannot be read.
        """
        thread = threading.get_ident()
        rest = self._rest.get(thread, {})
        if index not in rest:  # also after a task that failed before it had taken all
            read = self.value.resolve()
            items = [read] * self.places if self.same else read
            rest = self._rest[thread] = dict(enumerate(items))
        item = rest.pop(index)
        if not rest:
            del self._rest[thread]
        return item


class StoredPart:
    """One of the values that are stored as one.

    Parameters
    ----------
    whole
        All of them.
    index
        Which it is.
    """

    whole: StoredTogether
    index: int

    __slots__ = ("index", "whole")

    def __init__(self, whole: StoredTogether, index: int):
        self.whole = whole
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredPart, (self.whole, self.index)

    @property
    def refers_to(self) -> tuple[Any, ...]:
        return self.whole.value.refers_to

    @property
    def owners(self) -> list[Any]:
        return self.whole.value.owners

    def objects(self) -> set[Any]:
        return self.whole.value.objects()

    def resolve(self) -> Any:
        return self.whole.take(self.index)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return *self.whole.value.__dask_tokenize__(), self.index
