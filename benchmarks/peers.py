"""Who is compared: Dask as it is, daskps, and other ways to ship a value to a task.

Each has a client of its own on the same cluster.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from distributed import Client
from proxystore.connectors.file import FileConnector
from proxystore.store import Store

import daskps


@dataclass(frozen=True)
class Connected:
    """A peer on a running cluster.

    Attributes
    ----------
    client
        Its client.
    ship
        Given a value, what the user of this peer passes to tasks in its place.
    block
        Makes the context in which one run takes place.
    """

    client: Client
    ship: Callable[[Any], Any] = lambda value: value
    block: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext


@contextlib.contextmanager
def plain(address: str) -> Iterator[Connected]:
    """Dask as it is."""
    with Client(address, set_as_default=False) as client:
        yield Connected(client)


@contextlib.contextmanager
def with_daskps(address: str) -> Iterator[Connected]:
    """Each run within a block of its own."""
    with Client(address, set_as_default=False) as client:
        yield Connected(client, block=lambda: daskps.proxy_graph(client=client))


@contextlib.contextmanager
def scattered(address: str) -> Iterator[Connected]:
    """``Client.scatter``, and the future passed to tasks."""
    with Client(address, set_as_default=False) as client:
        yield Connected(client, ship=lambda value: client.scatter(value, hash=False))


@contextlib.contextmanager
def by_hand(address: str) -> Iterator[Connected]:
    """A ProxyStore proxy for each value, over files in shared memory."""
    with (
        Client(address, set_as_default=False) as client,
        _store("benchmarks-by-hand") as store,
    ):
        yield Connected(client, ship=store.proxy)


@contextlib.contextmanager
def proxystore_ex(address: str) -> Iterator[Connected]:
    """proxystore-ex's client for Dask, over files in shared memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        from proxystore_ex.plugins.distributed import Client as ProxyClient
    with (
        _store("benchmarks-proxystore-ex") as store,
        ProxyClient(address, ps_store=store, set_as_default=False) as client,
    ):
        yield Connected(client)


@contextlib.contextmanager
def _store(name: str) -> Iterator[Store[Any]]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as directory,
        Store(name, FileConnector(directory), register=True) as store,
    ):
        yield store


PEERS: dict[str, Callable[[str], AbstractContextManager[Connected]]] = {
    "dask": plain,
    "daskps": with_daskps,
    "scatter": scattered,
    "by hand": by_hand,
    "proxystore_ex": proxystore_ex,
}

#: Those that every scenario compares.
BOTH = ("dask", "daskps")
#: Those that differ where a user passes values to ``submit`` and ``map``.
ALL = tuple(PEERS)
#: Those that differ where a user passes values to delayed functions.
DELAYED = ("dask", "daskps", "scatter", "by hand")
