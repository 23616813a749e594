"""Large results by reference. Written on the worker, read on clients and other workers.

Dask asks the reader of a result which families of serialisation it can read. Each store is
such a family. A client for which a store is open asks for it first: the worker then puts a
large result into the store and sends a reference, which the scheduler relays unopened.
Others do not ask, and get results as Dask sends them. A second family is for workers on the
same host, which ask each other for what their tasks depend on.

The result stays in the worker's memory as it was. What was stored of it belongs to its key,
and is evicted when the worker drops the key, so a result can be read any number of times,
and costs one copy however often it is read. What a worker stored that dies is evicted by
the scheduler.

What an actor's method returns has no key, and only one reader. It is lent to him: he evicts
it when he has read it.
"""

from __future__ import annotations

import logging
import pickle
import threading
import weakref
from typing import TYPE_CHECKING, Any

from distributed.comm.utils import OFFLOAD_THRESHOLD
from distributed.protocol.serialize import Serialize, ToPickle
from distributed.sizeof import safe_sizeof
from distributed.utils import offload

from daskps.dask_private.connections import (
    AnswerTo,
    add_operations,
    answer_with,
    gather_from_workers_with,
    register_family,
    send_from_worker,
)
from daskps.exceptions import ObjectMissingError, StoreError
from daskps.messages import (
    AGAIN,
    DASK_FAMILIES,
    FAULTS,
    RESULTS,
    dependency_family,
    family,
)
from daskps.objects import finalizers
from daskps.objects.cache import Cache
from daskps.objects.catalog import Catalog, StoredObject
from daskps.objects.encoder import Encoder
from daskps.objects.sizes import is_small, nbytes_of
from daskps.references.nodes import ObjectId, StoredValue
from daskps.references.proxies import is_proxy
from daskps.references.results import Answer, load_reference
from daskps.safety_net import PROCESS, count, fell_back, listen, stop_listening
from daskps.serialize.sent import Sent, to_sent, to_serialized
from daskps.stores import opened
from daskps.stores.keys import creator_name

if TYPE_CHECKING:
    from distributed import Worker

logger = logging.getLogger(__name__)

# For how long (seconds) the worker holds what was lent, unless it is read before. A reader
# reads at once, so this is for those that died: they leave no word. It is long, since one
# that was only stopped meanwhile cannot ask for it again.
LENT_SECONDS = 600.0
# For how long (seconds) it holds what it has sent and needs no more: the reader may not have
# read it yet. Dask drops keys that others have as well every two seconds.
ANSWERED_SECONDS = 10.0

#: Those of each worker in this process, by the families in which they answer.
_writers: weakref.WeakKeyDictionary[Worker, dict[str, Writer]]
_writers = weakref.WeakKeyDictionary()


