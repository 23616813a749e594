"""What a client and its cluster have set up between them. Runs on the client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from dask.utils import typename
from distributed.protocol.serialize import ToPickle

from daskps.client_catalog import Catalog, creator_name
from daskps.client_keeper import ClientKeeper, connection_lost
from daskps.config import Settings
from daskps.dask_private import connection, gather_with
from daskps.exceptions import ClusterError, DaskpsError, ObjectMissingError
from daskps.scheduler_lifetimes import WORKERS, LifetimePlugin
from daskps.stores import evictions, opened
from daskps.stores.store import Store
from daskps.stores.urls import StoreRequest
from daskps.versions import __version__, missing
from daskps.worker_opening import unreachable
from daskps.worker_results import PLAIN, family, register_reader
from daskps.worker_stores import (
    WorkerDependenciesPlugin,
    WorkerStorePlugin,
    when_open,
)

if TYPE_CHECKING:
    from distributed import Client

    from daskps.client_chosen import ChosenStore

logger = logging.getLogger(__name__)

# For how long (seconds) results come back as ever when one could not be read from a store.
PLAIN_AFTER_FAILURE = 10.0


class Reader(Protocol):
    """Wants large results of a client to come back through stores."""

    def client_closed(self) -> None:
        """The client is closed: what was kept for it is of no more use."""


class ClusterLink:
    """Opens the cluster's stores for one client.

    Use :meth:`of`: there is one link for each client.

    Parameters
    ----------
    client
        The client; the link does not keep it alive.

    Notes
    -----
    A client that loses its connection to the scheduler connects again. The scheduler has
    then dropped what the client held, or is another one, which knows nothing of stores.
    So what was set up over one connection is forgotten with it.
    """

    _client: weakref.ref[Client]
    _catalogs: dict[StoreRequest, Catalog]
    #: What was chosen where no store was named.
    _chosen: dict[StoreRequest, ChosenStore]
    _connection: Any
    _readers: weakref.WeakSet[Reader]
    _deserializers: list[str] | None
    #: Until when (``time.monotonic``) results are not read from stores.
    _plain_until: float

    _links: weakref.WeakKeyDictionary[Client, ClusterLink] = weakref.WeakKeyDictionary()

    def __init__(self, client: Client):
        self._client = weakref.ref(client)
        self._catalogs = {}
        self._chosen = {}
        self._connection = None
        self._plain_until = 0.0
        self._readers = weakref.WeakSet()
        # What the client was made with, which is None unless the user gave some.
        self._deserializers = client.rpc.deserializers

    @classmethod
    def of(cls, client: Client) -> ClusterLink:
        """The link of this client."""
        link = cls._links.get(client)
        return cls._links.setdefault(client, cls(client)) if link is None else link

    def catalog(self, request: StoreRequest) -> Catalog | None:
        """The catalog of a store that is open; None also if values go inside graphs."""
        self._forget_if_disconnected()
        chosen = self._chosen.get(request)
        return self._catalogs.get(request) if chosen is None else chosen.catalog

    def choice(self, request: StoreRequest) -> ChosenStore | None:
        """What was chosen for a request that names no store, if that was done."""
        self._forget_if_disconnected()
        return self._chosen.get(request)

    def has(self, request: StoreRequest) -> bool:
        """Whether a store was opened, or chosen, over this connection."""
        return request in self._catalogs or self.choice(request) is not None

    def is_open(self, request: StoreRequest) -> bool:
        """Whether nothing has to be done before the next graph."""
        choice = self.choice(request)
        return request in self._catalogs if choice is None else choice.is_final

    def forget(self, request: StoreRequest) -> None:
        """Use a store no longer of which nothing is held."""
        self._catalogs.pop(request, None)

    def holding(self) -> Catalog | None:
        """A catalog of which this client holds objects, if there is one."""
        self._forget_if_disconnected()
        return next((c for c in self._catalogs.values() if c.held()), None)

    def _forget_if_disconnected(self) -> None:
        client = self._client()
        if client is not None and connection(client) is not self._connection:
            # What a task's client has adopted before it was connected is as good.
            if self._connection is not None:
                self._catalogs = {}
                self._chosen = {}
            self._connection = connection(client)
            self._set_families()

    def _client_closed(self) -> None:
        """Let go of the stores; they are closed when what is under way has ended."""
        self._catalogs = {}
        self._chosen = {}
        self.let_go()

    def let_go(self) -> None:
        """Hold nothing for graphs that could follow."""
        for reader in list(self._readers):
            reader.client_closed()

    def read_references(self, reader: Reader) -> None:
        """Have large results come back through the stores that are open.

        Parameters
        ----------
        reader
            Who wants it; until it is collected, or given to :meth:`stop_reading`.
        """
        self._readers.add(reader)
        self._set_families()

    def stop_reading(self, reader: Reader) -> None:
        """Have results come back as ever, unless others want references."""
        self._readers.discard(reader)
        self._set_families()

    def before_gather(self) -> bool:
        """Ask for references only to stores that the cluster has now.

        Returns
        -------
        bool
            Whether references are asked for.
        """
        if not self._catalogs:
            return False
        self._forget_if_disconnected()
        return self._set_families()

    def gather_failed(self, error: Exception) -> bool:
        """Whether results that could not be read are to be fetched without stores.

        A worker may have dropped a result, or died, after it sent the reference; or this
        client cannot reach the store.
        """
        if not isinstance(error, ObjectMissingError):
            return False
        logger.warning("A result is fetched again, through the scheduler: %s", error)
        self._plain_until = time.monotonic() + PLAIN_AFTER_FAILURE
        return True

    def _set_families(self) -> bool:
        client = self._client()
        if client is None or client.scheduler is None:
            return False
        without = {chosen.without_results for chosen in self._chosen.values()}
        names = dict.fromkeys(
            catalog.name
            for catalog in self._catalogs.values()
            if catalog not in without
        )
        families = [family(name) for name in names]
        by_reference = (
            bool(families and self._readers)
            and time.monotonic() >= self._plain_until
            # A result by reference is unpickled. The user may not want that.
            and "pickle" in (self._deserializers or PLAIN)
        )
        wanted = self._deserializers
        if by_reference:
            wanted = [*families, *(self._deserializers or PLAIN)]
        gather_with(client, wanted)
        return by_reference

    def adopt(self, request: StoreRequest, name: str) -> None:
        """Use a store that is open already on the cluster and in this process."""
        client = self._client()
        store = opened.get(name)
        self._forget_if_disconnected()
        if client is not None and store is not None and request not in self._catalogs:
            keeper = ClientKeeper(client)
            self._catalogs[request] = _catalog(store, client, keeper)

    def limits_changed(self) -> None:
        """Ask for references again, where the stores that were chosen allow it."""
        self._set_families()

    async def open(self, request: StoreRequest, settings: Settings) -> Catalog | None:
        """Open a store on the scheduler, on all workers, and here.

        Parameters
        ----------
        request
            Which store, or several to choose from.
        settings
            Those of the session, also for the graphs that tasks submit.

        Returns
        -------
        Catalog
            None: none was named, and values have to be sent inside graphs.

        Raises
        ------
        ClusterError
            If daskps is missing there, has another version, or a store that was named
            cannot be used by all of them.
        ConfigError
            If the scheduler cannot open a store that was named.
        """
        client = self._client()
        assert client is not None, "the caller has the client"
        while client.status == "connecting":
            await asyncio.sleep(0.02)  # Dask gives up at some time, and closes it
        if not request.candidates:
            return await self.open_named(request, settings)
        if not self.is_open(request):
            await install_plugin(client)
            from daskps.client_chosen import ChosenStore

            chosen = self._chosen.get(request)
            if chosen is None:
                _tell_of_workers(client, self)
                chosen = ChosenStore(self, request.candidates, settings)
                self._chosen[request] = chosen
            try:
                await chosen.settle(client)
            except BaseException:
                self._chosen.pop(request, None)
                raise
        return self.catalog_for(request, settings)

    async def open_named(self, request: StoreRequest, settings: Settings) -> Catalog:
        """Open a store that was named, or chosen."""
        client = self._client()
        assert client is not None, "the caller has the client"
        self._forget_if_disconnected()
        if request not in self._catalogs:
            await install_plugin(client)
            evictions.start(client, self._client_closed)
            catalog = await _open_everywhere(client, request, settings)
            self._catalogs[request] = catalog
            self._set_families()
        return self._catalogs[request]

    def catalog_for(self, request: StoreRequest, settings: Settings) -> Catalog | None:
        """The catalog of a store that is open.

        Raises
        ------
        ClusterError
            If there is none, and what cannot be stored is to be an error.
        """
        catalog, chosen = self.catalog(request), self.choice(request)
        if catalog is None and chosen and settings.on_store_error == "raise":
            raise ClusterError(
                f"Nothing can be stored: {chosen.against_arguments}. Name another store, "
                "or set daskps.on-store-error to 'inline' to have values sent inside "
                "graphs."
            )
        return catalog

    def worker_joined(self, worker: str) -> None:
        """A worker has come that may not be able to read what is stored."""
        client = self._client()
        if client is not None:
            for chosen in self._chosen.values():
                chosen.worker_joined(client, worker)


def _tell_of_workers(client: Client, link: ClusterLink) -> None:
    """Have the link told of workers that come."""
    weak = weakref.ref(link)

    def joined(event: tuple[float, str]) -> None:
        alive = weak()
        if alive is not None:
            alive.worker_joined(event[1])

    client.subscribe_topic(WORKERS, joined)


async def _open_everywhere(
    client: Client, request: StoreRequest, settings: Settings
) -> Catalog:
    over = connection(client)
    reply = await client.scheduler.daskps_open(
        request=ToPickle(request), version=__version__
    )
    config = reply["config"]
    try:
        # Without patience: a result that cannot be read is fetched otherwise, and trying
        # again would hold up the event loop.
        store = opened.acquire(config)
    except (ImportError, OSError) as e:
        raise ClusterError(unreachable("This client", e)) from e
    keeper = ClientKeeper(client)
    keeper.closes(config.name)
    plugin = WorkerStorePlugin(config.name, settings, __version__)
    await _open_on_workers(client, plugin)
    warm = bool(getattr(store.connector, "keep", None))
    if warm and settings.results is not False:
        with _whatever_is_lost():
            await client.register_plugin(WorkerDependenciesPlugin(config.name))
    register_reader(config.name)
    if connection(client) is not over:
        raise connection_lost("a store was opened")
    return _catalog(store, client, keeper)


async def _open_on_workers(client: Client, plugin: WorkerStorePlugin) -> None:
    """Open a store on the workers, of which some may be lost meanwhile.

    Raises
    ------
    ClusterError
        If a worker will never be able to open it, or none is able now.
    """
    try:
        with _whatever_is_lost():
            await _register(client, plugin, "a worker")
        # Here, and not at the first use, it is found out which worker was not told.
        answers = await client.run(when_open, plugin, on_error="return")
        for answer in answers.values():
            # Other errors are of workers that were lost meanwhile.
            if isinstance(answer, DaskpsError):
                raise answer
    except BaseException:
        # The scheduler keeps what some worker refused, and would take the next attempt
        # for done.
        with contextlib.suppress(Exception):
            await client.unregister_worker_plugin(plugin.name)
        raise
    waiting = [answer for answer in answers.values() if isinstance(answer, str)]
    for why in waiting:
        # Its tasks go to other workers.
        logger.warning("A worker does without the store for now: %s", why)
    if waiting and None not in answers.values():
        raise ClusterError(waiting[0])


@contextlib.contextmanager
def _whatever_is_lost() -> Iterator[None]:
    """Do not mind that a worker is lost while all are told something.

    Dask tells the others all the same, and those that join. If the scheduler itself is out
    of reach, the next message says so.
    """
    try:
        yield
    except OSError as e:
        logger.info("A worker was lost: %s", e)


async def install_plugin(client: Client) -> None:
    """Have the scheduler look after stores. Again: does nothing.

    Raises
    ------
    ClusterError
        If daskps is missing there, or has another version.
    """
    await _register(client, LifetimePlugin(__version__), "the scheduler")


async def _register(client: Client, plugin: Any, where: str) -> None:
    try:
        await client.register_plugin(plugin)
    except Exception as e:
        # From a worker only the text comes back: it cannot pickle what it cannot import.
        if "No module named 'daskps" not in str(e):
            raise
        raise missing(where) from e


def _catalog(store: Store, client: Client, keeper: ClientKeeper) -> Catalog:
    return Catalog(store, keeper, creator_name(client.id))


def open_now(
    client: Client, request: StoreRequest, settings: Settings
) -> Catalog | None:
    """The catalog of a store, opened if need be; None: values go inside the graph.

    That is so if none was named and none works; or if that cannot be waited for: an
    asynchronous client cannot wait inside a function that is not a coroutine. The store is
    then opened in the background, for the next time.
    """
    link = ClusterLink.of(client)
    if link.is_open(request):
        return link.catalog_for(request, settings)
    if not client.asynchronous:
        return client.sync(link.open, request, settings)
    task = asyncio.ensure_future(link.open(request, settings))
    task.add_done_callback(_log_failure)
    if link.choice(request) is not None:
        return link.catalog_for(request, settings)  # it is chosen again
    logger.warning(
        "This %s is asynchronous, and its store is not open yet: values are sent inside "
        "the graph until it is. Use 'async with daskps.proxy_graph()' to wait for it.",
        typename(type(client)),
    )
    return None


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("Could not open the cluster's store: %s", task.exception())
