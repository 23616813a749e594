"""How long objects live. Runs on the scheduler.

The scheduler alone knows which tasks there are: it optimises graphs after they arrive, and
keeps a task, to compute it again if a worker dies, until nobody can want it any more. So it
decides when an object goes. An object is kept while

- a task that the scheduler has not forgotten needs it, or
- a client says that it holds it: from before it submits the graph that uses it, until it
  neither has that graph any more nor keeps the object for the next one.

The client says so on the connection that graphs travel on, where the scheduler handles one
message after the other. A ``hold`` therefore arrives before the graph, and a ``release``
after the graph's tasks exist or were refused: there is no moment at which an object that is
needed has no holder. A client that is gone holds nothing.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from distributed.comm import get_address_host
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.serialize import ToPickle
from distributed.utils import offload

from daskps import messages
from daskps.dask_private.connections import (
    add_operations,
    add_stream_handlers,
    remove_operations,
)
from daskps.dask_private.scheduling import do_not_queue
from daskps.dask_private.security import addresses, tls_of
from daskps.exceptions import ClusterError, DaskpsError
from daskps.linux import check_linux
from daskps.references.nodes import ObjectId, stored_objects
from daskps.references.results import register_reader
from daskps.safety_net import PROCESS, count, fell_back
from daskps.scheduler.board.history import History
from daskps.scheduler.board.showing import show
from daskps.scheduler.evictor import Evictor
from daskps.scheduler.ledger import Entry, Ledger
from daskps.scheduler.overview import Overview
from daskps.scheduler.publications import Publications
from daskps.scheduler.returns import Returns
from daskps.scheduler.scatter import scatter
from daskps.scheduler.uploads import Uploads
from daskps.stores import leases, opened
from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.keys import creator_name
from daskps.stores.opening import make
from daskps.stores.requests import ConnectorRequest, NamedRequest, name_for_people
from daskps.stores.store import Store
from daskps.tls import Source, encrypts
from daskps.versions import Version, check_version

if TYPE_CHECKING:
    from distributed import Scheduler

# For how long (seconds) results of a worker that is gone can still be read.
DEAD_WORKERS_RESULTS_SECONDS = 5.0
# Share of the workers' memory that tasks may read which do not wait for a free thread. What
# they produce is as large, as a rule, and what comes of that again.
SPREAD_MEMORY_SHARE = 0.25

# A task that is never forgotten.
_UNKNOWN = object()


def _forgiving(handler: Callable[..., None]) -> Callable[..., None]:
    """A handler whose errors do not end the connection that the message came on."""

    @functools.wraps(handler)
    def handle(*args: Any, **kwargs: Any) -> None:
        try:
            handler(*args, **kwargs)
        except Exception as e:
            fell_back(e, f"note what was {handler.__name__}")

    return handle


def _or_keep_all(update_graph: Callable[..., None]) -> Callable[..., None]:
    """A hook after whose failure what a graph may need stays until the cluster closes."""

    @functools.wraps(update_graph)
    def handle(
        self: LifetimePlugin, scheduler: Scheduler, *, client: str, **graph: Any
    ) -> None:
        try:
            update_graph(self, scheduler, client=client, **graph)
        except Exception as e:
            for id in self._expected.get(client, ()):
                self._objects.note(id, 0)
                self._objects.need(id, _UNKNOWN)
            fell_back(e, "find what the tasks of a graph need")

    return handle


def _outlives(request: NamedRequest) -> ConnectorConfig | None:
    """How to open a store again that outlives the cluster."""
    return request.connector if isinstance(request, ConnectorRequest) else None


class LifetimePlugin(SchedulerPlugin):
    """Opens the cluster's stores, and evicts objects that nothing needs any more.

    Registered by the first session on a cluster; not thread-safe, everything runs on the
    scheduler's event loop.

    Parameters
    ----------
    version
        The client's version of daskps.
    """

    name = "daskps"
    idempotent = True

    version: Version
    _scheduler: Scheduler
    _stores: dict[NamedRequest, Store]
    _objects: Ledger
    _overview: Overview
    #: What was there, for the dashboard.
    _history: History | None
    _by_task: dict[Any, set[ObjectId]]
    _by_client: dict[str, set[ObjectId]]
    #: For how many graphs a client has held it that have not come yet. Two threads may
    #: both have held an object before the graph of either comes.
    _expected: dict[str, Counter[ObjectId]]
    _evictor: Evictor
    _returns: Returns
    _publications: Publications
    _uploads: Uploads
    #: The ids that workers gave themselves, by address.
    _workers: dict[str, str]
    #: Results in stores that do not know who stored what, by worker's id.
    _results: dict[str, set[ObjectId]]
    #: Where clients' objects can be read (host and port), by store and client.
    _serving: dict[str, dict[str, list[Any]]]
    #: Settings of who opened a store last, pickled, by its name.
    _settings: dict[str, bytes]
    #: Stores that are of no use for what tasks submit.
    _without_tasks: set[str]
    #: How often something fell back on plain Dask, by process.
    _faults: dict[str, int]

    def __init__(self, version: Version):
        self.version = version

    async def start(self, scheduler: Scheduler) -> None:
        check_version(self.version, f"the scheduler ({scheduler.address})")
        self._scheduler = scheduler
        self._stores = {}
        self._objects = Ledger()
        self._overview = Overview(scheduler, self._shown, self._objects)
        self._by_task = {}
        self._by_client = {}
        self._expected = {}
        self._evictor = Evictor(scheduler.loop)
        self._returns = Returns(scheduler, lambda name: self._named(name) is not None)
        self._uploads = Uploads(self._named, lambda client: client in scheduler.clients)
        self._workers = {}
        self._results = {}
        self._serving = {}
        self._settings = {}
        self._without_tasks = set()
        self._faults = {}
        for worker in scheduler.workers:
            self.add_worker(scheduler, worker)
        self._publications = Publications(
            scheduler, _forgiving(self.stored), _forgiving(self.release)
        )
        self._history = show(
            scheduler, self._overview, lambda key: self._by_task.get(key, ())
        )
        add_operations(scheduler, self._operations())
        add_operations(scheduler, self._publications.operations)
        add_stream_handlers(scheduler, self._handlers())

    def _operations(self) -> dict[str, Callable[..., Any]]:
        return {
            messages.OPEN: self.open,
            messages.STORE: self.store,
            messages.USAGE: self.usage,
            messages.SERVE: self.serve,
            messages.SCATTER: self.scatter,
            **self._uploads.operations(),
        }

    def _handlers(self) -> dict[str, Callable[..., None]]:
        return {
            messages.STORED: _forgiving(self.stored),
            messages.HOLD: _forgiving(self.hold),
            messages.RELEASE: _forgiving(self.release),
            messages.RESULTS: _forgiving(self.results),
            messages.FAULTS: _forgiving(self.faults),
            messages.TRAFFIC: _forgiving(self.traffic),
            **{op: _forgiving(h) for op, h in self._returns.handlers().items()},
        }

    # Stores

    def _tls(self) -> Source | None:
        if any(map(encrypts, addresses(self._scheduler))):
            return partial(tls_of, self._scheduler)
        return None

    async def open(
        self, request: NamedRequest, version: Version, settings: bytes
    ) -> dict[str, Any]:
        """Open a store for the cluster, or say how it is opened already; or why not.

        Parameters
        ----------
        request, version
            Which store, and the client's version of daskps.
        settings
            Those of the session, pickled: for workers, also those that join later.
        """
        try:
            store = await self._opened(request, version)
            self._settings[store.name] = settings
        except DaskpsError as e:
            # Of what a handler raises, Dask logs the traceback as well.
            return {"error": ToPickle(e)}
        # In a dictionary: alone, a cluster within one process would not unwrap it.
        return {"config": ToPickle(store.config())}

    async def _opened(self, request: NamedRequest, version: Version) -> Store:
        check_version(version, f"the scheduler ({self._scheduler.address})")
        check_linux(f"The scheduler ({self._scheduler.address})")
        store = self._stores.get(request)
        if store is None:
            host = get_address_host(self._scheduler.address)
            store = await offload(make, request, host=host, tls=self._tls())
            if request in self._stores:  # another client was faster
                store.close()
                store = self._stores[request]
            else:
                self._stores[request] = store
                self._evictor.add_store(store, _outlives(request))
                opened.add(store)
                leases.say_alive(store.connector)
                name = store.name
                leases.renew(store.connector, self, lambda self: self._needed(name))
                # The scheduler passes clients' wishes on to workers.
                register_reader(store.name)
                self._log_event("store-opened", store=name, url=self._shown()[name])
        return store

    async def store(self, name: str) -> dict[str, Any]:
        """How to open a store of the cluster, and what was asked for, by its name.

        Raises
        ------
        ClusterError
            If the cluster has no such store.
        """
        found = self._named(name)
        if found is None:
            raise ClusterError(
                f"The scheduler ({self._scheduler.address}) has no store {name!r}: it was "
                "restarted, or the store was closed. Begin a new session."
            )
        request, store = found
        return {
            "config": ToPickle(store.config()),
            "request": ToPickle(request),
            "settings": self._settings[name],
            "hosts": list({tuple(a) for a in self._serving.get(name, {}).values()}),
            "tasks": name not in self._without_tasks,
        }

    async def serve(
        self, store: str, client: str, address: list[Any] | None, tasks: bool
    ) -> None:
        """Note where a client's objects can be read, by all workers that there are now.

        Parameters
        ----------
        store
            Its name.
        client
            Its id.
        address
            Host and port; None: nowhere, or by all that see the store.
        tasks
            Whether workers can read what each other's tasks store.
        """
        clients = self._serving.setdefault(store, {})
        if address is None or client not in self._scheduler.clients:
            clients.pop(client, None)
        else:
            clients[client] = address
        if not tasks:
            self._without_tasks.add(store)

    def _named(self, name: str) -> tuple[NamedRequest, Store] | None:
        pairs = self._stores.items()
        return next((pair for pair in pairs if pair[1].name == name), None)

    def _needed(self, store: str) -> list[Any]:
        """Keys of the objects of a store that somebody needs. For another thread."""
        return self._objects.keys(store)

    def _shown(self) -> Mapping[str, str]:
        """The stores for people, by name."""
        return {
            store.name: name_for_people(request, store.connector)
            for request, store in self._stores.items()
        }

    async def scatter(self, **options: Any) -> None:
        """Put stored values on workers: see :func:`daskps.scheduler.scatter.scatter`."""
        await scatter(self._scheduler, **options)

    async def usage(self, reports: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """What each store holds now, and how often processes fell back on plain Dask.

        Parameters
        ----------
        reports
            What the client has to say of its traffic.

        Returns
        -------
        dict
            As :meth:`daskps.scheduler.overview.Overview.usage`, and ``"faults"``: how
            often, by process.
        """
        usage = await self._overview.usage(reports)
        return {**usage, "faults": {**self._faults, PROCESS: count()}}

    def _log_event(self, action: str, **more: Any) -> None:
        self._scheduler.log_event(messages.EVENTS, {"action": action, **more})

    async def close(self) -> None:
        """With the cluster, everything in its stores goes."""
        remove_operations(self._scheduler, *self._operations(), *self._handlers())
        self._publications.close()
        if self._history is not None:
            self._history.close()
        self._overview.close()
        rest = [*self._objects, *chain(*self._results.values())]
        self._objects.clear()
        for name, url in self._shown().items():
            self._log_event("store-closed", store=name, url=url)
        await self._evictor.close(rest)
        self._stores.clear()

    # Who needs what

    def stored(self, client: str, objects: list[tuple[ObjectId, int]]) -> None:
        """A client has put objects where they do not bear its name."""
        held = self._by_client.setdefault(client, set())
        for id, nbytes in objects:
            self._objects.note(id, nbytes).clients.add(client)
            held.add(id)
            self._evictor.write_down(id)

    def hold(self, client: str, objects: list[tuple[ObjectId, int]]) -> None:
        """A client holds objects; a graph that uses them may follow."""
        # Whatever fails afterwards: what the graph's tasks need is noted when it comes.
        self._expected.setdefault(client, Counter()).update(id for id, _ in objects)
        self.stored(client, objects)
        for id, _ in objects:
            self._objects.hold(id)

    def release(self, client: str, objects: Iterable[ObjectId]) -> None:
        """A client holds these objects no longer."""
        held = self._by_client.get(client, set())
        expected: Counter[ObjectId] = self._expected.get(client, Counter())
        for id in objects:
            held.discard(id)
            expected.pop(id, None)
            entry = self._objects.get(id)
            if entry is not None:
                entry.clients.discard(client)
                self._evict_unneeded(id, entry)

    def results(
        self, worker: str, stored: list[ObjectId], dropped: list[ObjectId]
    ) -> None:
        """A worker has put results where they do not bear its name, or dropped some."""
        results = self._results.setdefault(self._workers.get(worker, worker), set())
        results.update(stored)
        for id in stored:
            self._evictor.write_down(id)
        results.difference_update(dropped)
        self._evictor.evict(dropped)

    def traffic(self, store: str, worker: str = "", **report: Any) -> None:
        """A process has done more with a store, or a worker has more results, or less."""
        traffic = self._overview.traffic
        if "counts" in report:
            traffic.add(store, report["host"], report["counts"])
        if "results" in report and worker in self._workers:
            traffic.has_results(store, worker, report["results"])

    def faults(self, worker: str, process: str, count: int) -> None:
        """A process has fallen back on plain Dask so often."""
        self._faults[process] = count

    @_or_keep_all
    def update_graph(
        self, scheduler: Scheduler, *, client: str, tasks: list[Any], **kwargs: Any
    ) -> None:
        """Find the objects that new tasks need, in the form in which they will run."""
        expected = self._expected.get(client)
        if not expected:
            return  # a graph without stored objects costs nothing
        new = self._note_needs(scheduler, tasks)
        arrived = set(chain.from_iterable(self._by_task[key] for key in new))
        # Those with more graphs to come stay.
        self._expected[client] = expected - Counter(arrived)
        try:
            self._spread(new)
        except Exception as e:
            fell_back(e, "have tasks spread over the workers")

    def _note_needs(self, scheduler: Scheduler, tasks: list[Any]) -> list[Any]:
        """Note which objects tasks need; gives the keys of those that need some."""
        new = []
        for key in tasks:
            ts = scheduler.tasks[key]
            if ts.run_spec is None or key in self._by_task:
                continue
            found = stored_objects(ts.run_spec)
            if not found:
                continue
            self._by_task[key] = found
            new.append(key)
            for id in found:
                # Not known yet if another client made the graph.
                self._objects.note(id, 0)
                self._objects.need(id, key)
        return new

    def _spread(self, keys: list[Any]) -> None:
        """Have tasks that read data of their own scheduled as if it were on the workers.

        Dask lets tasks without dependencies wait on the scheduler until a thread is free,
        since what they produce could fill the workers' memory before other tasks have
        reduced it. The wait costs each task a journey to the scheduler. Tasks on data that
        is on the workers already do not wait, and neither need these: what they read is
        mapped, and no more than has its place in the cluster's memory. A task that shares
        its objects with others may produce whatever it likes, and waits.

        Dask places tasks that may wait otherwise than those that may not: the latter next
        to their siblings. So if there is a thread for each of them, all stay as they are.
        """
        own = [
            (key, sum(self._objects[id].nbytes for id in self._by_task[key]))
            for key in keys
            if all(len(self._objects[id].tasks) == 1 for id in self._by_task[key])
        ]
        workers = self._scheduler.workers.values()
        if len(own) <= sum(ws.nthreads for ws in workers):
            return
        limits = [ws.memory_limit for ws in workers]
        # 0: the worker has no limit.
        if all(limits) and sum(n for _, n in own) > SPREAD_MEMORY_SHARE * sum(limits):
            return
        for key, _ in own:
            do_not_queue(self._scheduler.tasks[key])

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any
    ) -> None:
        self._returns.transition(key, finish)
        if finish == "forgotten" and key in self._by_task:
            self._forget(key)

    def restart(self, scheduler: Scheduler) -> None:
        self._returns.restart()
        for key in list(self._by_task):
            self._forget(key)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        before = len(self._objects)
        self.release(client, self._by_client.pop(client, ()))
        if len(self._objects) < before:
            evicted = before - len(self._objects)
            self._log_event("client-gone", client=client, evicted=evicted)
        self._expected.pop(client, None)
        self._uploads.client_gone(client)
        for clients in self._serving.values():
            clients.pop(client, None)
        # What it stored and did not live to announce. A client that has only lost its
        # connection comes back under the same name, and evicts such things itself.
        scheduler.loop.add_callback(self._evict_orphans, client)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self._workers[worker] = scheduler.workers[worker].server_id
        self._returns.add_worker()
        scheduler.log_event(messages.WORKERS, worker)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        # Later: references to its results may be on their way to a client. By its id,
        # since another worker may have its address by then.
        id = self._workers.pop(worker, worker)
        self._overview.traffic.worker_gone(worker)
        self._returns.remove_worker(worker)
        scheduler.loop.call_later(DEAD_WORKERS_RESULTS_SECONDS, self._evict_results, id)

    async def _evict_results(self, worker_id: str) -> None:
        self._evictor.evict(self._results.pop(worker_id, ()))
        await self._evict_orphans(worker_id)

    async def _evict_orphans(self, process: str) -> None:
        """Evict what a client or a worker, given its id, has left."""

        def needed(store: str) -> set[Any] | None:
            is_back = process in self._scheduler.clients
            return None if is_back else set(self._needed(store))

        # Together: one that does not answer holds up no other.
        await asyncio.gather(
            *(
                self._evictor.evict_orphans(
                    store, creator_name(process), partial(needed, store.name)
                )
                for store in self._stores.values()
            )
        )

    def _forget(self, key: Any) -> None:
        for id in self._by_task.pop(key):
            self._objects.need_no_more(id, key)
            self._evict_unneeded(id, self._objects[id])

    def _evict_unneeded(self, id: ObjectId, entry: Entry) -> None:
        if entry.tasks or entry.clients:
            return
        self._objects.drop(id)
        self._evictor.evict([id])
