"""How many bytes a scheduler receives: what it relays, it has received before."""

from __future__ import annotations

from typing import Any

import distributed.comm.tcp
from distributed import Client


class Received:
    """Counts what the scheduler of a client receives in a block.

    Attributes
    ----------
    nbytes
        That, after the block.
    """

    nbytes: int

    def __init__(self, client: Client):
        self._client = client
        self.nbytes = 0

    def __enter__(self) -> Received:
        self._client.run_on_scheduler(_start)
        return self

    def __exit__(self, *error: Any) -> None:
        self.nbytes = self._client.run_on_scheduler(_stop)


def _start() -> None:
    # Dask makes an array for each run of bytes that comes. What sockets receive is in none
    # of the kernel's counters of a process.
    original = distributed.comm.tcp.host_array

    def host_array(n: int) -> memoryview:
        host_array.nbytes += n
        array: memoryview = original(n)
        return array

    host_array.nbytes = 0  # type: ignore[attr-defined]
    host_array.original = original  # type: ignore[attr-defined]
    distributed.comm.tcp.host_array = host_array


def _stop() -> int:
    counting = distributed.comm.tcp.host_array
    distributed.comm.tcp.host_array = counting.original
    nbytes: int = counting.nbytes
    return nbytes
