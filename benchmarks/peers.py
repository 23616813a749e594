"""Who is compared: Dask as it is, daskps, and other ways to ship a value to a task.

Each has a client of its own on the same cluster. Ray is in ``ray_peer.py``.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from distributed import Client
from proxystore.connectors.file import FileConnector
from proxystore.store import Store

import daskps
from benchmarks import counters, memory, tasks
from benchmarks.cluster import Cluster
from benchmarks.counters import Copies
from benchmarks.results import Run
from benchmarks.scenario import Scenario, Work

#: The name of the same work with no data shipped, which plain Dask does.
LIMIT = "limit"
#: daskps, with everything by reference.
BY_REFERENCE = "by reference"
#: Peers that change what the cluster does for everybody.
OURS = ("daskps", BY_REFERENCE)
RAY = "ray"

# Seconds. Dask's client sends nothing for 10 ms after it has sent something: what one run
# releases at its end would otherwise hold up the next.
QUIET = 0.03


@dataclass(frozen=True)
class Peer:
    """Does scenarios on a running cluster.

    Attributes
    ----------
    cluster
        Where.
    client
        Its client.
    ship
        Given a value, what the user of this peer passes to tasks in its place.
    block
        Makes the context in which one run takes place.
    """

    cluster: Cluster
    client: Client
    ship: Callable[[Any], Any] = lambda value: value
    block: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext

    def run(self, scenario: Scenario) -> Run:
        """Do a scenario's work once, on fresh data, and check its result."""
        return self.do(scenario.work)

    def do(self, work: Work) -> Run:
        """Do a piece of work once, on fresh data, and check its result."""
        with self._ready():
            return self._timed(work)

    def copies(self, scenario: Scenario) -> Copies:
        """Do a scenario's work once, and count the copies of its data."""
        with self._ready():
            prepared = scenario.work.prepare(self.client)
            self._settle()
            return counters.count_copies(
                self.client,
                scenario.nbytes,
                lambda: scenario.work.do(self.client, prepared, self.ship),
            )

    def _timed(self, work: Work) -> Run:
        prepared = work.prepare(self.client)
        self._wake()
        counts = counters.read(self.client)
        self._settle()
        held = memory.reset_peak(self.cluster.scheduler.pid)
        cpu, cpu_of_all = self.cluster.cpu(), self.cluster.cpu_of_all()
        start = time.perf_counter()
        result = work.do(self.client, prepared, self.ship)
        seconds = time.perf_counter() - start
        cpu_of_all = self.cluster.cpu_of_all() - cpu_of_all
        cpu = self.cluster.cpu() - cpu
        growth = max(0, memory.peak(self.cluster.scheduler.pid) - held)
        counts = counters.read(self.client) - counts
        work.check(prepared, result)
        return Run(
            seconds,
            cpu,
            cpu_of_all,
            growth,
            counts.traffic,
            counts.puts,
            counts.stored,
        )

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        with self.client.as_current(), self.block(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")
            warnings.filterwarnings("ignore", module="proxystore_ex")
            yield

    def _wake(self) -> None:
        """Have every process of the cluster do something.

        One that has waited while other clusters had their turns takes longer at first.
        """
        some = [None] * 2 * len(self.cluster.workers)
        self.client.gather(self.client.map(tasks.itself, some, pure=False))

    def _settle(self) -> None:
        """Wait until the cluster has nothing left to do or to forget."""
        gc.collect()
        time.sleep(QUIET)
        deadline = time.monotonic() + 5
        while self.client.run_on_scheduler(_busy) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(QUIET)


def _busy(dask_scheduler: Any) -> bool:
    """Whether there are tasks besides those whose results somebody wants to keep."""
    return any(
        task.state != "memory" or not task.who_wants
        for task in dask_scheduler.tasks.values()
    )


@contextlib.contextmanager
def plain(cluster: Cluster) -> Iterator[Peer]:
    """Dask as it is."""
    with Client(cluster.address, set_as_default=False) as client:
        yield Peer(cluster, client)


@contextlib.contextmanager
def with_daskps(cluster: Cluster) -> Iterator[Peer]:
    """Each run within a block of its own."""
    with Client(cluster.address, set_as_default=False) as client:
        yield Peer(cluster, client, block=lambda: daskps.proxy_graph(client=client))


@contextlib.contextmanager
def by_reference(cluster: Cluster) -> Iterator[Peer]:
    """The same, with no value too small."""
    with Client(cluster.address, set_as_default=False) as client:
        yield Peer(
            cluster,
            client,
            block=lambda: daskps.proxy_graph(threshold=1, results=False, client=client),
        )


@contextlib.contextmanager
def scattered(cluster: Cluster) -> Iterator[Peer]:
    """``Client.scatter``, and the future passed to tasks."""
    with Client(cluster.address, set_as_default=False) as client:
        yield Peer(
            cluster, client, ship=lambda value: client.scatter(value, hash=False)
        )


@contextlib.contextmanager
def by_hand(cluster: Cluster) -> Iterator[Peer]:
    """A ProxyStore proxy for each value, over files in shared memory."""
    with (
        Client(cluster.address, set_as_default=False) as client,
        _store() as store,
    ):
        yield Peer(cluster, client, ship=store.proxy)


@contextlib.contextmanager
def proxystore_ex(cluster: Cluster) -> Iterator[Peer]:
    """proxystore-ex's client for Dask, over files in shared memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        from proxystore_ex.plugins.distributed import Client as ProxyClient
    with (
        _store() as store,
        ProxyClient(cluster.address, ps_store=store, set_as_default=False) as client,
    ):
        yield Peer(cluster, client)


@contextlib.contextmanager
def _store() -> Iterator[Store[Any]]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as directory,
        # Workers know a store by its name, even after it is closed here.
        # Each process that reads keeps what it has read, by default 16 objects of 1 GB.
        Store(
            directory, FileConnector(directory), cache_size=1, register=True
        ) as store,
    ):
        yield store


PEERS: dict[str, Callable[[Cluster], AbstractContextManager[Peer]]] = {
    "dask": plain,
    "daskps": with_daskps,
    BY_REFERENCE: by_reference,
    "scatter": scattered,
    "by hand": by_hand,
    "proxystore_ex": proxystore_ex,
}

#: Those that every scenario compares.
BOTH = ("dask", "daskps")
#: Those that differ where a user passes values to ``submit`` and ``map``.
ALL_AND_RAY = ("dask", "daskps", "scatter", "by hand", "proxystore_ex", RAY)
#: Those that differ where a user passes values to delayed functions.
DELAYED = ("dask", "daskps", "scatter", "by hand")
