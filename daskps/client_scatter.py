"""``Client.scatter`` within a session: data that survives its worker. Runs on the client.

Plain Dask sends scattered data to a worker (by way of the scheduler, unless the client has
direct connections), and loses it with that worker. Here each large value becomes a task
that reads it from the store, so that the scheduler can have it made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import dask
from dask.base import tokenize
from dask.utils import parse_timedelta
from distributed import Client, Future, wait

from daskps.client_census import nbytes_of
from daskps.client_link import ClusterLink
from daskps.client_session import Session, activated
from daskps.pickling import is_broadcast
from daskps.transparent_proxies import is_proxy

# For how long (seconds) to wait until the data is on a worker. It is safe already, and the
# workers may be busy for hours, perhaps with the very task that scatters.
WAIT = 1.0


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
    # A task needs the object that a proxy stands for, scattered data as such does not.
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
        connect = dask.config.get("distributed.comm.timeouts.connect")
        timeout = parse_timedelta(options.get("timeout", connect), "s")
        await _wait_for_a_worker(client, timeout)
        # In a thread: storing may take long, and others need the event loop.
        futures |= await asyncio.to_thread(
            _submit, client, session, large, options.get("workers")
        )
        broadcast = options.get("broadcast")
        with contextlib.suppress(asyncio.TimeoutError):
            stored = [futures[key] for key in large]
            await wait(stored, timeout=timeout if broadcast else WAIT)
            if broadcast:
                await client.replicate(
                    stored,
                    n=None if broadcast is True else broadcast,
                    workers=options.get("workers"),
                )
    return rebuild({key: futures[key] for key in items})


async def _wait_for_a_worker(client: Client, timeout: float | None) -> None:
    """Fail as Dask does if none comes in time."""
    try:
        await client.wait_for_workers(1, timeout=timeout)
    except TimeoutError:
        raise TimeoutError("No valid workers found") from None


def _submit(
    client: Client, session: Session, items: dict[Any, Any], workers: Any
) -> dict[Any, Future]:
    # Where the data goes at first. If no such worker is left, it may go elsewhere.
    where = {"workers": workers, "allow_other_workers": True} if workers else {}
    with activated(session):
        return {
            key: client.submit(_itself, value, key=key, **where)
            for key, value in items.items()
        }


def _itself(value: Any) -> Any:
    return value


def _named(data: Any, hash: bool) -> tuple[dict[Any, Any], Callable[..., Any]]:
    """Values by key, and how futures by key become what ``Client.scatter`` returns.

    As ``Client._scatter`` does, which was checked in distributed 2026.8.0.
    """
    # A proxy has the methods of an iterator.
    if not is_proxy(data) and isinstance(data, (range, Iterator)):
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
