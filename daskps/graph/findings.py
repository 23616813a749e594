"""What a search has found: which values are large, where, and how often they occur."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
    where
        The layer, or the task, in which it occurs first.
    count
        How often it occurs in the graph.
    """

    value: Any
    nbytes: int
    where: Any
    count: int = 0


class Findings:
    """What one search has found, each value once.

    Parameters
    ----------
    at_least
        Bytes from which on a value is to leave the graph.
    weigh
        Gives the bytes of a value.

    Attributes
    ----------
    where
        The layer, or the task, that the search is at.
    """

    at_least: int
    where: Any
    _found: dict[int, Found]
    #: With the value, so that its id stays its own.
    _sizes: dict[int, tuple[Any, int]]

    def __init__(self, at_least: int, weigh: Callable[[Any], int] = nbytes_of):
        self.at_least = at_least
        self._weigh = weigh
        self.where = ""
        self._found = {}
        self._sizes = {}

    def __iter__(self) -> Iterator[Found]:
        return iter(self._found.values())

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
            self._found[id(value)] = Found(value, nbytes, self.where)
        self._found[id(value)].count += 1
