"""What daskps is to reach, and what it has reached.

The goals are ratios of paired runs in one scenario, and counts: both say the same on a slow
machine and on a fast one. They are for the sizes of the catalogue, and for two cores.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import paper, shapes
from benchmarks.peers import LIMIT, RAY
from benchmarks.results import Comparison
from benchmarks.scenario import MB

DASK, DASKPS, EX = "dask", "daskps", "proxystore_ex"
#: daskps on the store that it chooses on one host.
SHM = "daskps shm"


class Quantity(enum.Enum):
    """What a goal is about."""

    SPEEDUP = "times as fast as {}"
    TIME = "times the time of {}"
    CPU = "times the scheduler's CPU with {}"
    STORED = "bytes put into the store"
    COPIES_BY_CLIENT = "copies by the client"
    COPIES_BY_WORKER = "copies by the worker"


#: Goals for which more is better.
AT_LEAST = {Quantity.SPEEDUP}


@dataclass(frozen=True)
class Goal:
    """One figure that is asked for.

    Attributes
    ----------
    scenario
        Its name in the catalogue.
    quantity
        Of daskps.
    asked
        The least or the most, see :data:`AT_LEAST`.
    against
        The peer that daskps is compared with, for ratios.
    of
        The name that daskps has among the peers.
    """

    scenario: str
    quantity: Quantity
    asked: float
    against: str = ""
    of: str = DASKPS

    def __str__(self) -> str:
        bound = "at least" if self.quantity in AT_LEAST else "at most"
        peer = "the limit" if self.against == LIMIT else self.against
        return f"{bound} {self.asked:g} {self.quantity.value.format(peer)}"


@dataclass(frozen=True)
class Outcome:
    """What became of a goal.

    Attributes
    ----------
    value
        What was measured; None: not in this run.
    text
        The same for people, with its spread.
    """

    goal: Goal
    value: float | None
    text: str

    @property
    def reached(self) -> bool | None:
        """Whether it was reached; None: not measured."""
        if self.value is None:
            return None
        if self.goal.quantity in AT_LEAST:
            return self.value >= self.goal.asked
        return self.value <= self.goal.asked

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "scenario": self.goal.scenario,
            "quantity": self.goal.quantity.name.lower(),
            "against": self.goal.against,
            "asked": self.goal.asked,
            "measured": self.value,
            "text": self.text,
            "reached": self.reached,
        }


def _goals() -> Iterator[Goal]:
    speedup, time, cpu = Quantity.SPEEDUP, Quantity.TIME, Quantity.CPU
    ways = ("in", "out", "in and out")
    # What is too small to gain costs no more than the noise.
    for size, most in (("10 kB", 1.02), ("100 kB", 1.02), ("1 MB", 1.0)):
        for way in ways:
            yield Goal(f"round trip {size} {way}", time, most, DASK)
    name = "round trip 100 MB in"
    yield Goal(name, speedup, 4, DASK)
    yield Goal(name, time, 1.5, LIMIT)
    yield Goal(name, speedup, 6, EX)
    yield Goal(name, time, 2.5, RAY)
    name = "round trip 100 MB in and out"
    yield Goal(name, speedup, 1.8, DASK)
    yield Goal(name, speedup, 8, EX)
    name = "256 MB result of compute()"
    yield Goal(name, speedup, 1.5, DASK)
    yield Goal(name, time, 1.2, LIMIT)
    yield Goal("64 MB model in 32 delayed tasks", speedup, 12, DASK)
    yield Goal("64 MB model in a map of 32", speedup, 12, DASK)
    yield Goal("64 MB model in 32 submits", speedup, 6, DASK)
    yield Goal("read-only 64 MB model in 32 submits", speedup, 20, DASK)
    name = "from_array 256 MB, sum"
    yield Goal(name, speedup, 2, DASK)
    yield Goal(name, time, 1.4, LIMIT)
    yield Goal("from_pandas 256 MB, mean", speedup, 3, DASK)
    yield Goal("bag of 256 MB of bytes", speedup, 4, DASK)
    name = "second compute() on 256 MB"
    yield Goal(name, speedup, 3, DASK)
    yield Goal(name, Quantity.STORED, 0)
    name = "Cholesky 4096, blocks of 512"
    yield Goal(name, speedup, 1.4, DASK)
    yield Goal(name, time, 1.2, LIMIT)
    for workers in (2, 4, 8):
        name = f"200 tasks, 1 MB in and out, {workers} workers"
        yield Goal(name, speedup, 1, DASK)
        yield Goal(name, speedup, 0.85, LIMIT)
        yield Goal(name, cpu, 0.5, DASK)
        yield Goal(name, cpu, 1.1, LIMIT)
    # A graph without anything large.
    yield Goal("graph of 100000 small tasks, submitted", time, 1.02, DASK)
    yield Goal("2000 small tasks, computed", time, 1.02, DASK)
    yield Goal("2000 small tasks, computed", cpu, 1.02, DASK)
    # Whoever has switched it on and forgotten it loses nothing. The rest is the noise.
    for scenario in shapes.shapes():
        yield Goal(scenario.name, speedup, 0.98, DASK)
    # One copy by whoever has the data, into the store, and none by whoever reads it.
    here, there = Quantity.COPIES_BY_CLIENT, Quantity.COPIES_BY_WORKER
    for name in (
        "round trip 100 MB in",
        "from_array 100 MB, one block",
        "from_pandas 100 MB, one block",
        "bag of bytes 100 MB, one block",
    ):
        yield Goal(name, here, 1)
        yield Goal(name, there, 0)
    yield Goal("round trip 100 MB out", here, 0)
    # The value itself, and its copy in the store.
    yield Goal("round trip 100 MB out", there, 2)
    yield from _goals_of_the_paper()


def _goals_of_the_paper() -> Iterator[Goal]:
    """What it shows of proxies in Dask, on other machines: daskps is to gain as much."""
    for size, less in (("1 MB", 0.35), ("100 MB", 0.52)):
        name = f"paper: round trip {size} in and out"
        yield Goal(name, Quantity.TIME, 1 - less, DASK, SHM)
    for workers in paper.WORKERS:
        name = f"paper: {paper.TASKS[MB]} tasks, 1 MB in and out, {workers} workers"
        yield Goal(name, Quantity.SPEEDUP, 1.25, DASK, SHM)


GOALS = tuple(_goals())


def outcomes(comparisons: Iterable[Comparison]) -> list[Outcome]:
    """What became of each goal."""
    by_name = {c.scenario: c for c in comparisons}
    return [_outcome(goal, by_name.get(goal.scenario)) for goal in GOALS]


def _outcome(goal: Goal, c: Comparison | None) -> Outcome:
    if c is None or (goal.against and goal.against not in c.peers):
        return Outcome(goal, None, "not measured")
    if goal.quantity in (Quantity.SPEEDUP, Quantity.TIME, Quantity.CPU):
        of = "cpu" if goal.quantity is Quantity.CPU else "seconds"
        pair = (goal.of, goal.against)
        if goal.quantity in AT_LEAST:
            pair = (goal.against, goal.of)
        ratio = c.ratio(*pair, of)
        return Outcome(goal, ratio.median, str(ratio))
    value = _count(goal.quantity, c)
    return Outcome(goal, value, "not measured" if value is None else f"{value:g}")


def _count(quantity: Quantity, c: Comparison) -> float | None:
    """A count, copies to a tenth."""
    ours = c.peers[DASKPS]
    if quantity is Quantity.STORED:
        return ours.most("stored")
    if ours.copies is None:
        return None
    by_client = quantity is Quantity.COPIES_BY_CLIENT
    return round((ours.copies.client if by_client else ours.copies.worker).made, 1)
