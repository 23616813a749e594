"""How much data a graph holds, found without walking it task by task. Runs on the client.

A graph without anything large must cost next to nothing, whatever its size, so that daskps
can be left on. So the census takes all tasks together, and goes down level by level
(:mod:`daskps.objects.sizes`). Only if there is enough in them for one of them to be large,
as a whole, are they taken in ever smaller parts, of which most are light.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from daskps.config import large_graph
from daskps.objects.pickles import Pickles
from daskps.objects.sizes import nbytes_of_all
from daskps.safety_net import fell_back

#: A thing of so many bytes is worth a reference, if much else is on the scheduler.
HEAVY_NBYTES = 64 << 10
# Many things are weighed in parts. If no part is heavy, no thing is, and nobody has to look
# for heavy ones. How many a part has follows from what those before had: half as much as
# would be heavy; so many at first, at least and at most.
PART_LENGTH, PARTS_AT_LEAST, PARTS_AT_MOST = 100, 50, 2000
# What parts share counts in each, so not if they seem to have more than this together.
PARTS_NBYTES = 4 << 20


@dataclass
class Weight:
    """What a graph holds.

    Attributes
    ----------
    things
        Its nodes and literals.
    nbytes
        Bytes of all of them, about as they would be sent; each object once, unless all of
        them are small.
    proxies
        Nodes for values that are stored already, and proxies made by hand.
    pickles
        What had to be pickled to be weighed.
    light
        Whether it is known that no thing has :data:`HEAVY_NBYTES`.
    """

    things: list[Any]
    nbytes: int = 0
    proxies: list[Any] = field(default_factory=list)
    pickles: Pickles = field(default_factory=Pickles)
    light: bool = False
    _each: dict[int, tuple[Any, int]] = field(default_factory=dict)

    def nbytes_of(self, thing: Any) -> int:
        """Bytes of one of the nodes and literals, or of a value in it, found once."""
        found = self._each.get(id(thing))
        if found is None:
            found = self._each[id(thing)] = thing, _nbytes([thing], self.pickles, None)
        return found[1]

    def heavy(self, at_least: int) -> Iterator[tuple[Any, int]]:
        """Nodes and literals of so many bytes each, as wholes, with their bytes.

        Lazily: each takes a look at no more than its share of the graph.
        """
        if self.light and at_least >= HEAVY_NBYTES:
            return iter(())
        return self._heavy(self.things, self.nbytes, at_least)

    def has(self, at_least: int) -> bool:
        """Whether a node or literal has so many bytes, as a whole."""
        return any(True for _ in self.heavy(at_least))

    def is_large(self, threshold: int) -> bool:
        """Whether something of it is to leave the graph: see :meth:`packs`."""
        return self.nbytes > large_graph() or self.has(threshold)

    def packs(self, large: int, threshold: int) -> bool:
        """Whether values below the threshold are to leave the graph, too.

        They are so many that Dask would warn of them, or make one task large.

        Parameters
        ----------
        large
            Bytes of the values from the threshold on.
        threshold
            Bytes.
        """
        small = self.nbytes - large
        return small > large_graph() or (not large and self.has(threshold))

    def _heavy(
        self, things: list[Any], nbytes: int, at_least: int
    ) -> Iterator[tuple[Any, int]]:
        if nbytes < at_least or not things:
            return
        if len(things) == 1:
            yield things[0], nbytes
            return
        # So many parts that one is light unless its things are heavier than most. What
        # things share is weighed with each part, so few are better than many.
        parts = min(len(things), max(2, 2 * nbytes // max(at_least, 1)))
        length = -(-len(things) // parts)
        for start in range(0, len(things), length):
            part = things[start : start + length]
            yield from self._heavy(part, self._nbytes_of_part(part), at_least)

    def _nbytes_of_part(self, part: list[Any]) -> int:
        if len(part) == 1:
            return self.nbytes_of(part[0])
        return _nbytes(part, self.pickles, None)


def weigh(things: Iterable[Any]) -> Weight:
    """Weigh tasks and values.

    What cannot be weighed counts as nothing (:mod:`daskps.safety_net`).

    Parameters
    ----------
    things
        Graph nodes and literals, in any mix.
    """
    weight = Weight(list(things))
    if len(weight.things) > PART_LENGTH:
        nbytes = _nbytes_if_light(weight)
        if nbytes is not None:
            weight.light, weight.nbytes = True, nbytes
            return weight
    weight.nbytes = _nbytes(weight.things, weight.pickles, weight.proxies)
    return weight


def _nbytes_if_light(weight: Weight) -> int | None:
    """Bytes of many things, at most, if none of them is heavy and none is stored."""
    start, total, length = 0, 0, PART_LENGTH
    while start < len(weight.things):
        part = weight.things[start : start + length]
        proxies: list[Any] = []
        nbytes = _nbytes(part, weight.pickles, proxies)
        start, total = start + len(part), total + nbytes
        if proxies or nbytes >= HEAVY_NBYTES or total > PARTS_NBYTES:
            return None
        fitting = HEAVY_NBYTES * start // (2 * total + 1)
        length = min(max(fitting, PARTS_AT_LEAST), PARTS_AT_MOST)
    return total


def _nbytes(things: list[Any], pickles: Pickles, proxies: list[Any] | None) -> int:
    found: list[Any] = []
    try:
        nbytes = nbytes_of_all(things, pickles, found)
    except Exception as e:
        if len(things) == 1:
            fell_back(e, "weigh", things[0])
            return 0
        # One by one, so that a single odd object does not hide what the others hold.
        return sum(_nbytes([thing], pickles, proxies) for thing in things)
    if proxies is not None:
        proxies += found
    return nbytes
