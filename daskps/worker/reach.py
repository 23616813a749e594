"""What a worker can connect to, for clients that ask. Runs on workers, and the scheduler."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from distributed.utils import offload

from daskps.exceptions import ClusterError
from daskps.stores import opened
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.interfaces import Address, pair
from daskps.stores.reach import failures, neighbours
from daskps.worker.plugin import WorkerStorePlugin, plugin_name, why_not_open

if TYPE_CHECKING:
    from distributed import Worker


async def take_part(store: str, dask_worker: Worker) -> dict[str, Any]:
    """Wait until a worker has opened a store, and say where its objects can be read.

    Returns
    -------
    dict
        ``refusal``: why it cannot take part, or None; otherwise ``host``, the host's name,
        and ``address``, or None if its objects are read in another way.
    """
    try:
        why = await why_not_open(store, dask_worker)
        if why is not None:
            return {"refusal": why}
        connector = _connector(store).serving()
        address = await offload(connector.serves_at) if connector else None
    except (ClusterError, OSError) as e:
        return {"refusal": str(e)}
    return {"refusal": None, "host": socket.gethostname(), "address": address}


async def try_hosts(store: str, addresses: list[Any]) -> list[tuple[Address, str]]:
    """Which of these, and of the store's registries, this host cannot connect to, and why.

    Of many, only the first, and those after this host's own address.
    """
    connector = _connector(store).serving()
    if connector is None:
        return []
    own = await offload(connector.serves_at)
    first, *others = map(pair, addresses)
    wanted = [*connector.registries(), *neighbours(own, others)]
    if first != own:
        wanted.append(first)
    found = await offload(failures, connector, wanted)
    return list(found.items())


async def try_from_scheduler(store: str, address: Any) -> list[tuple[Address, str]]:
    """Whether the scheduler's host can connect to an address; if not, why."""
    connector = _connector(store).serving()
    if connector is None:
        return []
    found = await offload(failures, connector, [pair(address)])
    return list(found.items())


def keep_inline(store: str, dask_worker: Worker) -> None:
    """Have the tasks of a worker submit graphs as in plain Dask."""
    plugin = dask_worker.plugins.get(plugin_name(store))
    if isinstance(plugin, WorkerStorePlugin):
        plugin.tasks_store = False


def _connector(store: str) -> StoreConnector[Any]:
    found = opened.get(store)
    if found is None:
        raise ClusterError(f"Store {store!r} was closed meanwhile")
    return found.connector
