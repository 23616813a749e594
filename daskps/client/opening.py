"""Opens a store on a whole cluster. Runs on the client."""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distributed.protocol.serialize import ToPickle

from daskps.client.keeper import ClientKeeper, connection_lost
from daskps.dask_private.connections import connection
from daskps.dask_private.security import tls_of
from daskps.exceptions import ClusterError, DaskpsError
from daskps.messages import OPEN
from daskps.objects.catalog import Catalog
from daskps.references.results import register_reader
from daskps.scheduler.lifetimes import LifetimePlugin
from daskps.settings import Settings
from daskps.stores import opened
from daskps.stores.keys import creator_name
from daskps.stores.refusals import unreachable
from daskps.stores.requests import NamedRequest
from daskps.stores.store import Store
from daskps.versions import VERSION, missing
from daskps.worker.plugin import (
    WorkerDependenciesPlugin,
    WorkerStorePlugin,
    when_open,
)

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)


async def open_everywhere(
    client: Client, request: NamedRequest, settings: Settings
) -> Catalog:
    """Open a store on the scheduler, on all workers, and here.

    Raises
    ------
    ClusterError
        If daskps speaks another protocol there, or one of them cannot use the store.
    ConfigError
        If the scheduler cannot open it.
    """
    over = connection(client)
    reply = await getattr(client.scheduler, OPEN)(
        request=ToPickle(request),
        version=VERSION,
        settings=pickle.dumps(settings.portable()),
    )
    if "error" in reply:
        raise reply["error"]
    config = reply["config"]
    try:
        # Without patience: a result that cannot be read is fetched otherwise, and trying
        # again would hold up the event loop.
        store = await opened.acquire_in_thread(
            config, tls=functools.partial(tls_of, client)
        )
    except (ImportError, OSError) as e:
        raise ClusterError(unreachable("This client", e)) from e
    keeper = ClientKeeper(client)
    keeper.closes(config.name)
    plugin = WorkerStorePlugin(config.name, settings, VERSION)
    await _open_on_workers(client, plugin)
    if store.connector.shares_memory and settings.results is not False:
        with _whatever_is_lost():
            await client.register_plugin(WorkerDependenciesPlugin(config.name))
    register_reader(config.name)
    if connection(client) is not over:
        raise connection_lost("a store was opened")
    return catalog_of(store, client, keeper)


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
        If daskps is missing there, or speaks another protocol.
    """
    await _register(client, LifetimePlugin(VERSION), "the scheduler")


async def _register(client: Client, plugin: Any, where: str) -> None:
    try:
        await client.register_plugin(plugin)
    except Exception as e:
        # From a worker only the text comes back: it cannot pickle what it cannot import.
        if "No module named 'daskps" not in str(e):
            raise
        raise missing(where) from e


def catalog_of(store: Store, client: Client, keeper: ClientKeeper) -> Catalog:
    """A catalog of what this client puts into a store."""
    return Catalog(store, keeper, creator_name(client.id))
