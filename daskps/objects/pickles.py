"""What had to be pickled to be weighed, kept for whoever stores it. Runs everywhere.

The size of an object that pickles itself in its own way is known only once that was done.
It may take long, and some can be pickled only once.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from daskps.serialize.values import Serialized, serialize, serialize_method

#: Smaller ones (bytes) are sooner pickled again than kept.
KEPT_NBYTES_AT_LEAST = 1 << 16
# So many values are pickled one by one, and kept.
ONE_BY_ONE = 4


class Pickles:
    """Serialised values of one graph.

    For as long as this exists, no value that is kept may change: not beyond the submission
    of a graph.
    """

    #: With the value, so that its id stays its own.
    _kept: dict[int, tuple[Any, Serialized]]

    def __init__(self) -> None:
        self._kept = {}

    def get(self, value: Any) -> Serialized | None:
        """What a value was serialised to, if it was, and is large."""
        _, serialized = self._kept.get(id(value), (None, None))
        if serialized is None and type(value) is MethodType:
            # As if it were pickled with its owner: there is nothing else in it.
            _, owner = self._kept.get(id(value.__self__), (None, None))
            if owner is not None:
                return serialize_method(value.__func__.__name__, owner)
        return serialized

    def nbytes(self, values: list[Any]) -> int:
        """Bytes of several values of one type; 0 for one that cannot be pickled."""
        if len(values) > ONE_BY_ONE:
            # At once, as Dask does: what they share, such as their class, counts once.
            together = _serialized(values)
            if together is not None:
                return together.nbytes
        return sum(map(self.exact_nbytes, values))

    def exact_nbytes(self, value: Any) -> int:
        """Bytes of a value, found by pickling it; 0 if it cannot be pickled."""
        serialized = self.get(value) or _serialized(value)
        if serialized is None:
            return 0
        if serialized.nbytes >= KEPT_NBYTES_AT_LEAST:
            self._kept[id(value)] = value, serialized
        return serialized.nbytes


def _serialized(value: Any) -> Serialized | None:
    try:
        return serialize(value, last_resort=False)
    except Exception:
        return None  # Dask will say why it cannot be sent, if it is to be sent
