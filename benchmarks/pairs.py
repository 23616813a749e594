"""Measure peers in turn, on the same cluster, and compare them run by run."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

from benchmarks.cluster import MIB, Cluster
from benchmarks.peers import PEERS, Connected
from benchmarks.scenarios import Scenario

#: The name of the same work with no data shipped.
LIMIT = "limit"
# Seconds. Dask's client sends nothing for 10 ms after it has sent something: what one run
# releases at its end would otherwise hold up the next.
QUIET = 0.03


@dataclass
class Measured:
    """What one peer took for one scenario.

    Attributes
    ----------
    seconds
        For each run.
    growth
        The most that the scheduler's memory grew in any run, bytes.
    cpu
        Processor time of the scheduler for all runs, seconds.
    """

    seconds: list[float] = field(default_factory=list)
    growth: int = 0
    cpu: float = 0.0

    def add(self, seconds: float, growth: int, cpu: float) -> None:
        """One more run."""
        self.seconds.append(seconds)
        self.growth = max(self.growth, growth)
        self.cpu += cpu

    @property
    def median(self) -> float:
        """Seconds of the median run."""
        return statistics.median(self.seconds)


@dataclass
class Comparison:
    """Peers side by side.

    Attributes
    ----------
    scenario
        Its name.
    peers
        By name; ``limit`` is the same work with no data shipped, if there is such.
    tasks
        How many tasks all runs of a peer were; 0: not of interest.
    """

    scenario: str
    peers: dict[str, Measured]
    tasks: int = 0

    def speedup(self, peer: str, of: str = "daskps") -> tuple[float, float, float]:
        """How many times faster one is than the other: median and quartiles of pairs."""
        pairs = zip(self.peers[peer].seconds, self.peers[of].seconds, strict=True)
        ratios = sorted(slow / fast for slow, fast in pairs)
        low, median, high = statistics.quantiles(ratios, n=4)
        return median, low, high

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "scenario": self.scenario,
            "peers": {
                name: {"seconds": m.seconds, "growth": m.growth, "cpu": m.cpu}
                for name, m in self.peers.items()
            },
        }


def compare(
    cluster: Cluster, scenario: Scenario, repeat: int, progress: Callable[[str], None]
) -> Comparison:
    """Measure all peers.

    Each peer does one run to warm up. Then they take turns, each run on data of its own.

    Parameters
    ----------
    cluster
        Where.
    scenario
        What.
    repeat
        How many runs each.
    progress
        Called after each run, with the peer's name.
    """
    with contextlib.ExitStack() as stack:
        connected = {
            name: stack.enter_context(PEERS[name](cluster.address))
            for name in scenario.peers
        }
        if scenario.limit is not None:
            connected[LIMIT] = connected["dask"]
        measured = {name: Measured() for name in connected}
        for i in range(repeat + 1):
            for name, peer in connected.items():
                with peer.client.as_current(), peer.block():
                    run = _run(cluster, peer, scenario, name == LIMIT)
                if i:
                    measured[name].add(*run)
                progress(name)
    return Comparison(scenario.name, measured, repeat * scenario.tasks)


def _run(
    cluster: Cluster, peer: Connected, scenario: Scenario, limit: bool
) -> tuple[float, int, float]:
    client = peer.client
    make = scenario.prepare
    if limit and scenario.prepare_limit is not None:
        make = scenario.prepare_limit
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        warnings.filterwarnings("ignore", module="proxystore_ex")
        prepared = make(client)
        gc.collect()
        _settle(client)
        time.sleep(QUIET)
        before, cpu = cluster.reset_peak(), cluster.cpu()
        start = time.perf_counter()
        if limit:
            assert scenario.limit is not None
            result = scenario.limit(client, prepared)
        else:
            result = scenario.work(client, prepared, peer.ship)
        seconds = time.perf_counter() - start
        growth, cpu = cluster.peak() - before, cluster.cpu() - cpu
    if not limit:
        scenario.check(prepared, result)
    del prepared, result
    gc.collect()
    _settle(client)
    return seconds, growth, cpu


def _settle(client: Client) -> None:
    """Wait until the cluster has nothing left to do or to forget."""
    deadline = time.monotonic() + 5
    while client.run_on_scheduler(_tasks) > _kept and time.monotonic() < deadline:
        time.sleep(0.01)


_kept = 0


def _tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def heading() -> str:
    """For the lines of :func:`line`."""
    return f"{'':36}{'time':>9}   daskps is faster by      scheduler grows by"


def line(c: Comparison) -> str:
    """What people want to know of a comparison: a line for each peer."""
    rows = []
    for name, measured in c.peers.items():
        text = f"{measured.median * 1e3:6.0f} ms"
        if name != "daskps":
            median, low, high = c.speedup(name)
            text += f"   {median:5.2f} ({low:.2f} to {high:.2f})".ljust(27)
        else:
            text += " " * 27
        text += f"{measured.growth / MIB:8.0f} MiB"
        if c.tasks:
            text += f", {measured.cpu / c.tasks * 1e3:.2f} ms of its CPU for a task"
        rows.append(f"    {name:32}{text}")
    return "\n".join([c.scenario, *rows])
