"""Large results by reference. Written on the worker, read on clients and other workers.

Dask asks the reader of a result which families of serialisation it can read, and the worker
takes the first that accepts the object (``distributed.protocol.serialize``). Each store is
such a family. A client for which a store is open asks for it first: the worker then puts a
large result into the store and sends a reference, which the scheduler relays unopened.
Others do not ask, and get results as Dask sends them. A second family is for workers on the
same host, which ask each other for what their tasks depend on.

The result stays in the worker's memory as it was. What was stored of it is evicted with it,
so a result can be read any number of times, and costs one copy however often it is read.
What a worker stored that dies is evicted by the scheduler.
"""

from __future__ import annotations

import logging
import pickle
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed.protocol.serialize import (
    ToPickle,
    dask_serialize,
)
from distributed.sizeof import safe_sizeof

from daskps.dask_private.connections import (
    gather_from_workers_with,
    register_family,
    send_from_worker,
)
from daskps.exceptions import ObjectMissingError, StoreError
from daskps.messages import DASK_FAMILIES, FAULTS, RESULTS, dependency_family, family
from daskps.objects import finalizers
from daskps.objects.cache import Cache
from daskps.objects.catalog import Catalog
from daskps.objects.encoder import Encoder
from daskps.objects.frame_sizes import is_frame
from daskps.objects.sizes import nbytes_of
from daskps.references.nodes import ObjectId
from daskps.references.proxies import is_proxy
from daskps.references.results import decline, load_reference
from daskps.safety_net import PROCESS, count, fell_back, listen, stop_listening
from daskps.serialize.pickling import is_broadcast, is_dense
from daskps.stores import opened
from daskps.stores.keys import creator_name

if TYPE_CHECKING:
    from distributed import Worker

logger = logging.getLogger(__name__)


def register_writer(store_name: str, threshold: int, worker: Worker) -> Writer:
    """Let this process answer with references into a store.

    Parameters
    ----------
    store_name
        A store that is open in this process.
    threshold
        Bytes; smaller results travel as in plain Dask.
    worker
        Whose results they are. What is stored is marked with its name, so that it can be
        found if this process dies.
    """
    finalizers.start()
    writer = Writer(store_name, threshold, worker)
    register_family(family(store_name), writer.dump, load_reference)
    register_family(dependency_family(store_name), writer.dump, decline)
    return writer


def read_dependencies(worker: Worker, store_name: str) -> None:
    """Have other workers pass results to this one by reference.

    To be called when every worker can write: one that does not know the family fails.
    The sender keeps a result until it has arrived, so a reference that cannot be read is
    this worker's own trouble: it asks for nothing more by reference. To Dask the
    connection was lost; it fetches the result again, or has it computed again.
    """

    def load(header: dict[str, Any], frames: list[Any]) -> Any:
        try:
            return load_reference(header, frames)
        except ObjectMissingError as e:
            gather_from_workers_with(worker, None)
            raise OSError(f"results are passed on without the store: {e}") from e

    name = dependency_family(store_name)
    register_family(name, None, load)
    gather_from_workers_with(worker, [name, *DASK_FAMILIES])


def _as_dask_sends(value: Any) -> Any:
    """An array in the form that Dask's serialisation gives it, which is not pickle's."""
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        return value
    # Of most types derived from it, an array is left. (Not of matrices and masked arrays.)
    if dask_serialize.dispatch(type(value)) is not dask_serialize.dispatch(np.ndarray):
        return value
    value = np.asarray(value)
    if value.flags.forc:  # C or Fortran
        return value
    # Pickle keeps the order of axes, and does not keep that of bytes.
    changed = is_dense(value) or not value.dtype.isnative
    return np.ascontiguousarray(value) if changed else value


def _nbytes(value: Any) -> int:
    # Of a frame Dask makes a series of each column, to weigh it.
    return nbytes_of(value) if is_frame(type(value)) else int(safe_sizeof(value))


def _has_weak_references(value: Any) -> bool:
    try:
        weakref.ref(value)
    except TypeError:
        return False
    return True


