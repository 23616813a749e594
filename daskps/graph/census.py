"""How much data a graph holds, found without walking it task by task. Runs on the client.

A graph without anything large must cost next to nothing, whatever its size, so that daskps
can be left on. So the census takes all tasks together, and goes down level by level
(:mod:`daskps.objects.sizes`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

from proxystore.proxy import Proxy

from daskps.objects.sizes import by_type, leaves, sizes_of
from daskps.references.nodes import ProxyNode
from daskps.safety_net import fell_back

# Containers that are values of the graph themselves are weighed as a whole as well, so many.
_WHOLE = {list, dict, set}
WHOLES_AT_MOST = 1000


class Weight(NamedTuple):
    """What a graph holds.

    Attributes
    ----------
    largest
        Bytes of the largest single value.
    small
        Bytes of all values below the threshold, each counted once.
    proxies
        Nodes for values that are stored already, and proxies made by hand.
    """

    largest: int
    small: int
    proxies: list[Any]


NOTHING = Weight(0, 0, [])


def weigh(things: Iterable[Any], threshold: int) -> Weight:
    """Weigh tasks and values.

    What cannot be weighed counts as nothing (:mod:`daskps.safety_net`).

    Parameters
    ----------
    things
        Graph nodes and literals, in any mix.
    threshold
        Bytes.
    """
    given = list(things)
    try:
        return _weigh(given, threshold)
    except Exception:
        # One by one, so that a single odd object does not hide what the others hold.
        return _sum(_weighed_alone(thing, threshold) for thing in given)


def _weighed_alone(thing: Any, threshold: int) -> Weight:
    try:
        return _weigh([thing], threshold)
    except Exception as e:
        fell_back(e, "weigh", thing)
        return NOTHING


def _sum(weights: Iterable[Weight]) -> Weight:
    return functools.reduce(
        lambda a, b: Weight(
            max(a.largest, b.largest), a.small + b.small, a.proxies + b.proxies
        ),
        weights,
        NOTHING,
    )


def _weigh(things: list[Any], threshold: int) -> Weight:
    groups = by_type(things)
    scales = _Scales(threshold)
    # Partitions of bags are lists: large ones are stored whole.
    rest = WHOLES_AT_MOST
    for type_ in _WHOLE & groups.keys():
        wholes, groups[type_] = groups[type_][:rest], groups[type_][rest:]
        rest -= len(wholes)
        scales.add_wholes(wholes)
    scales.add({type_: members for type_, members in groups.items() if members})
    return Weight(scales.largest, scales.small, scales.proxies)


class _Scales:
    """Add up what a graph holds: see :class:`Weight`."""

    def __init__(self, threshold: int):
        self.largest = self.small = 0
        self.proxies: list[Any] = []
        self._threshold = threshold
        self._counted: dict[int, Any] = {}

    def add(self, groups: dict[type, list[Any]]) -> None:
        """All that is in these objects, by type."""
        for type_, members in leaves(groups, self._threshold):
            self._add_leaves(type_, members)

    def add_wholes(self, containers: list[Any]) -> None:
        """These containers, and all that is in them: one walk for both."""
        for container in containers:
            counted: dict[int, Any] = {}
            nbytes = 0
            groups = {type(container): [container]}
            for type_, members in leaves(groups, self._threshold):
                self._add_leaves(type_, members)
                nbytes += sum(sizes_of(type_, members, counted))
            self.largest = max(self.largest, nbytes)

    def _add_leaves(self, type_: type, members: list[Any]) -> None:
        if issubclass(type_, (ProxyNode, Proxy)):
            self.proxies += members
            return
        sizes = sizes_of(type_, members, self._counted)
        largest = max(sizes, default=0)
        self.largest = max(self.largest, largest)
        if largest < self._threshold:
            self.small += sum(sizes)
        else:
            self.small += sum(filter(self._threshold.__gt__, sizes))
