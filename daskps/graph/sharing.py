"""Which values of one task share an object. Runs on the client.

Dask pickles a task as a whole, so what is one object on the client is one for the function.
What daskps takes out of a task it pickles value by value; so values that have an object in
common have to be stored as one (:mod:`daskps.references.together`).
"""

from __future__ import annotations

import datetime
import enum
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from daskps.objects.sizes import FREE
from daskps.references.proxies import is_proxy

# Equal ones are as good: nobody can write to them.
_IMMUTABLE = (
    *(bool, bytes, complex, enum.Enum, float, int, np.dtype, np.generic, np.ufunc, str),
    *(
        datetime.date,
        datetime.time,
        datetime.timedelta,
        datetime.tzinfo,
        tuple,
        frozenset,
    ),
    *(type, types.BuiltinFunctionType, types.FunctionType, types.ModuleType),
    *(types.CodeType, type(None)),
)
# A longer one was perhaps given as a value of its own, and is itself where it occurs again.
_SHORT = 64
# Objects of values that were looked into last, which may be in the next task as well.
_KEPT = 64


class Sharing:
    """Finds values that share objects.

    What a value consists of is found by pickling it. Arrays, and what is of bytes or
    characters alone, consist of themselves.

    Parameters
    ----------
    objects_in
        Gives the objects that the pickle of a value has once.
    """

    #: By id, with the value, so that its id stays its own. So the objects are kept.
    _objects: dict[int, tuple[Any, dict[int, Any]]]

    def __init__(self, objects_in: Callable[[Any], list[Any]]):
        self._objects_in = objects_in
        self._objects = {}

    def groups(self, values: Sequence[Any]) -> list[list[int]]:
        """Which of some values share objects: their places, at least two in a group."""
        root = list(range(len(values)))

        def find(place: int) -> int:
            while root[place] != place:
                place = root[place]
            return place

        objects = list(map(self._of, values))
        first: dict[int, int] = {}
        # The largest one last: nothing is done for each object in it.
        *smaller, largest = sorted(root, key=lambda place: len(objects[place]))
        for place in (*smaller, largest):
            for i in first.keys() & objects[place].keys():
                root[find(place)] = find(first[i])
            if place != largest:
                first.update(dict.fromkeys(objects[place], place))
        groups: dict[int, list[int]] = {}
        for place in range(len(values)):
            groups.setdefault(find(place), []).append(place)
        return [group for group in groups.values() if len(group) > 1]

    def _of(self, value: Any) -> dict[int, Any]:
        if is_one_object(value):
            return {id(value): value}
        known = self._objects.get(id(value))
        if known is None:
            known = self._objects[id(value)] = value, self._look_into(value)
            if len(self._objects) > _KEPT:
                del self._objects[next(iter(self._objects))]
        return known[1]

    def _look_into(self, value: Any) -> dict[int, Any]:
        # The pickler may know the value by what it has put in its place.
        met = {id(thing): thing for thing in self._objects_in(value) if _counts(thing)}
        return {id(value): value, **met}


def may_share(value: Any) -> bool:
    """Whether a small value may be, or have in it, what a function could tell apart."""
    return type(value) not in FREE and (
        _counts(value) or (isinstance(value, (tuple, frozenset)) and bool(value))
    )


def is_one_object(value: Any) -> bool:
    """Whether a value cannot have another one in it that a function could tell apart."""
    if is_proxy(value):
        return True  # it is stored as it is, and in no tuple
    if type(value) is np.ndarray:
        return not value.dtype.hasobject
    return type(value) in (bytes, bytearray, str)


def _counts(thing: Any) -> bool:
    """Whether a function could tell one object from two equal ones."""
    if is_proxy(thing):
        return False
    if issubclass(type(thing), _IMMUTABLE):
        try:
            return len(thing) > _SHORT
        except TypeError:
            # It has none; its class may seem to, which for an enumeration is the number of
            # its members.
            return False
    return True
