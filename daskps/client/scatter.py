"""``Client.scatter`` within a session: data that survives its worker. Runs on the client.

Plain Dask sends scattered data to a worker (by way of the scheduler, unless the client has
direct connections), and loses it with that worker. Here each large value is stored, and
workers read it from there. A graph follows in which each key is a task that reads the value,
so that the scheduler can have it read again. Nobody waits for that graph: until it arrives,
a moment later, the data is where plain Dask would have put it, and as safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from functools import partial
from numbers import Number
from typing import Any

import dask
from dask.base import tokenize
from dask.utils import parse_timedelta
from distributed import Client, Future, wait
from distributed.protocol.pickle import dumps
from distributed.protocol.serialize import ToPickle

from daskps.client.link import ClusterLink
from daskps.client.session import Session, activated
from daskps.dask_private.connections import finish, is_closing, pickle_protocol
from daskps.dask_private.graphs import Task
from daskps.exceptions import DaskpsError
from daskps.messages import SCATTER
from daskps.objects.catalog import Catalog
from daskps.objects.encoder import Encoder
from daskps.objects.sizes import nbytes_of
from daskps.progress import STORING, shown
from daskps.references.nodes import ProxyNode
from daskps.references.proxies import is_proxy
from daskps.serialize.pickling import is_broadcast
from daskps.serialize.sent import serialize_as_sent

logger = logging.getLogger(__name__)

# So much (bytes) is copied into this host's memory sooner than a thread has begun.
AT_ONCE_NBYTES = 4 << 20
# After what time (seconds) the graph follows: whoever scatters goes on first.
GRAPH_FOLLOWS_SECONDS = 0.002
# For how long (seconds) to wait until a task has put the data on a worker, if it is not
# there otherwise. It is safe already, and the workers may be busy for hours, perhaps with
# the very task that scatters.
TASK_WAIT_SECONDS = 1.0


async def scatter(
    client: Client, plain: Callable[..., Any], session: Session, data: Any, options: Any
) -> Any:
    """Scatter as ``Client.scatter`` does, large values by reference.

    Parameters
    ----------
    client
        Whose session it is.
    plain
        Dask's own method, for what is not large.
    session
        Says what is large.
    data, options
        As for ``Client.scatter``, options by keyword.
    """
    containers = (dict, list, tuple, set, frozenset)
    derived = isinstance(data, containers) and type(data) not in containers
    if not is_proxy(data) and derived and not hasattr(data, "_fields"):
        # Versions of Dask differ in what they make of it.
        return await plain(client, data, **options, asynchronous=True)
    items, rebuild = _named(data, options.get("hash", True))
    threshold = session.settings.threshold
    # A broadcast array travels as the memory that there is, and in a graph as a whole.
    large = {
        key: value
        for key, value in items.items()
        if is_proxy(value)
        or (nbytes_of(value) >= threshold and not is_broadcast(value))
    }
    small = {key: v for key, v in items.items() if key not in large}
    futures: dict[Any, Future] = {}
    link = ClusterLink.of(client)
    if large and await link.open(session.request, session.settings) is None:
        large = {key: value for key, value in large.items() if is_proxy(value)}
        small = {key: value for key, value in items.items() if key not in large}
    if small:
        futures |= await plain(client, small, **options, asynchronous=True)
    if large:
        catalog = await ClusterLink.of(client).open(session.request, session.settings)
        futures |= await _by_reference(client, session, catalog, large, options)
    return rebuild({key: futures[key] for key in items})


async def _by_reference(
    client: Client,
    session: Session,
    catalog: Catalog | None,
    items: dict[Any, Any],
    options: dict[str, Any],
) -> dict[Any, Future]:
    """Scatter large values, and proxies; without a store, these alone."""
    # What was scattered under its name before is one task, as what is submitted twice.
    new = {key: value for key, value in items.items() if not _is_there(client, key)}
    futures = {key: Future(key, client) for key in items}
    nodes = {}
    if catalog is not None:
        # As Dask sends it: it does not pickle what it has serialisers of its own for.
        encoder = session.encoder(catalog)
        encoder.serialize = partial(serialize_as_sent, protocol=pickle_protocol(client))
        nodes = await _stored(encoder, catalog, new)
    if nodes and await _read_on_workers(client, nodes, options):
        for key in nodes:
            finish(client, key, type(new[key]))
            del new[key]
        later = asyncio.get_running_loop().call_later
        later(GRAPH_FOLLOWS_SECONDS, _submit_wanted, client, session, nodes)
    if new:
        tasks = {key: Task(key, _itself, value) for key, value in new.items()}
        await asyncio.to_thread(_submit, client, session, tasks, options.get("workers"))
        await _wait(client, [futures[key] for key in new], options)
    return futures


def _is_there(client: Client, key: Any) -> bool:
    state = client.futures.get(key)
    return state is not None and state.status in ("pending", "finished")


async def _stored(
    encoder: Encoder, catalog: Catalog, items: dict[Any, Any]
) -> dict[Any, ProxyNode]:
    if catalog.maps_its_own and sum(map(nbytes_of, items.values())) <= AT_ONCE_NBYTES:
        return _store(encoder, items)
    # In a thread: storing may take long, and others need the event loop.
    return await asyncio.to_thread(_store, encoder, items)


def _store(encoder: Encoder, items: dict[Any, Any]) -> dict[Any, ProxyNode]:
    """Nodes for what can be stored."""
    values = {key: value for key, value in items.items() if not is_proxy(value)}
    with shown(STORING, sum(map(nbytes_of, values.values()))):
        encoder.encode_all(list(values.values()))
        stored = {key: encoder.encode(value) for key, value in values.items()}
    return {key: ProxyNode(key, s) for key, s in stored.items() if s is not None}


async def _read_on_workers(
    client: Client, nodes: dict[Any, ProxyNode], options: dict[str, Any]
) -> bool:
    """Whether workers have read what is stored; the scheduler knows where it is then."""
    broadcast = options.get("broadcast")
    workers = options.get("workers")
    try:
        await getattr(client.scheduler, SCATTER)(
            client=client.id,
            nodes=ToPickle({key: dumps(node) for key, node in nodes.items()}),
            workers=[workers] if isinstance(workers, (str, Number)) else workers,
            copies=None if broadcast is True else int(broadcast or 1),
            timeout=_timeout(options),
        )
    except TimeoutError:
        raise
    except Exception as e:
        # A worker that was lost, or cannot read: the scheduler chooses another one.
        logger.info("Scattered data is put on workers by tasks: %r", e)
        return False
    return True


def _submit_wanted(
    client: Client, session: Session, nodes: dict[Any, ProxyNode]
) -> None:
    graph = {key: node for key, node in nodes.items() if key in client.futures}
    if not graph or client.status != "running":
        return
    try:
        _submit(client, session, graph)
    except DaskpsError:
        # Another thread closes the client just now, and nobody waits for these.
        if not is_closing(client):
            raise


def _submit(
    client: Client, session: Session, graph: dict[Any, Any], workers: Any = None
) -> None:
    # Where the data goes at first. If no such worker is left, it may go elsewhere.
    where = {"workers": workers, "allow_other_workers": True} if workers else {}
    with activated(session):
        client.get(graph, list(graph), sync=False, **where)


async def _wait(client: Client, futures: list[Future], options: dict[str, Any]) -> None:
    """Wait until tasks have put data on workers, and fail as Dask does if there is none."""
    timeout = _timeout(options)
    broadcast = options.get("broadcast")
    try:
        await client.wait_for_workers(1, timeout=timeout)
    except TimeoutError:
        raise TimeoutError("No valid workers found") from None
    with client.as_current(), contextlib.suppress(asyncio.TimeoutError):
        await wait(futures, timeout=timeout if broadcast else TASK_WAIT_SECONDS)
        if broadcast:
            await client.replicate(
                futures,
                n=None if broadcast is True else broadcast,
                workers=options.get("workers"),
            )


def _timeout(options: dict[str, Any]) -> float:
    connect = dask.config.get("distributed.comm.timeouts.connect")
    return float(parse_timedelta(options.get("timeout", connect), "s"))


def _itself(value: Any) -> Any:
    return value


def _named(data: Any, hash: bool) -> tuple[dict[Any, Any], Callable[..., Any]]:
    """Values by key, and how futures by key become what ``Client.scatter`` returns.

    As ``Client._scatter`` does, which was checked in distributed 2026.8.0.
    """
    if type(data) is range:
        data = list(data)
    if type(data) is dict:
        return data, lambda futures: futures
    is_namedtuple = isinstance(data, tuple) and hasattr(data, "_fields")
    single = type(data) not in (list, tuple, set, frozenset) and not is_namedtuple
    values = [data] if single else list(data)
    keys = [
        f"{type(v).__name__}-{tokenize(v) if hash else uuid.uuid4().hex}"
        for v in values
    ]

    def rebuild(futures: dict[Any, Future]) -> Any:
        ordered = [futures[key] for key in keys]
        if single:
            return ordered[0]
        return type(data)._make(ordered) if is_namedtuple else type(data)(ordered)

    return dict(zip(keys, values, strict=True)), rebuild
