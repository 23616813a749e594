"""Make the store that was asked for. Whoever makes it owns it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daskps.exceptions import ConfigError
from daskps.linux import is_linux, system
from daskps.stores import leases
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.connectors.sealed import SealedConnector
from daskps.stores.requests import (
    ChoiceRequest,
    ConnectorRequest,
    StoreRequest,
    request_for,
)
from daskps.stores.schemes import scheme_module
from daskps.stores.store import Store
from daskps.stores.urls import check_store, describe
from daskps.tls import Source, at_hand

if TYPE_CHECKING:
    import proxystore.store


def make(
    request: StoreRequest, *, host: str = "127.0.0.1", tls: Source | None = None
) -> Store:
    """Make the store that was asked for; whoever makes it owns it.

    If none was named: the one for processes of one host.

    Parameters
    ----------
    request
        Which one.
    host
        The address by which other processes of the cluster reach this one.
    tls
        Gives the certificates of this process; None: Dask's connections do without TLS.
    """
    if isinstance(request, ChoiceRequest):
        request = request.candidates[0]
    connector: StoreConnector[Any]
    if isinstance(request, ConnectorRequest):
        connector = SealedConnector(request.connector)
    else:
        parts = urlsplit(request.url)
        options = {"host": host, "host_cache": request.host_cache}
        with at_hand(tls):
            connector = scheme_module("store", parts.scheme).make(
                parts, {**dict(request.options), **options}
            )
    if isinstance(connector, SealedConnector):
        from daskps.stores.files.cached import CachedConnector

        connector = CachedConnector(connector, request.host_cache)
    return Store(new_name(), connector)


def new_name() -> str:
    """A name for a store: unique, and short, since every node in a graph holds it."""
    return "daskps-" + secrets.token_urlsafe(6)


def open_store(url: str) -> proxystore.store.Store[Any]:
    """Open a store that belongs to this process.

    For proxies made by hand, and for use with ProxyStore's own functions. Close it when
    done (or use it in a ``with`` statement): that deletes the objects.

    Parameters
    ----------
    url
        Such as ``shm://``, ``file:///directory`` or ``redis://host``.

    Returns
    -------
    proxystore.store.Store
        Registered with ProxyStore under its name. Objects that it gives out are made
        anew at each ``get``, so that changing one changes no other. Its proxies know the
        type of their objects, so that Dask does not read them on the way to a task.

    Raises
    ------
    daskps.exceptions.ConfigError
        If the URL is not valid, or this system is not Linux.

    Examples
    --------
    >>> import numpy as np
    >>> with open_store("shm://") as store:
    ...     key = store.put(np.arange(3))
    ...     store.get(key)
    array([0, 1, 2])
    """
    if not isinstance(url, str):
        raise ConfigError(f"open_store({url!r}): give a URL, such as 'shm://'")
    if not is_linux():
        raise ConfigError(
            f"open_store({describe(url)!r}): daskps's stores need Linux, and this is "
            f"{system()}. ProxyStore's own connectors work here."
        )
    check_store("url", url)
    from daskps.stores.by_hand import OpenedStore

    made = make(request_for(url))
    store = OpenedStore(made.name, made.connector)
    leases.say_alive(made.connector)
    leases.renew(made.connector, store, lambda _: None)
    return store
