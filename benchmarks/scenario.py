"""What a scenario is: one piece of work, in the forms in which it is measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from distributed import Client, wait

#: Bytes. Dask's own sizes are decimal, too: its limit for a large graph, our threshold.
KB, MB, GB = 10**3, 10**6, 10**9

#: Given a value, what a peer's user passes to tasks in its place.
Ship: TypeAlias = Callable[[Any], Any]

_seed = itertools.count()


def _unchecked(prepared: Any, result: Any) -> None:
    """There is nothing to check."""


@dataclass(frozen=True)
class Work:
    """What is done and timed.

    Attributes
    ----------
    prepare
        Makes what the work needs, which nobody has seen before, given the client; not timed.
    do
        Given the client, what was prepared, and how the peer ships a value; timed. Gives a
        result to check.
    check
        Raises if the result is wrong, given what was prepared and the result; not timed.
    """

    prepare: Callable[[Client], Any]
    do: Callable[[Client, Any, Ship], Any]
    check: Callable[[Any, Any], None] = _unchecked


@dataclass(frozen=True)
class Scenario:
    """One piece of work, and who does it.

    Attributes
    ----------
    name
        For tables; unique.
    work
        What is done.
    limit
        The same work with no data shipped: the fastest that anybody could be.
    peers
        Names of those who are compared.
    group
        Scenarios of one group share a plot.
    panel
        Those of one panel are side by side with those of others in that plot.
    at
        Where the scenario is in its group's plot, if that has an axis: bytes or workers.
    tasks
        How many tasks the work is, where the scheduler's time for each is of interest.
    workers
        How many the cluster has to have; 0: does not matter.
    nbytes
        Size of the data, which has to have room in memory several times.
    in_one_piece
        Whether the data is a single block, so that its copies can be counted.
    brief
        Whether few rounds have to do, since there are many peers.
    ray
        The same work for Ray: the name of a function in ``ray_server.py`` and its arguments.
    """

    name: str
    work: Work
    limit: Work | None
    peers: tuple[str, ...]
    group: str
    panel: str = ""
    at: float = 0
    tasks: int = 0
    workers: int = 0
    nbytes: int = 0
    in_one_piece: bool = False
    brief: bool = False
    ray: dict[str, Any] = field(default_factory=dict)


def fresh(nbytes: int) -> np.ndarray:
    """An array of this size that nobody has seen before."""
    return np.random.default_rng(next(_seed)).random(max(1, nbytes // 8))


class WarmCopy:
    """Copies a value into memory that the kernel has given already.

    What nobody can do without who hands data to another process. Part of the limit.
    """

    def __init__(self, value: np.ndarray):
        self._from = value
        self._to = np.ones_like(value)

    def __call__(self) -> None:
        """Copy once."""
        np.copyto(self._to, self._from)


def on_workers(collection: Any) -> Any:
    """Compute a collection and leave it where it is."""
    collection = collection.persist()
    wait(collection)
    return collection


def same(result: Any, expected: Any) -> None:
    """Check a list."""
    assert list(result) == list(expected), "a wrong result"


def size(nbytes: int) -> str:
    """In words."""
    for unit, name in ((GB, "GB"), (MB, "MB"), (KB, "kB")):
        if nbytes >= unit:
            return f"{nbytes / unit:g} {name}"
    return f"{nbytes} B"
