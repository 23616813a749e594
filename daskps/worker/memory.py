"""What a worker's memory is, to Dask: what it holds for itself. Runs on workers and nannies.

A value that is in a store on this host is mapped, and its pages are the store's: to pause
the worker, to spill the value or to start the worker anew would free none of them. So they
do not count.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from distributed.diagnostics.plugin import NannyPlugin

from daskps.dask_private.memory import (
    add_to_nanny,
    keep_instead_of_spilling,
    measure_with,
    terminate_only_if,
)
from daskps.safety_net import fell_back
from daskps.stores.files.mapping import maps_anything
from daskps.stores.files.own_memory import OwnMemory
from daskps.worker.spilling import keep

if TYPE_CHECKING:
    from distributed import Nanny, Worker

logger = logging.getLogger(__name__)


def watch_own_memory(worker: Worker) -> None:
    """Have a worker and its nanny go by what the worker holds for itself.

    To be called on the worker's event loop, which tells the nanny later. A nanny that
    cannot be told watches the worker as in plain Dask.
    """
    try:
        measure_with(worker, partial(_own, OwnMemory(os.getpid())))
        keep_instead_of_spilling(worker, keep)
    except Exception as e:
        fell_back(e, "watch the memory of a worker")
    task = asyncio.ensure_future(_tell_nanny(worker))
    # The event loop has no reference of its own.
    _telling.add(task)
    task.add_done_callback(_telling.discard)


def _own(watched: OwnMemory) -> int | None:
    """Bytes that this process holds for itself; None: as in plain Dask."""
    try:
        return watched.own() if maps_anything() else None
    except Exception as e:
        fell_back(e, "measure the memory of a worker")
        return None


_telling: set[asyncio.Future[None]] = set()


async def _tell_nanny(worker: Worker) -> None:
    try:
        reply = await add_to_nanny(worker, NannyMemoryPlugin(), NannyMemoryPlugin.name)
        why = None if reply is None or reply["status"] == "OK" else reply
    except Exception as e:  # whatever unpickling raises there
        why = {"exception": e}
    if why is not None:
        logger.info("The nanny counts what is mapped as this worker's: %s", why)


class NannyMemoryPlugin(NannyPlugin):
    """Has a nanny terminate its worker only for memory that the worker holds for itself."""

    name = "daskps-memory"

    def setup(self, nanny: Nanny) -> None:
        terminate_only_if(nanny, _Watch().over)


class _Watch:
    """Watches a worker's process, and the next one if that is started anew."""

    def __init__(self) -> None:
        self._watched: tuple[int, OwnMemory] | None = None

    def over(self, pid: int, at_most: float) -> bool:
        """Whether a process holds more for itself than it may."""
        if self._watched is None or self._watched[0] != pid:
            self._watched = pid, OwnMemory(pid)
        own = self._watched[1]
        try:
            return own.resident() > at_most and (
                own.private() > at_most or own.own() > at_most
            )
        except OSError:
            return True  # the process is gone, which is Dask's to find out
        except Exception as e:
            fell_back(e, "measure the memory of a nanny's worker")
            return True
