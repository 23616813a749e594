"""What a search has found: which values are large, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from daskps.objects.sizes import FREE, nbytes_of
from daskps.references.proxies import is_proxy


@dataclass
class Found:
    """One value that is to leave the graph.

    Attributes
    ----------
    value
        The value.
    nbytes
        Its size, about as it would be sent.
    """

    value: Any
    nbytes: int


class Together(NamedTuple):
    """Values of one task that share objects.

    Attributes
    ----------
    values
        One for each place in the task.
    whole
        What is to be stored: a tuple of them, or the value, if all are the same one.
    """

    values: list[Any]
    whole: Any


class Findings:
    """What one search has found, each value once.

    Parameters
    ----------
    at_least
        Bytes from which on a value is to leave the graph.
    weigh
        Gives the bytes of a value.

    Notes
    -----
    Who also wants to know where a value is, derives from this
    (:class:`daskps.explanation.uses.Uses`).
    """

    at_least: int
    _found: dict[int, Found]
    #: With the value, so that its id stays its own.
    _sizes: dict[int, tuple[Any, int]]
    #: By ids of the values: tasks may have the same ones.
    _together: dict[tuple[int, ...], Together]

    def __init__(self, at_least: int, weigh: Callable[[Any], int] = nbytes_of):
        self.at_least = at_least
        self._weigh = weigh
        self._found = {}
        self._sizes = {}
        self._together = {}

    def __iter__(self) -> Iterator[Found]:
        return iter(self._found.values())

    def enter_layer(self, name: str) -> None:
        """The search comes to a layer of a graph."""

    def enter(self, key: Any, holder: Any) -> None:
        """The search comes to what holds values.

        Parameters
        ----------
        key
            Of the task. Where `holder` stands for many tasks, what stands for some of them:
            ``(dependency, block)`` in a symbolic layer, ``(iterable, position)`` in a map;
            or None: all of them.
        holder
            The task, symbolic layer or expression.
        """

    def is_large(self, value: Any) -> bool:
        """Whether a value is to leave the graph; proxies made by hand are."""
        return is_proxy(value) or self.nbytes(value) >= self.at_least

    def nbytes(self, value: Any) -> int:
        """The size of a value, which is not a proxy."""
        if type(value) in FREE:
            return 0
        if id(value) not in self._sizes:
            self._sizes[id(value)] = value, self._weigh(value)
        return self._sizes[id(value)][1]

    def add(self, value: Any) -> None:
        """Note that a value occurs here."""
        if id(value) not in self._found:
            nbytes = nbytes_of(value) if is_proxy(value) else self.nbytes(value)
            self._found[id(value)] = Found(value, nbytes)

    def together(self, values: list[Any]) -> Together:
        """Note that these values of one task are to be stored as one."""
        ids = tuple(map(id, values))
        if ids not in self._together:
            whole = values[0] if len(set(ids)) == 1 else tuple(values)
            self._together[ids] = Together(values, whole)
        return self._together[ids]

    def to_store(self, at_least: int) -> list[Any]:
        """What is to be stored, from a size (bytes) on, each once."""
        wholes = [t for t in self._together.values() if t.whole is not t.values[0]]
        parts = {id(value) for together in wholes for value in together.values}
        found = (f for f in self if f.nbytes >= at_least and id(f.value) not in parts)
        return [*(f.value for f in found), *(t.whole for t in wholes)]
