"""Stores on workers: open from when the plugin arrives until the worker goes."""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from distributed.diagnostics.plugin import WorkerPlugin

from daskps.config import Settings
from daskps.exceptions import ClusterError
from daskps.stores import opened
from daskps.stores.urls import StoreRequest
from daskps.versions import check_version
from daskps.worker_results import (
    Writer,
    read_dependencies,
    register_reader,
    register_writer,
)
from daskps.worker_scatter import read

if TYPE_CHECKING:
    from distributed import Worker

    from daskps.client_session import Session
    from daskps.proxy_node import ProxyNode

# Share of a worker's memory limit that it may keep mapped to write results anew.
MAPPED_SHARE = 1 / 16
# A worker that has just joined may be asked for a store before it is told of it. For how
# long (seconds) it waits for that.
PATIENCE = 10.0


class WorkerStorePlugin(WorkerPlugin):
    """Opens one store on every worker, those that join later included.

    Parameters
    ----------
    store
        Its name.
    settings
        Those of the session, for the graphs that tasks submit.
    version
        The client's version of daskps.

    Attributes
    ----------
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
    request: StoreRequest
    settings: Settings
    version: str
    #: Sessions of the tasks that run on this worker, by key (:mod:`daskps.worker_session`).
    sessions: dict[Any, Session]
    _writer: Writer | None
    _worker: Worker
    #: Why the store cannot be opened here.
    refusal: str | None

    #: The plugin that was set up last on each worker in this process.
    latest: ClassVar[weakref.WeakKeyDictionary[Worker, WorkerStorePlugin]]
    latest = weakref.WeakKeyDictionary()

    def __init__(self, store: str, settings: Settings, version: str):
        self.name = _plugin_name(store)
        self.store = store
        self.settings = settings.portable()
        self.version = version
        self.sessions = {}
        self._writer = None
        self.refusal = None

    @property
    def is_open(self) -> bool:
        """Whether the worker has opened the store."""
        return self._writer is not None

    async def setup(self, worker: Worker) -> None:
        try:
            await self._setup(worker)
        except Exception as e:
            self.refusal = str(e)
            raise

    async def _setup(self, worker: Worker) -> None:
        # A client may ask for references even where the rest of this fails.
        register_reader(self.store)
        check_version(self.version, f"worker {worker.address}")
        try:
            # Unpickling the reply may need what is not installed here.
            reply = await worker.scheduler.daskps_store(name=self.store)
            self.request = reply["request"]
            store = opened.acquire(reply["config"], self.settings.read_timeout)
        except (ImportError, OSError) as e:
            # A worker that joins later joins all the same, and only logs this.
            why = unreachable(f"Worker {worker.address}", e)
            opened.refuse(self.store, why)
            raise ClusterError(why) from e
        limit = worker.memory_manager.memory_limit
        if limit and hasattr(store.connector, "map_at_most"):
            # What is mapped looks like memory of the worker, which watches that.
            store.connector.map_at_most(int(limit * MAPPED_SHARE))
        self.latest[worker] = self
        worker.handlers["daskps_read"] = self.read
        self._worker = worker
        self._writer = register_writer(self.store, self.settings.threshold, worker)

    async def read(self, nodes: dict[Any, ProxyNode]) -> dict[str, Any]:
        """Read scattered values: see :func:`daskps.worker_scatter.read`."""
        return await read(self._worker, nodes)

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any
    ) -> None:
        # Not as soon as it is cancelled: its function may still run, and submit more.
        if finish in ("memory", "error", "released", "forgotten"):
            session = self.sessions.pop(key, None)
            if session is not None:
                session.close()

    def teardown(self, worker: Worker) -> None:
        if self._writer is not None:
            self._writer.close()
        opened.release(self.store)


class WorkerDependenciesPlugin(WorkerPlugin):
    """Lets workers pass large results to each other through one store.

    Registered once the store is open on every worker.

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
        await when_open(self.store_name, worker)
        read_dependencies(worker, self.store_name)


async def when_open(store: str, dask_worker: Worker) -> None:
    """Wait until a worker has opened a store of which the scheduler has told it.

    It is the one for graphs that tasks submit from now on.

    Of two clients that open a store at the same time, Dask lets the second one go on
    although workers are still opening it for the first one.

    Raises
    ------
    ClusterError
        If the worker cannot open it.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        plugin = dask_worker.plugins.get(_plugin_name(store))
        if isinstance(plugin, WorkerStorePlugin):
            if plugin.refusal is not None:
                raise ClusterError(plugin.refusal)
            if plugin.is_open:
                # It may have been opened before others were.
                WorkerStorePlugin.latest[dask_worker] = plugin
                return
        elif time.monotonic() > deadline:
            raise ClusterError(
                f"Store {store!r} was closed while it was opened on worker "
                f"{dask_worker.address}. Try again."
            )
        await asyncio.sleep(0.005)


def _plugin_name(store: str) -> str:
    return f"daskps-store-{store}"


def unreachable(who: str, error: Exception) -> str:
    """The message for a process that cannot use a store."""
    if isinstance(error, ImportError):
        remedy = (
            "Install what is missing there; what daskps needs for a kind of store is an "
            "extra, as in pip install 'daskps[redis]'."
        )
    elif isinstance(error, ConnectionError):
        remedy = (
            "The address in the store's URL must lead to the server from the client, the "
            "scheduler and all workers."
        )
    else:
        remedy = (
            "shm:// needs the client, the scheduler and all workers on one host, as one "
            "user, with one /dev/shm (containers: --ipc=host). Across hosts, use "
            'daskps.proxy_graph(store="peer://"), a directory that all of them share, '
            'store="file:///shared/directory", or a server, store="redis://host".'
        )
    return f"{who} cannot use the cluster's store: {error}. {remedy}"
