"""Calls of a store that may not answer. Runs on clients and workers.

A store behind a network can hang, and a put that hangs would hang a program that plain Dask
runs. So such a call is made in a thread, and given up after a time. Until it comes back, no
other is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from daskps.exceptions import StoreError

T = TypeVar("T")

#: For how long a store may be silent, and the slowest rate at which it may take data.
ANSWER_WITHIN_SECONDS = 20.0
SLOWEST_BYTES_PER_SECOND = 1 << 20


def may_wait() -> bool:
    """Whether this thread may sleep: an event loop, where coroutine tasks run, may not."""
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return False
    return True


class Patience:
    """Makes the calls of one store, and gives up on those that take too long.

    Parameters
    ----------
    store
        Its name, for errors.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, store: str):
        self._store = store
        self._silent: Future[Any] | None = None

    def call(
        self,
        function: Callable[[], T],
        nbytes: int = 0,
        late: Callable[[T], None] = lambda result: None,
    ) -> T:
        """Call a function of the store.

        Parameters
        ----------
        function
            Called in a thread of its own.
        nbytes
            How much it sends.
        late
            Given what it returns after it was given up, or this thread was interrupted.

        Raises
        ------
        StoreError
            If it does not return in time, or an earlier call has not returned yet.
        Exception
            What `function` raises.
        """
        if self._silent is not None and not self._silent.done():
            raise StoreError(
                f"Store {self._store!r} has not answered an earlier call yet"
            )
        seconds = ANSWER_WITHIN_SECONDS + nbytes / SLOWEST_BYTES_PER_SECOND
        future: Future[T] = Future()
        threading.Thread(target=settle, args=(future, function), daemon=True).start()
        try:
            wait([future], seconds)
        except BaseException:
            future.add_done_callback(lambda future: _give(future, late))
            raise
        if future.done():
            try:
                return future.result()
            finally:
                # An error keeps this frame, and would keep itself: what the frames below
                # hold would stay until the garbage collector comes.
                del future
        self._silent = future
        future.add_done_callback(lambda future: _give(future, late))
        raise StoreError(
            f"Store {self._store!r} has not answered for {seconds:.0f} s. Values are not "
            "stored until it does. Check that it can be reached"
        )


def settle(future: Future[T], function: Callable[[], T]) -> None:
    """Call a function, and give a future what it returns or raises."""
    try:
        result = function()
    except BaseException as e:
        future.set_exception(e)
    else:
        future.set_result(result)
    finally:
        del future, function  # as above


def _give(future: Future[T], late: Callable[[T], None]) -> None:
    if future.exception() is None:
        late(future.result())
