"""Delete from the cluster's stores what nothing needs any more. Runs on the scheduler.

Each store has a thread: freeing memory takes the kernel some 0.1 ms for each MiB, and one
store may be slow while others are not. What a store refuses to delete is tried again. What
is in a store that outlives the cluster is written down, so that it can be deleted later if
the scheduler is killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from distributed.threadpoolexecutor import ThreadPoolExecutor
from tornado.ioloop import IOLoop

from daskps.references.nodes import ObjectId
from daskps.stores import opened
from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.store import Store

if TYPE_CHECKING:
    from daskps.stores.records import Record

logger = logging.getLogger(__name__)

# When (seconds) and how often to try again if a store refuses to delete.
RETRY_SECONDS = 2.0
EVICT_ATTEMPTS = 30
# Pauses between looks at what a process that is gone has not finished writing.
ORPHANS_FIRST_PAUSE_SECONDS = 0.5
ORPHANS_LONGEST_PAUSE_SECONDS = 60.0
# How often (seconds) a closing scheduler looks whether its stores are closed.
CLOSE_LOOK_SECONDS = 0.01
# For how long (seconds) a closing scheduler waits for stores that do not answer.
CLOSE_SECONDS = 5.0


class Evictor:
    """Deletes objects of the stores that it was told of, and of no others.

    Not thread-safe: everything runs on the scheduler's event loop.

    Parameters
    ----------
    loop
        The scheduler's.

    Attributes
    ----------
    waiting
        What is deleted next.
    """

    waiting: list[ObjectId]
    _loop: IOLoop
    #: How often a store has refused to delete an object that is to be deleted.
    _refused: dict[ObjectId, int]
    #: By name of store. One that hangs does not keep the process from ending: Dask's
    #: executors have daemon threads.
    _threads: dict[str, ThreadPoolExecutor]
    #: What is in stores that outlive the cluster, by name of store.
    _records: dict[str, Record]
    _closed: bool

    def __init__(self, loop: IOLoop):
        self.waiting = []
        self._loop = loop
        self._refused = {}
        self._threads = {}
        self._records = {}
        self._closed = False

    def add_store(self, store: Store, config: ConnectorConfig | None = None) -> None:
        """Delete objects of this store from now on.

        Parameters
        ----------
        store
            A store.
        config
            How to open it again, if it outlives the cluster; None: it does not.
        """
        self._threads[store.name] = ThreadPoolExecutor(
            1, thread_name_prefix="daskps-evict"
        )
        if config is not None:
            from daskps.stores.records import Record, sweep_soon

            self._records[store.name] = Record(config)
            sweep_soon()

    def write_down(self, id: ObjectId) -> None:
        """Say that an object is in its store, if that outlives the cluster."""
        if id.store in self._records:
            self._records[id.store].add(id.key)

    def evict(self, ids: Iterable[ObjectId]) -> None:
        """Delete objects soon."""
        was_waiting = bool(self.waiting)
        self.waiting += ids
        if self.waiting and not was_waiting:
            self._loop.add_callback(self._evict)

    async def evict_orphans(
        self,
        store: Store,
        creator: str,
        needed: Callable[[], set[Any] | None],
        pause: float = ORPHANS_FIRST_PAUSE_SECONDS,
    ) -> None:
        """Delete what a process stored that is gone. A store that fails only logs it.

        What the process is writing still is deleted later: its connection may end before
        it does.

        Parameters
        ----------
        store
            Where.
        creator
            The process: see :func:`daskps.stores.keys.creator_name`.
        needed
            Gives the keys of the objects that are to stay, or None if the process is there
            again. Called in the store's thread, which may have had to delete much before.
        pause
            When (seconds) to look again.
        """
        connector = store.connector
        if self._closed:
            return

        def evict() -> bool:
            try:
                keep = needed()
                return keep is not None and connector.evict_orphans(creator, keep)
            except Exception as e:
                logger.error(
                    "Objects of a process that is gone may stay in %r: %r", store, e
                )
                return False

        if connector.marks_creators and await self._in_thread_of(store.name, evict):
            later = min(2 * pause, ORPHANS_LONGEST_PAUSE_SECONDS)
            self._loop.call_later(
                pause, self.evict_orphans, store, creator, needed, later
            )

    async def close(self, rest: Iterable[ObjectId]) -> None:
        """Delete what waits and `rest`, close the stores, and do nothing any more."""
        self.waiting += rest
        await self._in_time(self._evict())
        self._closed = True
        closing = [t.submit(opened.close, name) for name, t in self._threads.items()]
        try:
            await self._in_time(_all_done(closing))
        finally:
            for thread in self._threads.values():
                thread.shutdown(wait=False)
            for record in self._records.values():
                record.close()

    async def _in_time(self, work: Awaitable[Any]) -> None:
        try:
            await asyncio.wait_for(work, CLOSE_SECONDS)
        except TimeoutError:
            logger.error("Objects may stay in a store that does not answer")

    async def _evict(self) -> None:
        ids, self.waiting = self.waiting, []
        if self._closed:
            return
        by_store: dict[str, list[ObjectId]] = {}
        for id in ids:
            by_store.setdefault(id.store, []).append(id)
        await asyncio.gather(*(self._evict_from(*item) for item in by_store.items()))

    async def _evict_from(self, store: str, ids: list[ObjectId]) -> None:
        if store not in self._threads:
            return
        n = await self._in_thread_of(store, opened.evict_until_refused, ids)
        record = self._records.get(store)
        for id in ids[:n]:
            self._refused.pop(id, None)
            if record is not None:
                record.remove(id.key)
        # Those behind it were not tried, and are first when it is tried again: it may be
        # the only one that is out of reach.
        again = ids[n + 1 :]
        for id in ids[n : n + 1]:
            self._refused[id] = self._refused.get(id, 0) + 1
            if self._refused[id] < EVICT_ATTEMPTS:
                again.append(id)
            else:
                del self._refused[id]
                logger.error("Object %s stays in store %s", id.key, id.store)
        if again:
            self._loop.call_later(RETRY_SECONDS, self.evict, again)

    async def _in_thread_of(
        self, store: str, function: Callable[..., Any], *args: Any
    ) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads[store], function, *args)


async def _all_done(futures: list[Future[None]]) -> None:
    # Not by asyncio's own futures: a store that is slow is closed later, when this loop may
    # have ended, and the thread could not tell it.
    while not all(future.done() for future in futures):
        await asyncio.sleep(CLOSE_LOOK_SECONDS)