class Writer:
    """Stores the results of one worker process.

    Thread-safe: Dask serialises large messages in a thread of its own.
    """

    def __init__(self, store_name: str, threshold: int, worker: Worker):
        self._store_name = store_name
        self._threshold = threshold
        self._creator = creator_name(worker.id)
        self._keeper = _ResultKeeper(worker)
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._closed = False
        self._warned = False
        listen(self._tell_faults)

    def dump(self, value: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Serialise as a reference.

        Raises
        ------
        NotImplementedError
            If the value is not large, or cannot be stored: Dask tries the next family.
        """
        try:
            return self._dump(value)
        except NotImplementedError:
            raise
        except Exception as e:
            fell_back(e, "store a result of type", value)
            raise NotImplementedError from e

    def _dump(self, value: Any) -> tuple[dict[str, Any], list[bytes]]:
        # It has the answers of its object, which it would read for them.
        if is_proxy(value):
            raise NotImplementedError
        # Dask sends a broadcast array as the memory that there is.
        if is_broadcast(value):
            raise NotImplementedError
        # Pickle makes a mask of none.
        if isinstance(value, np.ma.MaskedArray) and value.mask is np.ma.nomask:
            raise NotImplementedError
        # What cannot be told to be collected could not be evicted in time.
        if _nbytes(value) < self._threshold or not _has_weak_references(value):
            raise NotImplementedError
        with self._lock:
            if self._closed:
                raise NotImplementedError
            catalog = self._catalog or self._open()
            # No cache: the value itself keeps what is stored of it.
            encoder = Encoder(catalog, Cache(0), self._threshold, None, False)
            try:
                stored = encoder.encode(_as_dask_sends(value))
                if stored is None or not encoder.stored:
                    raise NotImplementedError
                # What was stored is held until the value is collected.
                weakref.finalize(value, list, encoder.stored).atexit = False
            except StoreError as e:
                self._warn_once(e)
                raise NotImplementedError from e
        return {}, [pickle.dumps(stored)]

    def _warn_once(self, error: StoreError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "Results are sent without the store, which failed: %s", error
            )

    def _tell_faults(self) -> None:
        self._keeper.tell({"op": FAULTS, "process": PROCESS, "count": count()})

    def close(self) -> None:
        """Evict all that was stored, and store nothing any more: the worker ends."""
        stop_listening(self._tell_faults)
        with self._lock:
            self._closed = True
            if self._catalog is not None:
                # What is left if the store does not answer is the scheduler's to delete.
                opened.evict_until_refused(self._catalog.held())
        finalizers.stop()

    def _open(self) -> Catalog:
        store = opened.get(self._store_name)
        if store is None:
            raise NotImplementedError
        self._catalog = Catalog(store, self._keeper, self._creator)
        return self._catalog


class _ResultKeeper:
    """Has what was stored of a result evicted as soon as the worker drops the result.

    In a store that does not know who stored what, nobody could find the results of a
    worker that was killed. So the scheduler is told of these, and evicts them.
    """

    def __init__(self, worker: Worker):
        self._worker = weakref.ref(worker)
        #: What the scheduler was told of.
        self._told: set[ObjectId] = set()

    def stored(self, objects: list[tuple[ObjectId, int]]) -> None:
        ids = [id for id, _ in objects]
        self._told.update(ids)
        self._tell_results(stored=ids, dropped=[])

    def hold(self, objects: list[tuple[ObjectId, int]]) -> None:
        pass

    def release(self, objects: list[ObjectId]) -> None:
        dropped = [id for id in objects if id in self._told]
        self._told.difference_update(dropped)
        if dropped:
            self._tell_results(stored=[], dropped=dropped)
        for id in objects:
            if id not in dropped:
                finalizers.evict_later(id.store, id.key)

    def _tell_results(self, **results: list[ObjectId]) -> None:
        self.tell({"op": RESULTS, **{k: ToPickle(v) for k, v in results.items()}})

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message to the scheduler, if the worker is still there."""
        worker = self._worker()
        if worker is not None:
            send_from_worker(worker, message)
