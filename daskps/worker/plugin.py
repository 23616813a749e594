"""Stores on workers: open from when the plugin arrives until the worker goes."""

from __future__ import annotations

import asyncio
import pickle
import time
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from distributed.diagnostics.plugin import WorkerPlugin

from daskps.dask_private.connections import add_operations
from daskps.dask_private.scheduling import drops_replicas
from daskps.messages import CALL, HOLDINGS, READ, RUN
from daskps.references.results import register_reader
from daskps.settings import Settings
from daskps.stores import opened
from daskps.stores.requests import NamedRequest, name_for_people
from daskps.versions import Version
from daskps.worker.calls import Calls
from daskps.worker.holdings import holdings
from daskps.worker.metrics import tell_of
from daskps.worker.opening import StoreOpening
from daskps.worker.reporting import Reporting
from daskps.worker.results import Writer, read_dependencies, register_writer
from daskps.worker.scatter import read

if TYPE_CHECKING:
    from distributed import Worker

    from daskps.stores.store import Store

# Share of a worker's memory limit that it may keep mapped to write results anew.
MAPPED_SHARE = 1 / 16
# A worker that has just joined may be asked for a store before it is told of it. For how
# long (seconds) it waits for that, and whoever opens a store for a worker that cannot yet.
OPENING_SECONDS = 10.0


class TaskSession(Protocol):
    """What :mod:`daskps.client.in_task` keeps here for a task."""

    def close(self) -> None:
        """The task has ended."""


class WorkerStorePlugin(WorkerPlugin):
    """Opens one store on every worker, those that join later included.

    Parameters
    ----------
    store
        Its name.
    settings
        Those of the session, for results and for the graphs that tasks submit. Another
        client that opens the store brings its own.
    version
        The client's version of daskps.

    Attributes
    ----------
    opening
        How far the worker is with opening it.
    request
        As which the scheduler opened the store.

    Notes
    -----
    How to open the store, credentials included, each worker asks the scheduler. It is not
    part of the plugin, since a scheduler at log level ``DEBUG`` logs the plugin's bytes.
    """

    idempotent = True

    name: str
    store: str
    opening: StoreOpening | None
    request: NamedRequest
    settings: Settings
    version: Version
    #: Sessions of the tasks that run on this worker, by key (:mod:`daskps.client.in_task`).
    sessions: dict[Any, TaskSession]
    _writer: Writer | None
    _reporting: Reporting | None
    #: Whether what tasks submit is stored: it has to be read by other workers.
    tasks_store: bool
    _worker: Worker

    #: The plugin that was set up last on each worker in this process.
    latest: ClassVar[weakref.WeakKeyDictionary[Worker, WorkerStorePlugin]]
    latest = weakref.WeakKeyDictionary()

    def __init__(self, store: str, settings: Settings, version: Version):
        self.name = plugin_name(store)
        self.store = store
        self.opening = None
        self.settings = settings.portable()
        self.version = version
        self.sessions = {}
        self._writer = None
        self._reporting = None
        self.tasks_store = True

    async def setup(self, worker: Worker) -> None:
        # A client may ask for references, and the scheduler what there is, even where the
        # rest of this fails.
        register_reader(self.store)
        self._worker = worker
        add_operations(worker, {HOLDINGS: self.holdings})
        self.opening = StoreOpening(
            self.store, self.version, self.settings.read_timeout, self._opened
        )
        # What this raises, a worker that joins later only logs.
        await self.opening.start(worker)

    def _opened(self, worker: Worker, store: Store, reply: dict[str, Any]) -> None:
        self.request = reply["request"]
        self._take(pickle.loads(reply["settings"]))
        self.tasks_store = reply["tasks"]
        limit = worker.memory_manager.memory_limit
        if limit:
            # What is mapped looks like memory of the worker, which watches that.
            store.connector.map_at_most(int(limit * MAPPED_SHARE))
        self.latest[worker] = self
        calls = Calls(worker)
        add_operations(worker, {READ: self.read, RUN: calls.run, CALL: calls.call})
        _watch_own_memory(worker)
        self._writer = register_writer(self.store, self.settings.threshold, worker)
        shown = name_for_people(self.request, store.connector)
        tell_of(worker, self.store, shown)
        self._reporting = Reporting(worker, self.store, self._writer.stored)

    def _take(self, settings: Settings) -> None:
        """Go by the settings of the client that has opened the store last."""
        opened.be_patient(self.store, settings.read_timeout)
        if settings == self.settings:
            return
        self.settings = settings
        if self._writer is not None:
            self._writer.threshold = settings.threshold
        # That of coroutines and actors is made once.
        shared = self.sessions.pop(None, None)
        if shared is not None:
            shared.close()

    async def read(self, nodes: dict[Any, bytes]) -> dict[str, Any]:
        """Read scattered values: see :func:`daskps.worker.scatter.read`."""
        return await read(self._worker, nodes)

    async def holdings(self) -> dict[str, Any]:
        """What is stored here: see :func:`daskps.worker.holdings.holdings`."""
        return await holdings(self._worker)

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any
    ) -> None:
        if start == "memory" and self._writer is not None:
            self._writer.dropped(key, wanted=drops_replicas(self._worker))
        # Not as soon as it is cancelled: its function may still run, and submit more.
        if finish in ("memory", "error", "released", "forgotten"):
            session = self.sessions.pop(key, None)
            if session is not None:
                session.close()

    def teardown(self, worker: Worker) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._reporting is not None:
            self._reporting.close()
        if self.opening is not None:
            self.opening.close()


