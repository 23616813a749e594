"""Measure peers in turn, on the same cluster, and compare them run by run."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

import daskps
from benchmarks.cluster import MIB, Cluster
from benchmarks.scenarios import Scenario

# Seconds. Dask's client sends nothing for 10 ms after it has sent something: what one run
# releases at its end would otherwise hold up the next.
QUIET = 0.03


@contextlib.contextmanager
def plain(client: Client) -> Iterator[None]:
    """Dask as it is."""
    yield


@contextlib.contextmanager
def with_daskps(client: Client) -> Iterator[None]:
    """Within a proxy_graph block."""
    with daskps.proxy_graph(client=client):
        yield


PEERS: dict[str, Callable[[Client], Any]] = {"dask": plain, "daskps": with_daskps}


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
    """

    scenario: str
    peers: dict[str, Measured]

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
    cluster: Cluster, scenario: Scenario, repeat: int, progress: Callable[[], None]
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
        Called after each run.
    """
    peers = {name: Measured() for name in PEERS}
    if scenario.limit is not None:
        peers["limit"] = Measured()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(cluster.address, set_as_default=True))
        for i in range(repeat + 1):
            for name, measured in peers.items():
                with PEERS.get(name, plain)(client):
                    run = _run(cluster, client, scenario, name == "limit")
                if i:
                    measured.seconds.append(run[0])
                    measured.growth = max(measured.growth, run[1])
                    measured.cpu += run[2]
                progress()
    return Comparison(scenario.name, peers)


def _run(
    cluster: Cluster, client: Client, scenario: Scenario, limit: bool
) -> tuple[float, int, float]:
    prepared = scenario.prepare(client)
    gc.collect()
    _settle(client)
    time.sleep(QUIET)
    before, cpu = cluster.reset_peak(), cluster.cpu()
    work = scenario.limit if limit else scenario.work
    assert work is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        start = time.perf_counter()
        result = work(client, prepared)
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


def table(comparisons: list[Comparison]) -> str:
    """A table for people."""
    lines = [
        f"{'':36}{'dask':>9}{'daskps':>9}{'limit':>9}   daskps is faster by      "
        "scheduler grows by"
    ]
    for c in comparisons:
        limit = c.peers.get("limit")
        median, low, high = c.speedup("dask")
        growth = " / ".join(f"{c.peers[p].growth / MIB:.0f}" for p in PEERS)
        lines.append(
            f"{c.scenario:36}"
            f"{c.peers['dask'].median * 1e3:6.0f} ms"
            f"{c.peers['daskps'].median * 1e3:6.0f} ms"
            + (f"{limit.median * 1e3:6.0f} ms" if limit else f"{'':9}")
            + f"   {median:5.2f} ({low:.2f} to {high:.2f})"
            f"   {growth:>12} MiB"
        )
    return "\n".join(lines)
