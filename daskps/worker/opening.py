"""Opens a store on a worker, again and again if need be. Runs on workers.

To open a store takes a message to the scheduler and perhaps a server, and either may fail
for a moment. A worker that gave up then would be of no use for as long as it lives. So it
tries again, in the background with growing pauses, and at once when a task needs the store.
It gives up for good only if what is wrong will not change while it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from distributed import Worker

from daskps.dask_private.connections import send_from_worker
from daskps.dask_private.security import tls_of
from daskps.exceptions import DaskpsError
from daskps.linux import check_linux
from daskps.messages import ACCESS, EVENTS, STORE
from daskps.stores import opened, reach
from daskps.stores.refusals import is_final, refusal
from daskps.stores.store import Store
from daskps.versions import Version, check_version

logger = logging.getLogger(__name__)

# For how long (seconds) to wait for the scheduler's answer: it may be busy, or the question
# lost without a word.
ANSWER_SECONDS = 5.0
# Pauses (seconds) between two attempts; the first is also the least if tasks ask for one.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0


class StoreOpening:
    """Opens one store on one worker.

    Everything runs on the worker's event loop, except what opens the store.

    Parameters
    ----------
    store
        Its name.
    version
        The client's version of daskps.
    read_timeout
        For how long (seconds) tasks try to read, if the store cannot be reached.
    ready
        Called when the store is open, with the worker, the store and the scheduler's answer.

    Attributes
    ----------
    is_open
        Whether the worker has opened it.
    why
        Why it is not open, for people; None before the first attempt.
    refusal
        The error, if it never will be.
    """

    is_open: bool
    why: str | None
    refusal: DaskpsError | None

    def __init__(
        self,
        store: str,
        version: Version,
        read_timeout: float,
        ready: Callable[[Worker, Store, dict[str, Any]], None],
    ):
        self.is_open = False
        self.why = None
        self.refusal = None
        self._store = store
        self._version = version
        self._read_timeout = read_timeout
        self._ready = ready
        self._callbacks: list[Callable[[], None]] = []
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._began = time.monotonic()

    async def start(self, worker: Worker) -> None:
        """Try once, and go on in the background if that fails.

        Raises
        ------
        DaskpsError
            If the store will never be open here.
        """
        self._task = asyncio.create_task(self._open(worker))
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_open or self.why is not None)
        if self.refusal is not None:
            raise self.refusal

    async def wait(self, seconds: float) -> None:
        """Wait until the store is open, or never will be.

        Parameters
        ----------
        seconds
            For how long at most, since the first attempt began.
        """
        left = self._began + seconds - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(left, 0.0)), self._changed:
                await self._changed.wait_for(self._is_settled)

    def once_open(self, callback: Callable[[], None]) -> None:
        """Call this when the store is open: now, if it is."""
        if self.is_open:
            callback()
        else:
            self._callbacks.append(callback)

    def close(self) -> None:
        """Open it no more, and close it."""
        if self._task is not None:
            self._task.cancel()
        if self.is_open:
            self.is_open = False
            opened.release(self._store)
        else:
            opened.forget_absence(self._store)

    async def _open(self, worker: Worker) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not await self._attempt(worker) and self.refusal is None:
            await asyncio.sleep(FIRST_PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), pause)
            self._wanted.clear()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _attempt(self, worker: Worker) -> bool:
        doing = "ask the scheduler how to open it"
        try:
            check_version(self._version, f"worker {worker.address}")
            check_linux(f"Worker {worker.address}")
            # Unpickling the reply may need what is not installed here.
            reply = await asyncio.wait_for(
                getattr(worker.scheduler, STORE)(name=self._store), ANSWER_SECONDS
            )
            doing = "open it"
            await self._acquire(worker, reply)
        except Exception as e:
            await self._failed(worker, doing, e)
            return False
        self.is_open = True
        if self.why is not None:
            logger.info("Worker %s has opened store %s", worker.address, self._store)
            self._tell(worker, "open")
            self._log_event(worker, "store-opened-after-all")
        while self._callbacks:
            self._callbacks.pop()()
        async with self._changed:
            self._changed.notify_all()
        return True

    async def _acquire(self, worker: Worker, reply: dict[str, Any]) -> None:
        store = await opened.acquire_in_thread(
            reply["config"], self._read_timeout, functools.partial(tls_of, worker)
        )
        try:
            # Take no tasks that this worker could only wait for in vain.
            hosts = [tuple(host) for host in reply["hosts"]]
            await asyncio.to_thread(reach.check, store.connector, hosts)
            self._ready(worker, store, reply)
        except BaseException:
            opened.release(self._store)
            raise

    async def _failed(self, worker: Worker, doing: str, error: Exception) -> None:
        who = f"Worker {worker.address}"
        first = self.why is None
        if is_final(error):
            self.refusal = refusal(who, error)
            self.why = str(self.refusal)
            opened.miss(self._store, self.why)
        else:
            self.why = (
                f"{who} cannot use the cluster's store now: it could not {doing} "
                f"({type(error).__name__}: {error}). It goes on trying."
            )
            opened.miss(self._store, self.why, self._read_timeout, self._try_now)
        if first or self.refusal is not None:
            logger.warning("This worker does without a store: %s", self.why)
            self._tell(worker, "later" if self.refusal is None else "never")
            doing_without = "missing" if self.refusal is None else "refused"
            self._log_event(worker, f"store-{doing_without}", why=self.why)
        async with self._changed:
            self._changed.notify_all()

    def _is_settled(self) -> bool:
        return self.is_open or self.refusal is not None

    def _try_now(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wanted.set)

    def _log_event(self, worker: Worker, action: str, **more: str) -> None:
        about = {"action": action, "worker": worker.address, "store": self._store}
        # Later, as the other message: now the connection may not be there yet.
        worker.loop.add_callback(worker.log_event, EVENTS, about | more)

    def _tell(self, worker: Worker, access: str) -> None:
        message = {
            "op": ACCESS,
            "store": self._store,
            "access": access,
            "patience": self._read_timeout,
        }
        send_from_worker(worker, message)