def _watch_own_memory(worker: Worker) -> None:
    # It needs Linux, which a worker that has opened a store is on.
    from daskps.worker.memory import watch_own_memory

    watch_own_memory(worker)


class WorkerDependenciesPlugin(WorkerPlugin):
    """Lets workers pass large results to each other through one store.

    Registered once the store is open on every worker that can open it.

    Parameters
    ----------
    store_name
        A store in this host's memory, which is warm: otherwise a connection is as fast.
    """

    idempotent = True

    name: str
    store_name: str

    def __init__(self, store_name: str):
        self.name = f"daskps-dependencies-{store_name}"
        self.store_name = store_name

    async def setup(self, worker: Worker) -> None:
        # A worker that joins gets all plugins at once.
        plugin = await _told(self.store_name, worker)
        if plugin is not None and plugin.opening is not None:
            plugin.opening.once_open(lambda: read_dependencies(worker, self.store_name))


async def when_open(plugin: WorkerStorePlugin, dask_worker: Worker) -> str | None:
    """Wait until a worker has opened a store of which the scheduler has told it.

    It is the one for graphs that tasks submit from now on.

    Of two clients that open a store at the same time, Dask lets the second one go on
    although workers are still opening it for the first one.

    Parameters
    ----------
    plugin
        What the worker was told. If that was lost, it is told now.

    Returns
    -------
    str or None
        Why it is not open yet, if that takes too long.

    Raises
    ------
    ClusterError
        If it will never be open there.
    """
    told = await _told(plugin.store, dask_worker)
    if told is None:
        await dask_worker.plugin_add(plugin, plugin.name)
        told = plugin
    why = await _why_not_open(told)
    if why is not None:
        if told.opening is not None and told.opening.refusal is not None:
            raise told.opening.refusal
        return why
    # It may have been opened before others were, and for somebody else.
    WorkerStorePlugin.latest[dask_worker] = told
    told._take(plugin.settings)
    return None


async def why_not_open(store: str, worker: Worker) -> str | None:
    """Wait until a worker has opened a store; why it has not, if that takes too long."""
    told = await _told(store, worker)
    return "it was told of no store" if told is None else await _why_not_open(told)


async def _why_not_open(plugin: WorkerStorePlugin) -> str | None:
    opening = plugin.opening
    assert opening is not None, "setup has begun"
    await opening.wait(OPENING_SECONDS)
    return None if opening.is_open else opening.why


async def _told(store: str, worker: Worker) -> WorkerStorePlugin | None:
    """What the worker was told of a store, waited for; None if nothing comes."""
    deadline = time.monotonic() + OPENING_SECONDS
    while True:
        plugin = worker.plugins.get(plugin_name(store))
        if isinstance(plugin, WorkerStorePlugin):
            return plugin
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(0.005)


def plugin_name(store: str) -> str:
    return f"daskps-store-{store}"
