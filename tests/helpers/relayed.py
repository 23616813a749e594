"""How many bytes a scheduler receives: what it relays, it has received before."""

from __future__ import annotations

from typing import Any, ClassVar

from distributed import Client
from tornado.iostream import IOStream, SSLIOStream


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
    # What sockets receive is in none of the kernel's counters of a process.
    _Count.nbytes = 0
    for stream, read in _Count.originals.items():
        stream.read_from_fd = _counting(read)


def _counting(read: Any) -> Any:
    def read_from_fd(stream: Any, buffer: Any) -> int | None:
        nbytes: int | None = read(stream, buffer)
        _Count.nbytes += nbytes or 0
        return nbytes

    return read_from_fd


def _stop() -> int:
    for stream, read in _Count.originals.items():
        stream.read_from_fd = read
    return _Count.nbytes


class _Count:
    """What this process counts, on connections of every kind."""

    nbytes = 0
    originals: ClassVar[dict[Any, Any]] = {
        stream: stream.read_from_fd for stream in (IOStream, SSLIOStream)
    }
