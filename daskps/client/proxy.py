"""Proxies made by hand. Runs on the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask.base import tokenize
from distributed import Client
from proxystore.proxy import Proxy

from daskps.client.link import ClusterLink
from daskps.client.session import Session, current_session
from daskps.exceptions import ConfigError
from daskps.linux import is_linux, system
from daskps.references.proxies import keep
from daskps.serialize.values import from_bytes, to_bytes
from daskps.settings import Settings
from daskps.stores.requests import ConnectorRequest, request_for
from daskps.stores.unread import unread
from daskps.stores.urls import check_store, describe

if TYPE_CHECKING:
    from proxystore.store import Store


def proxy(obj: Any, store: Any = None) -> Any:
    """Store an object, and make a transparent proxy of it.

    Parameters
    ----------
    obj
        Anything that can be pickled.
    store
        A ProxyStore ``Store`` or ``Connector``, whose objects are yours to evict. Default:
        the store of the current client's cluster; the object is then kept for as long as
        the proxy exists in this process, or a task needs it.

    Returns
    -------
    proxystore.proxy.Proxy
        Behaves as `obj`, and can be passed to tasks, which read it when they use it. Of
        the cluster's store it has only the name, so it is of use there alone.

    Raises
    ------
    daskps.exceptions.ConfigError
        If `store` is none of these, or there is no client; or none is given, and this
        system is not Linux.

    Examples
    --------
    >>> model = daskps.proxy(big_array)  # doctest: +SKIP
    >>> client.submit(np.sum, model).result()  # doctest: +SKIP
    """
    if store is not None:
        return unread(_opened(store).proxy(obj, populate_target=True))
    try:
        client = Client.current()
    except ValueError:
        raise ConfigError(
            "daskps.proxy(obj) needs a distributed client, whose cluster's store it uses. "
            "Create one, or give a store: daskps.proxy(obj, store=...)"
        ) from None
    if not is_linux():
        raise ConfigError(
            f"daskps.proxy(obj) uses the cluster's store, which needs Linux, and this is "
            f"{system()}. Give a ProxyStore store: daskps.proxy(obj, store=...)"
        )
    session = current_session(client) or Session(Settings.resolve())
    catalog = session.catalog(client)
    chosen = ClusterLink.of(client).choice(session.request)
    if catalog is None and chosen is not None and chosen.is_made:
        raise ConfigError(
            "daskps.proxy(obj) has no store that it could put the object into: "
            f"{chosen.against_arguments}. Give another: daskps.proxy(obj, store=...)"
        )
    if catalog is None:
        raise ConfigError(
            "daskps.proxy(obj) cannot wait for the cluster's store to be opened by an "
            "asynchronous client: enter 'async with daskps.proxy_graph()' first"
        )
    handle = catalog.put([to_bytes(obj)])
    catalog.hold([handle])
    from daskps.references.factory import ClusterFactory

    factory: Any = ClusterFactory(handle.id)
    made = unread(Proxy(factory, cache_defaults=True, target=obj))
    keep(handle, made)
    return made


def _opened(store: Any) -> Store[Any]:
    from proxystore.store import Store, get_or_create_store
    from proxystore.store.config import ConnectorConfig, StoreConfig

    check_store("store", store)
    if isinstance(store, Store):
        return store
    if isinstance(store, str):
        raise ConfigError(
            f"daskps.proxy(store={describe(store)!r}): a store by URL has to be opened, "
            "so that it can be closed: use daskps.open_store(url)"
        )
    request = request_for(store)
    assert isinstance(request, ConnectorRequest), "it is not a URL"
    made = request.connector
    connector = ConnectorConfig(kind=made.kind, options=made.options)
    return get_or_create_store(
        StoreConfig(
            # One store for equal connectors: each process finds it by its name.
            name=f"daskps-{tokenize(connector.kind, connector.options)}",
            connector=connector,
            serializer=to_bytes,
            deserializer=from_bytes,
            cache_size=0,
        ),
        register=True,
    )