def register_writer(store_name: str, threshold: int, worker: Worker) -> Writer:
    """Let a worker answer with references into a store.

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
    writers = _writers.setdefault(worker, {})
    writers[family(store_name)] = writers[dependency_family(store_name)] = writer
    answer_with(worker, _Answers(writers))
    add_operations(worker, {AGAIN: _again})
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


def stored_results(worker: Worker) -> dict[str, tuple[int, int]]:
    """How many objects are of results of a worker, and their bytes, by store."""
    writers = set(_writers.get(worker, {}).values())
    return {writer.store_name: writer.stored() for writer in writers}


async def _again(reference: bytes) -> dict[str, Any]:
    """Read what was lent to somebody who cannot, and send it as in plain Dask."""
    stored: StoredValue = pickle.loads(reference)
    value = await offload(stored.resolve)
    for id in stored.objects():
        finalizers.evict_later(id.store, id.key)
    return {"status": "OK", "result": Serialize(value)}


class _Answers:
    """Answers those who can read a store of this worker with references."""

    def __init__(self, writers: dict[str, Writer]):
        self._writers = writers

    async def data(
        self, reader: AnswerTo, values: dict[Any, Any]
    ) -> tuple[dict[Any, Any], Any]:
        answers: dict[Any, Answer] = {}
        held = []
        for name in reader.readable:
            writer = self._writers.get(name)
            if writer is None:
                continue
            for key in values.keys() - answers.keys():
                answer, stored = await writer.answer(
                    name, key, values[key], reader.protocol
                )
                held.append(stored)
                if answer is not None:
                    answers[key] = answer
        return answers, held

    async def result(self, reader: AnswerTo, value: Any) -> Any:
        for name in reader.readable:
            writer = self._writers.get(name)
            # What workers tell each other does not go through the scheduler.
            if writer is not None and name == family(writer.store_name):
                answer = await writer.lend(name, value, reader.protocol)
                if answer is not None:
                    return answer
        return None


def _keys_nbytes(header: dict[str, Any]) -> int:
    """Bytes of the keys of a dictionary, which Dask puts into the header."""
    return nbytes_of(header) if header.get("type-serialized") == "dict" else 0


def _has(worker: Worker, key: Any) -> bool:
    """Whether a worker has a key, in memory or spilled. Actors are beside its data."""
    return key in worker.data or key in worker.state.actors


class Writer:
    """Stores the results of one worker.

    Results are weighed by what Dask would send. That is made once, and sent if it turns
    out to be small: some objects can be pickled only once, and for many it takes long.

    What is not said to run elsewhere runs on the worker's event loop, as all transitions
    of keys do: whether a key is in memory does not change while that is looked at.
    """

    store_name: str
    #: Bytes; smaller results travel as in plain Dask.
    threshold: int
    #: What was stored of each key that was read, until the worker drops it.
    _by_key: dict[Any, list[StoredObject]]

    def __init__(self, store_name: str, threshold: int, worker: Worker):
        self.store_name = store_name
        self.threshold = threshold
        self._creator = creator_name(worker.id)
        self._worker = weakref.ref(worker)
        self._keeper = _ResultKeeper(worker)
        self._by_key = {}
        # A store is called in a thread of Dask's, and closed in another one.
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._closed = False
        self._warned = False
        listen(self._tell_faults)

    async def answer(
        self, name: str, key: Any, value: Any, protocol: int
    ) -> tuple[Answer | None, list[StoredObject]]:
        """What to send of a result; None: as in plain Dask.

        Parameters
        ----------
        name
            The family to answer in.
        key, value
            The result.
        protocol
            Of pickle, as Dask would use it.

        Returns
        -------
        Answer or None
        list of StoredObject
            What has to be held until it has arrived, whatever becomes of the key.
        """
        answer, stored = await self._answer(name, value, protocol, lent=False)
        worker = self._worker()
        if stored and worker is not None:
            # The key may have been dropped meanwhile, and nobody would say so again. For
            # another worker the connection holds what is sent, until it has arrived.
            unkept = stored if name == family(self.store_name) else []
            if _has(worker, key):
                # Two readers at once may have had it stored twice.
                before, self._by_key[key] = self._by_key.get(key, []), stored
                unkept = [s for s in before if s not in stored]
            self._clear_later(worker, unkept)
        return answer, stored

    def dropped(self, key: Any, wanted: bool) -> None:
        """The worker has this key in its memory no more: evict what was stored of it.

        Parameters
        ----------
        key
            Of a result.
        wanted
            Whether somebody may be about to read it: then it is evicted later.
        """
        stored = self._by_key.pop(key, [])
        worker = self._worker()
        if wanted and worker is not None:
            self._clear_later(worker, stored)

    def _clear_later(self, worker: Worker, stored: list[StoredObject]) -> None:
        """Hold what was stored of a key for those who were answered."""
        if stored:
            worker.loop.call_later(ANSWERED_SECONDS, list(stored).clear)

    async def lend(self, name: str, value: Any, protocol: int) -> Answer | None:
        """What to send of a value that is nobody's result; None: as in plain Dask."""
        answer, stored = await self._answer(name, value, protocol, lent=True)
        worker = self._worker()
        if stored and worker is not None:
            worker.loop.call_later(LENT_SECONDS, stored.clear)
        return answer

    async def _answer(
        self, name: str, value: Any, protocol: int, lent: bool
    ) -> tuple[Answer | None, list[StoredObject]]:
        # A proxy has the answers of its object, which it would read for them.
        if is_proxy(value) or is_small(value, self.threshold):
            return None, []
        kind = {"lent": True} if lent else {}
        try:
            sent = await self._to_sent(value, protocol)
            if sent is None:
                return None, []
            if sent.nbytes + _keys_nbytes(sent.header) < self.threshold:
                return Answer(name, {"sent": sent.header, **kind}, sent.flat()), []
            placed = await offload(self._store, sent, lent)
            if placed is None:
                return None, []
        except Exception as e:
            fell_back(e, "store a result of type", value)
            return None, []
        reference, stored = placed
        if self._catalog is not None and name == family(self.store_name):
            # What workers tell each other does not go through the scheduler anyway.
            self._catalog.refer(stored)
        return Answer(name, kind, [reference]), stored

    async def _to_sent(self, value: Any, protocol: int) -> Sent | None:
        """The value in Dask's form; None if Dask is to say why that is not possible."""
        try:
            # In a thread where Dask does so.
            nbytes = safe_sizeof(value, default_size=-1)
            if OFFLOAD_THRESHOLD and not 0 <= nbytes <= OFFLOAD_THRESHOLD:
                sent: Sent = await offload(to_sent, value, protocol)
                return sent
            return to_sent(value, protocol)
        except TypeError as e:
            logger.debug("A result cannot be serialised: %r", e)
            return None

    def _store(self, sent: Sent, lent: bool) -> tuple[bytes, list[StoredObject]] | None:
        """Store a value, in any thread; None if the store fails."""
        with self._lock:
            catalog = None if self._closed else self._catalog or self._open()
            if catalog is None:
                return None
            # What is lent is one object, and equal to no other: its reader deletes it.
            serialized = to_serialized(sent, unique=lent)
            at_least = serialized.nbytes if lent else self.threshold
            # No cache: the key keeps what is stored of it.
            encoder = Encoder(catalog, Cache(0), at_least, None, False)
            try:
                stored = encoder.place(serialized)
            except StoreError as e:
                self._warn_once(e)
                return None
        return pickle.dumps(stored), encoder.stored

    def _warn_once(self, error: StoreError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "Results are sent without the store, which failed: %s", error
            )

    def stored(self) -> tuple[int, int]:
        """How many objects are stored of results, and their bytes."""
        handles = [] if self._catalog is None else self._catalog.handles()
        return len(handles), sum(handle.nbytes for handle in handles)

    def _tell_faults(self) -> None:
        self._keeper.tell({"op": FAULTS, "process": PROCESS, "count": count()})

    def close(self) -> None:
        """Evict all that was stored, and store nothing any more: the worker ends."""
        stop_listening(self._tell_faults)
        self._unregister()
        with self._lock:
            self._closed = True
            if self._catalog is not None:
                # What is left if the store does not answer is the scheduler's to delete.
                opened.evict_until_refused(self._catalog.held())
        self._by_key.clear()
        finalizers.stop()

    def _unregister(self) -> None:
        worker = self._worker()
        if worker is None:
            return
        writers = _writers[worker]
        for name in family(self.store_name), dependency_family(self.store_name):
            if writers.get(name) is self:
                del writers[name]
        if not writers:
            answer_with(worker, None)

    def _open(self) -> Catalog | None:
        store = opened.get(self.store_name)
        if store is not None:
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
