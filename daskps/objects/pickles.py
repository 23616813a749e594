"""What had to be pickled to be weighed, kept for whoever stores it. Runs everywhere.

The size of an object that pickles itself in its own way is known only once that was done.
It may take long, and some can be pickled only once. A graph is weighed several times, as a
whole and in parts, so what takes long to find is kept here as well.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple, TypeVar

from daskps.serialize.values import Serialized, serialize_and_meet, serialize_method

#: Smaller ones (bytes) are sooner pickled again than kept.
KEPT_NBYTES_AT_LEAST = 1 << 16
# So many values are pickled one by one, and kept.
ONE_BY_ONE = 4


_Found = TypeVar("_Found")


class _Kept(NamedTuple):
    """A serialised value, and the objects in it; with it, so that its id stays its own."""

    value: Any
    serialized: Serialized
    met: Callable[[], list[Any]]


class Pickles:
    """Serialised values of one graph, and sizes that take long to find.

    For as long as this exists, no value that is kept may change: not beyond the submission
    of a graph.
    """

    _kept: dict[int, _Kept]
    #: With the value, so that its id stays its own.
    _found: dict[int, tuple[Any, Any]]

    def __init__(self) -> None:
        self._kept = {}
        self._found = {}

    def for_parts(self) -> Pickles:
        """For what is within a value of which the size is kept as a whole."""
        within = Pickles()
        within._kept = self._kept
        return within

    def once(self, value: Any, find: Callable[[Any], _Found]) -> _Found:
        """What a function gives for a value, found once. It depends on the value alone."""
        known = self._found.get(id(value))
        if known is None:
            known = self._found[id(value)] = value, find(value)
        found: _Found = known[1]
        return found

    def get(self, value: Any) -> Serialized | None:
        """What a value was serialised to, if it was, and is large."""
        kept = self._kept.get(id(value))
        if kept is None and type(value) is MethodType:
            # As if it were pickled with its owner: there is nothing else in it.
            owner = self._kept.get(id(value.__self__))
            if owner is not None:
                return serialize_method(value.__func__.__name__, owner.serialized)
        return None if kept is None else kept.serialized

    def objects_in(self, value: Any) -> list[Any]:
        """The objects that a value consists of; none if it cannot be pickled."""
        owner = value.__self__ if type(value) is MethodType else value
        kept = self._kept.get(id(owner)) or self._pickle(value)
        return [] if kept is None else kept.met()

    def nbytes(self, values: list[Any]) -> int:
        """Bytes of several values of one type; 0 for one that cannot be pickled."""
        if len(values) > ONE_BY_ONE:
            # At once, as Dask does: what they share, such as their class, counts once.
            together = _pickled(values)
            if together is not None:
                return together.serialized.nbytes
        return sum(map(self.exact_nbytes, values))

    def exact_nbytes(self, value: Any) -> int:
        """Bytes of a value, found by pickling it; 0 if it cannot be pickled."""
        serialized = self.get(value)
        if serialized is None:
            pickled = self._pickle(value)
            return 0 if pickled is None else pickled.serialized.nbytes
        return serialized.nbytes

    def _pickle(self, value: Any) -> _Kept | None:
        pickled = _pickled(value)
        if pickled is not None and pickled.serialized.nbytes >= KEPT_NBYTES_AT_LEAST:
            self._kept[id(value)] = pickled
        return pickled


def _pickled(value: Any) -> _Kept | None:
    try:
        return _Kept(value, *serialize_and_meet(value))
    except Exception:
        return None  # Dask will say why it cannot be sent, if it is to be sent
