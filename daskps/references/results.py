"""References to results, as whoever fetches them reads them. Runs on clients and workers.

Dask asks the reader of a result which families of serialisation it can read, and the worker
takes the first that accepts the object (``distributed.protocol.serialize``). Each store is
such a family. Workers write them (:mod:`daskps.worker.results`), schedulers relay them
unopened.
"""

from __future__ import annotations

import pickle
from typing import Any

from daskps.dask_private.connections import is_family, register_family
from daskps.exceptions import ObjectMissingError
from daskps.messages import dependency_family, family
from daskps.references.nodes import StoredValue
from daskps.safety_net import fell_back
from daskps.stores import opened


def register_reader(store_name: str) -> None:
    """Let this process read results from a store, and say so when it relays a request."""
    # Of a worker that could not open the store, others ask for dependencies as of any: to
    # Dask, an unknown family is a lost connection, for ever.
    for name, load in (
        (family(store_name), load_reference),
        (dependency_family(store_name), decline),
    ):
        # A process that is a worker as well can write already.
        if not is_family(name):
            register_family(name, decline, load)


def decline(value: Any) -> Any:
    """Serialise nothing in this family: Dask tries the next one."""
    raise NotImplementedError


def load_reference(header: dict[str, Any], frames: list[Any]) -> Any:
    """Read a result that was answered with a reference.

    Raises
    ------
    ObjectMissingError
        If it cannot be read: whoever asked asks again without references.
    """
    try:
        stored: StoredValue = pickle.loads(frames[0])
        value = stored.resolve()
        # What was read stays mapped. The worker deletes its result without telling this
        # host.
        for id in stored.objects():
            opened.evict_copy(id.store, id.key)
    except ObjectMissingError:
        raise
    except Exception as e:
        fell_back(e, "read", StoredValue)
        # Whoever asked asks again without references, and may fail as in plain Dask.
        raise ObjectMissingError(
            f"A result could not be read from its store: {type(e).__name__}: {e}"
        ) from e
    return value
