"""Scattered values reach workers by reference. Runs on the scheduler.

As ``Scheduler.scatter`` does it, but with nodes in place of the values: each worker reads
its values from the store. A graph with the same nodes follows, so that the scheduler can
have what is lost read again; without it the data would be gone with its worker, as in plain
Dask.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from distributed.core import Status
from distributed.protocol.serialize import ToPickle

from daskps.dask_private.connections import note_data
from daskps.messages import READ

if TYPE_CHECKING:
    from distributed import Scheduler

# How often (seconds) to look for a worker if there is none.
WORKER_LOOK_SECONDS = 0.1

_turns = itertools.count()


async def scatter(  # noqa: PLR0913
    scheduler: Scheduler,
    *,
    client: str,
    nodes: dict[Any, bytes],
    workers: list[str] | None,
    copies: int | None,
    timeout: float,
) -> None:
    """Have workers read stored values, in turn, and keep them under their keys.

    Parameters
    ----------
    scheduler
        Whose workers.
    client
        The id of the client that wants the keys.
    nodes
        The values, by key: pickled :class:`~daskps.references.nodes.ProxyNode`, which are
        of no use here.
    workers
        Addresses, host names or aliases; None: all.
    copies
        On how many workers each value is to be; None: on all.
    timeout
        For how long (seconds) to wait for a worker.

    Raises
    ------
    TimeoutError
        If there is none.
    Exception
        Whatever reading a value raises on a worker.
    """
    addresses = await _running(scheduler, workers, timeout)
    copies = len(addresses) if copies is None else min(copies, len(addresses))
    who_has: dict[Any, list[str]] = {}
    for key in nodes:
        turn = next(_turns)
        who_has[key] = [
            addresses[(turn + copy) % len(addresses)] for copy in range(copies)
        ]
    parts: dict[str, dict[Any, bytes]] = {}
    for key, its in who_has.items():
        for address in its:
            parts.setdefault(address, {})[key] = nodes[key]
    answers = await asyncio.gather(
        *(
            getattr(scheduler.rpc(address), READ)(nodes=ToPickle(part))
            for address, part in parts.items()
        )
    )
    nbytes = {key: n for answer in answers for key, n in answer["nbytes"].items()}
    note_data(scheduler, who_has, nbytes, client)


async def _running(
    scheduler: Scheduler, workers: list[str] | None, timeout: float
) -> list[str]:
    """Addresses of those workers that take tasks."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        wanted = None if workers is None else map(scheduler.coerce_address, workers)
        some = scheduler.workers if wanted is None else wanted
        running = [a for a in some if _is_running(scheduler, a)]
        if running:
            return sorted(running)
        if loop.time() > deadline:
            raise TimeoutError("No valid workers found")
        await asyncio.sleep(WORKER_LOOK_SECONDS)


def _is_running(scheduler: Scheduler, address: str) -> bool:
    worker = scheduler.workers.get(address)
    return worker is not None and worker.status == Status.running
