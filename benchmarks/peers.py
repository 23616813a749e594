"""Who is compared: Dask as it is, daskps, and other ways to ship a value to a task.

Each has a client of its own on the same cluster. Ray is in ``ray_peer.py``.
"""

from __future__ import annotations

import contextlib
import gc
import secrets
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from distributed import Client
from proxystore.connectors.file import FileConnector
from proxystore.store import Store

import daskps
from benchmarks import counters, memory, tasks
from benchmarks.cluster import Cluster
from benchmarks.counters import Copies
from benchmarks.redis_server import redis_server
from benchmarks.results import Run
from benchmarks.scenario import Scenario, Work

#: The name of the same work with no data shipped, which plain Dask does.
LIMIT = "limit"
#: daskps, with everything by reference.
BY_REFERENCE = "by reference"
#: daskps on one kind of store each.
ON_STORES = ("daskps shm", "daskps peer", "daskps file", "daskps redis")
#: Peers that change what the cluster does for everybody.
OURS = ("daskps", BY_REFERENCE, *ON_STORES)
RAY = "ray"
ZARR = "zarr"

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


#: Makes a peer on a cluster.
MakePeer: TypeAlias = Callable[[Cluster], AbstractContextManager[Peer]]
#: Makes a store of ProxyStore's.
MakeStore: TypeAlias = Callable[[Cluster], AbstractContextManager[Store[Any]]]


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


def _on(url_on: Callable[[Cluster], str]) -> MakePeer:
    """The same, on a store whose URL is given by a function of the cluster."""

    @contextlib.contextmanager
    def make(cluster: Cluster) -> Iterator[Peer]:
        url = url_on(cluster)
        with Client(cluster.address, set_as_default=False) as client:
            yield Peer(
                cluster,
                client,
                block=lambda: daskps.proxy_graph(store=url, client=client),
            )

    return make


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


def _by_hand(stores: MakeStore) -> MakePeer:
    """A ProxyStore proxy for each value."""

    @contextlib.contextmanager
    def make(cluster: Cluster) -> Iterator[Peer]:
        with (
            Client(cluster.address, set_as_default=False) as client,
            stores(cluster) as store,
        ):
            yield Peer(cluster, client, ship=store.proxy)

    return make


def _proxystore_ex(stores: MakeStore) -> MakePeer:
    """proxystore-ex's client for Dask."""

    @contextlib.contextmanager
    def make(cluster: Cluster) -> Iterator[Peer]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental
            from proxystore_ex.plugins.distributed import Client as ProxyClient
        with (
            stores(cluster) as store,
            ProxyClient(
                cluster.address, ps_store=store, set_as_default=False
            ) as client,
        ):
            yield Peer(cluster, client)

    return make


@contextlib.contextmanager
def _in_files(cluster: Cluster) -> Iterator[Store[Any]]:
    """ProxyStore's, over files in shared memory."""
    with _directory() as directory, _store(FileConnector(directory)) as store:
        yield store


@contextlib.contextmanager
def _in_redis(cluster: Cluster) -> Iterator[Store[Any]]:
    """ProxyStore's, over a Redis server on this host."""
    from proxystore.connectors.redis import RedisConnector

    server = urlsplit(cluster.service("ProxyStore's Redis", redis_server))
    assert server.hostname is not None
    assert server.port is not None
    # A server of its own, since what a scenario has left goes with all that is there.
    with _store(RedisConnector(server.hostname, server.port, clear=True)) as store:
        yield store


@contextlib.contextmanager
def _zarr(cluster: Cluster) -> Iterator[Peer]:
    """Values are written to Zarr directories in shared memory; tasks read them there."""
    where = [""]

    @contextlib.contextmanager
    def directory() -> Iterator[None]:
        with _directory() as where[0]:
            yield

    with Client(cluster.address, set_as_default=False) as client:
        yield Peer(
            cluster,
            client,
            ship=lambda value: tasks.InZarr(f"{where[0]}/value.zarr", value),
            block=directory,
        )


def _store(connector: Any) -> Store[Any]:
    # Workers know a store by its name, even after it is closed here.
    # Each process that reads keeps what it has read, by default 16 objects of 1 GB.
    name = f"bench-{secrets.token_hex(8)}"
    return Store(name, connector, cache_size=1, register=True)


@contextlib.contextmanager
def _directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as directory:
        yield directory


def _files_on(cluster: Cluster) -> str:
    return f"file://{cluster.service('files', _directory)}"


def _redis_on(cluster: Cluster) -> str:
    return cluster.service("redis", redis_server)


PEERS: dict[str, MakePeer] = {
    "dask": plain,
    "daskps": with_daskps,
    BY_REFERENCE: by_reference,
    "daskps shm": _on(lambda cluster: "shm://"),
    "daskps peer": _on(lambda cluster: "peer://"),
    "daskps file": _on(_files_on),
    "daskps redis": _on(_redis_on),
    "scatter": scattered,
    "by hand": _by_hand(_in_files),
    "by hand, Redis": _by_hand(_in_redis),
    "proxystore_ex": _proxystore_ex(_in_files),
    "proxystore_ex, Redis": _proxystore_ex(_in_redis),
    ZARR: _zarr,
}

#: Those that every scenario compares.
BOTH = ("dask", "daskps")
#: Those that differ where a user passes values to ``submit`` and ``map``.
ALL_AND_RAY = ("dask", "daskps", "scatter", "by hand", "proxystore_ex", RAY)
#: Those that differ where a user passes values to delayed functions.
DELAYED = ("dask", "daskps", "scatter", "by hand")
