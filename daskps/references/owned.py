"""Results of tasks that own their object in a ProxyStore store. Runs everywhere.

``StoreExecutor(ownership=True)`` has tasks return an ``OwnedProxy``, which deletes its
object when it is collected. Pickling one gives the ownership away: what is left in this
process is of no use. But Dask pickles a result each time that somebody asks for it.

So the result on the worker stays the owner, for as long as Dask keeps it. What is sent is a
reference, and whoever receives it reads the object then, while it is there for certain.

Imports ProxyStore's stores, and is imported where there is such a proxy only
(:mod:`daskps.lazy`).
"""

from __future__ import annotations

import copyreg
import pickle
from typing import Any

from distributed.protocol import dask_deserialize, dask_serialize
from proxystore.proxy import get_factory
from proxystore.store.executor import _FunctionWrapper
from proxystore.store.ref import OwnedProxy

from daskps.references.proxies import ReceivedProxy
from daskps.stores.unread import forget_frames


class _Function(_FunctionWrapper[Any, Any]):
    """What a ``StoreExecutor`` submits, where it runs.

    Whoever calls it has the result in a frame. It would not be deleted with its key.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and store what it gives."""
        result = super().__call__(*args, **kwargs)
        if type(result) is OwnedProxy:
            forget_frames(result)
        return result


def register() -> None:
    """Have Dask send such results in this way. Again: does nothing."""
    dask_serialize.register(OwnedProxy)(_dumps)
    dask_deserialize.register(OwnedProxy)(_loads)
    # With a result Dask sends its type. Those of ProxyStore's proxies do not say in which
    # module they are, so that they would be copied.
    copyreg.pickle(type(OwnedProxy), _reduce_type)
    copyreg.pickle(_FunctionWrapper, _reduce_function)
    copyreg.pickle(_Function, _reduce_function)


def _dumps(value: Any) -> tuple[dict[str, Any], list[bytes]]:
    return {}, [pickle.dumps(get_factory(value))]


def _loads(header: dict[str, Any], frames: list[Any]) -> Any:
    return ReceivedProxy(pickle.loads(frames[0])())


def _reduce_type(kind: Any) -> Any:
    return (_owned_type, ()) if kind is OwnedProxy else kind.__qualname__


def _owned_type() -> Any:
    """In the process that receives a result."""
    register()
    return OwnedProxy


def _reduce_function(function: Any) -> Any:
    """What a ``StoreExecutor`` submits: a worker that gets it imports daskps."""
    if function.return_owned_proxy:
        return _function, (function.__dict__,)
    return function.__reduce_ex__(2)


def _function(attributes: dict[str, Any]) -> Any:
    """In the process that makes a result."""
    register()
    made = _Function.__new__(_Function)
    made.__dict__.update(attributes)
    return made
