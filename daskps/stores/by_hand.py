"""The stores that :func:`daskps.open_store` gives, for proxies made by hand.

Imports ProxyStore's stores, and is imported where somebody uses one only
(:mod:`daskps.lazy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxystore.connectors.protocols import Connector
from proxystore.serialize import deserialize
from proxystore.store import Store

from daskps.serialize.values import from_bytes, is_ours, to_bytes
from daskps.stores.unread import unread


def read(data: bytes | bytearray | memoryview) -> Any:
    """The value that daskps has serialised, or ProxyStore's own ``serialize``.

    Some of what works with ProxyStore gives a store bytes that it has serialised by
    itself, as ``proxystore_ex.plugins.distributed.Client`` does, and relies on it that
    stores read these.

    Raises
    ------
    ValueError
        If the value was cut short.
    proxystore.serialize.SerializationError
        If neither has serialised it.
    """
    return from_bytes(data) if is_ours(data) else deserialize(data)


class OpenedStore(Store[Any]):
    """A ProxyStore store whose proxies know the type of their objects.

    To ask a proxy for its type reads the object, unless the proxy knows it. Dask asks on
    its way to a task, in several processes. That costs time, and with ``evict=True``, which
    deletes the object when it is read, the task finds nothing.

    Parameters
    ----------
    name
        Of the store.
    connector
        Of any kind.
    """

    def __init__(self, name: str, connector: Connector[Any]):
        super().__init__(
            name,
            connector,
            serializer=to_bytes,
            deserializer=read,
            # ProxyStore's cache counts objects, whatever their size, and would hand one
            # object to several tasks.
            cache_size=0,
            populate_target=False,
            register=True,
        )

    def proxy(
        self, obj: Any, *, populate_target: bool | None = None, **options: Any
    ) -> Any:
        """Store an object, and make a proxy of it: as ProxyStore's, see there."""
        made = super().proxy(obj, populate_target=True, **options)
        return made if populate_target else unread(made)

    def proxy_batch(
        self,
        objs: Sequence[Any],
        *,
        populate_target: bool | None = None,
        **options: Any,
    ) -> list[Any]:
        """Store several objects, and make a proxy of each."""
        made = super().proxy_batch(objs, populate_target=True, **options)
        return list(made) if populate_target else [unread(one) for one in made]
