"""What a worker tells the scheduler of its stores, while it has something to tell."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from daskps.dask_private.connections import heartbeat_seconds, send_from_worker
from daskps.messages import TRAFFIC
from daskps.stores.reports import report

if TYPE_CHECKING:
    from distributed import Worker

# Seconds between reports, at least.
REPORT_SECONDS = 1.0


class Reporting:
    """Reports on one store, no more often than Dask has the worker say that it lives.

    To be made on the worker's event loop, as long as there is one.

    Parameters
    ----------
    worker
        Who reports; not kept alive.
    store_name
        On what.
    results
        Gives how many objects are of results of this worker, and their bytes.
    """

    def __init__(
        self,
        worker: Worker,
        store_name: str,
        results: Callable[[], tuple[int, int]],
    ):
        self._worker = weakref.ref(worker)
        self._store = store_name
        self._results = results
        self._told = (0, 0)
        self._task = asyncio.ensure_future(self._run())

    def close(self) -> None:
        """Say what is left to say, and nothing more."""
        self._task.cancel()
        self._tell()

    async def _run(self) -> None:
        while (worker := self._worker()) is not None:
            seconds = max(REPORT_SECONDS, heartbeat_seconds(worker))
            del worker
            await asyncio.sleep(seconds)
            self._tell()

    def _tell(self) -> None:
        worker = self._worker()
        if worker is None:
            return
        message = report(self._store)
        # Only what is put or evicted changes them, but not all of that is done here.
        results = self._results() if message or any(self._told) else self._told
        if message is None and results == self._told:
            return
        message = message or {"op": TRAFFIC, "store": self._store}
        self._told = results
        send_from_worker(worker, {**message, "results": list(results)})
