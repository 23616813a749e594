"""ProxyStore's transparent proxies, as Dask meets them. Runs everywhere.

A ``Proxy`` looks like the object that it stands for, and reads it from its store when it is
first used. Looking is using: even ``isinstance(proxy, X)`` reads the object when its type
has to be known. Dask looks at what it is given in many places. So that it does not read
objects on the client or on the scheduler, proxies are tokenised by their key here, have the
size of a reference, and travel inside a graph as opaque nodes
(:meth:`daskps.objects.encoder.Encoder.encode`). A task receives the proxy.

Results of tasks that own their object (``OwnedProxy``) are in
:mod:`daskps.references.owned`, and arrive as a :class:`ReceivedProxy`.
"""

from __future__ import annotations

import weakref
from typing import Any

from dask.sizeof import sizeof
from dask.tokenize import normalize_token
from proxystore.factory import SimpleFactory
from proxystore.proxy import Proxy, get_factory

from daskps.lazy import loaded
from daskps.references.nodes import ObjectId
from daskps.stores.unread import forget_frames

# Handles of the objects that proxies stand for, for as long as the proxies exist.
_handles: weakref.WeakValueDictionary[ObjectId, Any] = weakref.WeakValueDictionary()


class ReceivedProxy(Proxy[Any]):
    """A proxy of an object that is in this process: wherever it goes, the object does.

    Parameters
    ----------
    obj
        The object.
    """

    __slots__ = ()

    def __init__(self, obj: Any):
        super().__init__(SimpleFactory(obj), target=obj)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.__proxy_wrapped__,)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()


def _itself(value: Any) -> Any:
    return value


def is_proxy(value: Any) -> bool:
    """Whether this is a ProxyStore proxy of an object elsewhere, without asking it."""
    kind = type(value)
    return issubclass(kind, Proxy) and kind is not ReceivedProxy


def stored_by(value: Any) -> Any:
    """The handle of the object that a proxy stands for, if daskps stored it here."""
    factory = _store_factory(value)
    if factory is None:
        return None
    return _handles.get(ObjectId(factory.store_config.name, factory.key))


def keep(handle: Any, made: Any) -> None:
    """Keep an object's handle for as long as a proxy of it exists."""
    weakref.finalize(made, _forget, handle).atexit = False
    _handles[handle.id] = handle


def _forget(handle: Any) -> None:
    """Let a handle go."""


def register() -> None:
    """Tell Dask how to treat proxies: done once, when daskps is imported."""
    normalize_token.register(Proxy, _normalize)
    sizeof.register(Proxy, lambda value: 512)
    normalize_token.register(ReceivedProxy, lambda value: normalize_token(_of(value)))
    sizeof.register(ReceivedProxy, lambda value: sizeof(_of(value)))
    # Dask asks every argument whether it is a future (dask._task_spec._is_dask_future) or a
    # collection (dask.base.is_dask_collection). A proxy would pass the question on to its
    # object; these say no. A proxy of a future or a collection is not treated as one.
    Proxy.__dask_future__ = False
    # Not a function that returns None: Dask would go on and ask for the attribute `expr`.
    Proxy.__dask_graph__ = None


def _of(value: ReceivedProxy) -> Any:
    return value.__proxy_wrapped__


def _normalize(value: Any) -> Any:
    # Each argument of a call comes by here, such as those of a StoreExecutor, whose caller
    # has the future.
    forget_frames(value)
    factory = _store_factory(value)
    if factory is not None:
        return "proxy", factory.store_config.name, repr(factory.key)
    return "proxy", normalize_token(get_factory(value))


def _store_factory(value: Any) -> Any:
    """What reads a proxy's object from a ProxyStore store; None if something else does."""
    module = loaded("proxystore.store.factory")
    factory = get_factory(value)
    return factory if module and isinstance(factory, module.StoreFactory) else None
