"""Large results by reference. Written on the worker, read on clients and other workers.

Dask asks the reader of a result which families of serialisation it can read, and the worker
takes the first that accepts the object (``distributed.protocol.serialize``). Each store is
such a family. A client for which a store is open asks for it first: the worker then puts a
large result into the store and sends a reference, which the scheduler relays unopened.
Others do not ask, and get results as ever. A second family is for workers on the same host,
which ask each other for what their tasks depend on.

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
    families,
    register_serialization_family,
)
from distributed.sizeof import safe_sizeof

from daskps.client_catalog import Cache, Catalog, creator_name
from daskps.client_census import nbytes_of
from daskps.client_frame_sizes import is_frame
from daskps.client_values import Encoder
from daskps.dask_private import gather_from_workers_with
from daskps.exceptions import ObjectMissingError, StoreError
from daskps.pickling import is_broadcast, is_dense
from daskps.proxy_node import ObjectId, StoredValue
from daskps.safety_net import PROCESS, count, fell_back, listen, stop_listening
from daskps.stores import evictions, opened
from daskps.transparent_proxies import is_proxy

if TYPE_CHECKING:
    from distributed import Worker

logger = logging.getLogger(__name__)

#: To the scheduler: results that a worker has stored, and those that it has dropped.
RESULTS = "daskps-results"
#: To the scheduler: how often a process fell back on plain Dask.
FAULTS = "daskps-faults"
#: What a reader can read besides: Dask's own families.
PLAIN = ("dask", "pickle", "msgpack", "error")


def family(store_name: str) -> str:
    """The family of a store."""
    return f"daskps:{store_name}"


def dependency_family(store_name: str) -> str:
    """The family of a store for what workers pass to each other."""
    return f"daskps-dependency:{store_name}"


def register_reader(store_name: str) -> None:
    """Let this process read results from a store, and say so when it relays a request."""
    # Of a worker that could not open the store, others ask for dependencies as of any: to
    # Dask, an unknown family is a lost connection, for ever.
    for name, load in (
        (family(store_name), _load),
        (dependency_family(store_name), _decline),
    ):
        # A process that is a worker as well can write already.
        if name not in families:
            register_serialization_family(name, _decline, load)


def register_writer(store_name: str, threshold: int, worker: Worker) -> Writer:
    """Let this process answer with references into a store.

    Parameters
    ----------
    store_name
        A store that is open in this process.
    threshold
        Bytes; smaller results travel as ever.
    worker
        Whose results they are. What is stored is marked with its name, so that it can be
        found if this process dies.
    """
    evictions.start()
    writer = Writer(store_name, threshold, worker)
    register_serialization_family(family(store_name), writer.dump, _load)
    register_serialization_family(dependency_family(store_name), writer.dump, _decline)
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
            return _load(header, frames)
        except ObjectMissingError as e:
            gather_from_workers_with(worker, None)
            raise OSError(f"results are passed on without the store: {e}") from e

    name = dependency_family(store_name)
    dump, *_ = families[name]
    register_serialization_family(name, dump, load)
    gather_from_workers_with(worker, [name, *PLAIN])


def _decline(value: Any) -> Any:
    raise NotImplementedError


def _load(header: dict[str, Any], frames: list[Any]) -> Any:
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
            encoder = Encoder(catalog, Cache(0), self._threshold, False, False)
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
                evictions.evict_until_refused(self._catalog.held())
        evictions.stop()

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
                evictions.evict_later(id.store, id.key)

    def _tell_results(self, **results: list[ObjectId]) -> None:
        self.tell({"op": RESULTS, **{k: ToPickle(v) for k, v in results.items()}})

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message to the scheduler, if the worker is still there."""
        worker = self._worker()
        if worker is not None:
            worker.loop.add_callback(worker.batched_send, message)
