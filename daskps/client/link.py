"""What a client and its cluster have set up between them. Runs on the client."""

from __future__ import annotations

import asyncio
import logging
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from dask.utils import typename

from daskps.client.chosen import ChosenStore
from daskps.client.fetching import Fetching
from daskps.client.keeper import ClientKeeper, client_closed
from daskps.client.opening import catalog_of, install_plugin, open_everywhere
from daskps.client.reach import Reach
from daskps.client.reporting import report_while_connected
from daskps.client.sending import Sending
from daskps.dask_private.connections import connection, is_asynchronous, is_closing
from daskps.exceptions import ClusterError, DaskpsError
from daskps.messages import WORKERS
from daskps.objects import finalizers
from daskps.objects.catalog import Catalog
from daskps.settings import Settings
from daskps.stores import opened
from daskps.stores.remarks import Remark
from daskps.stores.requests import ChoiceRequest, NamedRequest, StoreRequest

if TYPE_CHECKING:
    from distributed import Client


logger = logging.getLogger(__name__)


class ClusterLink:
    """Opens the cluster's stores for one client.

    Use :meth:`of`: there is one link for each client.

    Parameters
    ----------
    client
        The client; the link does not keep it alive.

    Attributes
    ----------
    fetching
        Which of its results come by reference.
    sending
        What it sends besides graphs.
    reaches
        What can travel by stores that were examined.

    Notes
    -----
    A client that loses its connection to the scheduler connects again. The scheduler has
    then dropped what the client held, or is another one, which knows nothing of stores.
    So what was set up over one connection is forgotten with it.
    """

    fetching: Fetching
    sending: Sending
    reaches: dict[NamedRequest, Reach]
    _client: weakref.ref[Client]
    _catalogs: dict[StoreRequest, Catalog]
    _remarks: dict[StoreRequest, Remark | None]
    #: What was chosen, or only examined.
    _chosen: dict[StoreRequest, ChosenStore]
    _connection: Any

    _links: weakref.WeakKeyDictionary[Client, ClusterLink] = weakref.WeakKeyDictionary()

    def __init__(self, client: Client):
        self._client = weakref.ref(client)
        self._catalogs = {}
        self._remarks = {}
        self._chosen = {}
        self.reaches = {}
        self._connection = None
        self.sending = Sending(client)
        self.fetching = Fetching(client, self._readable, self.sending.call)

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

    def store_names(self) -> list[str]:
        """The names of the stores that are open."""
        return [catalog.name for catalog in self._catalogs.values()]

    def remark(self, request: StoreRequest) -> Remark | None:
        """What a user should know of a store that was opened."""
        return self._remarks.get(request)

    def choice(self, request: StoreRequest) -> ChosenStore | None:
        """What was chosen, or examined, for a request, if that was done."""
        self._forget_if_disconnected()
        return self._chosen.get(request)

    def has(self, request: StoreRequest) -> bool:
        """Whether a store was opened, or chosen, over this connection."""
        return request in self._catalogs or self.choice(request) is not None

    def is_open(self, request: StoreRequest) -> bool:
        """Whether nothing has to be done before the next graph."""
        choice = self.choice(request)
        return request in self._catalogs if choice is None else choice.is_final

    def forget(self, request: NamedRequest) -> None:
        """Use a store no longer of which nothing is held, unless another session does."""
        if all(chosen.request != request for chosen in self._chosen.values()):
            self._catalogs.pop(request, None)
            self.reaches.pop(request, None)

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
                self.reaches = {}
            self._connection = connection(client)
            self.fetching.update()
            self.sending.update()

    def _client_closed(self) -> None:
        """Let go of the stores; they are closed when what is under way has ended."""
        self._catalogs = {}
        self._chosen = {}
        self.let_go()

    def let_go(self) -> None:
        """Hold nothing for graphs that could follow."""
        self.fetching.let_go()

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
        return self.fetching.update()

    def update_results(self) -> None:
        """Ask for references to results again, where what was chosen allows it."""
        self.fetching.update()

    def _readable(self) -> list[str]:
        """The names of the stores by way of which results may come."""
        without = {chosen.without_results for chosen in self._chosen.values()}
        return [c.name for c in self._catalogs.values() if c not in without]

    def adopt(self, request: StoreRequest, name: str) -> None:
        """Use a store that is open already on the cluster and in this process."""
        client = self._client()
        store = opened.get(name)
        self._forget_if_disconnected()
        if client is not None and store is not None and request not in self._catalogs:
            keeper = ClientKeeper(client)
            self._catalogs[request] = catalog_of(store, client, keeper)

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
            If daskps is missing there, speaks another protocol, or a store that was named
            cannot be used by all of them.
        ConfigError
            If the scheduler cannot open a store that was named.
        """
        client = self._client()
        assert client is not None, "the caller has the client"
        try:
            return await self._open(client, request, settings)
        except DaskpsError:
            raise
        except asyncio.CancelledError as e:
            # The client's own event loop has ended. Dask's ``sync`` has no result to give
            # then, nor an error (2026.8.0: UnboundLocalError).
            if is_closing(client) and not is_asynchronous(client):
                raise client_closed("a store was opened") from e
            raise
        except Exception as e:
            # Whatever it was that another thread has closed in the middle.
            if is_closing(client):
                raise client_closed("a store was opened") from e
            raise

    async def _open(
        self, client: Client, request: StoreRequest, settings: Settings
    ) -> Catalog | None:
        while client.status == "connecting":
            await asyncio.sleep(0.02)  # Dask gives up at some time, and closes it
        if not isinstance(request, ChoiceRequest):
            catalog = await self.open_named(request, settings)
            remark = self.remark(request)
            if remark is not None:
                remark.log()
            return catalog
        if not self.is_open(request):
            await install_plugin(client)
            chosen = self._chosen.get(request)
            if chosen is None:
                _tell_of_workers(client, self)
                chosen = ChosenStore(self, request, settings)
                self._chosen[request] = chosen
            try:
                await chosen.settle(client)
            except BaseException:
                # Others may have had it chosen, or wait for it.
                if self._chosen.get(request) is chosen and not chosen.is_made:
                    del self._chosen[request]
                raise
            self._chosen.setdefault(request, chosen)
        return self.catalog_for(request, settings)

    async def open_named(self, request: NamedRequest, settings: Settings) -> Catalog:
        """Open a store that was named, or chosen."""
        client = self._client()
        assert client is not None, "the caller has the client"
        self._forget_if_disconnected()
        if request not in self._catalogs:
            await install_plugin(client)
            finalizers.start(client, self._client_closed)
            catalog = await open_everywhere(client, request, settings)
            self._catalogs[request] = catalog
            self._remarks[request] = catalog.store.connector.remark()
            report_while_connected(client, catalog.name)
            self.fetching.update()
        return self._catalogs[request]

    def catalog_for(self, request: StoreRequest, settings: Settings) -> Catalog | None:
        """The catalog of a store that is open.

        Raises
        ------
        ClusterError
            If there is none, and what cannot be stored is to be an error.
        """
        catalog, chosen = self.catalog(request), self.choice(request)
        if catalog is not None or settings.on_store_error != "raise":
            return catalog
        if chosen is not None and chosen.is_made:
            raise ClusterError(
                f"Nothing can be stored: {chosen.against_arguments}. Name another store, "
                "or set daskps.on-store-error to 'inline' to have values sent inside "
                "graphs."
            )
        return None

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
        catalog: Catalog | None = client.sync(link.open, request, settings)
        return catalog
    task = asyncio.ensure_future(link.open(request, settings))
    task.add_done_callback(partial(_log_failure, client))
    if link.choice(request) is not None:
        return link.catalog_for(request, settings)  # it is chosen again
    logger.warning(
        "This %s is asynchronous, and its store is not open yet: values are sent inside "
        "the graph until it is. Use 'async with daskps.proxy_graph()' to wait for it, with "
        "client=... if this client is not the current one.",
        typename(type(client)),
    )
    return None


def _log_failure(client: Client, task: asyncio.Task[Any]) -> None:
    if task.cancelled() or task.exception() is None:
        return
    level = logging.INFO if is_closing(client) else logging.ERROR
    logger.log(level, "Could not open the cluster's store: %s", task.exception())
