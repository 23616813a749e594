"""What was measured: runs of peers, and how they compare."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.counters import Copies


@dataclass
class Run:
    """One run of one peer.

    Attributes
    ----------
    seconds
        How long it took.
    cpu
        Processor time of the scheduler, seconds.
    cpu_of_all
        The same of the scheduler, the workers and the client together.
    growth
        How far the scheduler's peak memory rose, bytes.
    traffic
        What the scheduler read from its connections and wrote to them, bytes.
    puts, stored
        Objects that were put into stores, and their bytes.
    """

    seconds: float
    cpu: float = 0.0
    cpu_of_all: float = 0.0
    growth: int = 0
    traffic: int = 0
    puts: int = 0
    stored: int = 0


@dataclass
class Measured:
    """What one peer took for one scenario: its runs, and copies, if they were counted."""

    runs: list[Run] = field(default_factory=list)
    copies: Copies | None = None

    def median(self, of: str = "seconds") -> float:
        """Median over the runs, of a time or a count."""
        return statistics.median(getattr(run, of) for run in self.runs)

    def most(self, of: str) -> float:
        """The most of any run."""
        return max(getattr(run, of) for run in self.runs)


@dataclass
class Ratio:
    """Median and quartiles over pairs of runs."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass
class Comparison:
    """Peers side by side in one scenario.

    Attributes
    ----------
    scenario, group, at, tasks, panel
        As in :class:`~benchmarks.scenario.Scenario`.
    peers
        By name. All have as many runs, which took place in turn.
    """

    scenario: str
    group: str
    at: float
    tasks: int
    peers: dict[str, Measured]
    panel: str = ""

    def ratio(self, peer: str, to: str, of: str = "seconds") -> Ratio:
        """How many times as long (or as much) one takes as the other, run by run."""
        pairs = zip(self.peers[peer].runs, self.peers[to].runs, strict=True)
        ratios = [getattr(a, of) / getattr(b, of) for a, b in pairs]
        low, median, high = map(float, np.quantile(ratios, (0.25, 0.5, 0.75)))
        return Ratio(median, low, high)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)
