"""Counts what travels through the scheduler, what is stored, and what is copied.

The functions run inside the processes of a cluster, and keep their counts there.
"""

from __future__ import annotations

import importlib.util
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import Client
from proxystore.connectors.file import FileConnector
from tornado.iostream import IOStream

from benchmarks.memory import page_faults, page_size, peak, reset_peak
from daskps.serialize.frames import frame_nbytes
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.files.connector import SegmentConnector

# Of this process.
_traffic = 0
_puts = 0
_stored = 0
_installed: set[str] = set()


@dataclass
class Counts:
    """What has been counted on a cluster.

    Attributes
    ----------
    traffic
        Bytes that the scheduler read from its connections and wrote to them.
    puts
        Objects that were put into stores, by the client and by the workers.
    stored
        Bytes of these objects.
    """

    traffic: int = 0
    puts: int = 0
    stored: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.traffic - other.traffic,
            self.puts - other.puts,
            self.stored - other.stored,
        )


@dataclass
class ProcessCopies:
    """How often a process copied data, as multiples of its size.

    Attributes
    ----------
    allocated
        The most that Python's allocators held for the work, over what they held before.
        Copies that are there one after the other count once.
    stored
        What it put into a store.
    pages
        Memory that the kernel gave it for the work (minor page faults): copies that are
        there one after the other count each. Less with huge pages, of which each is one
        fault, and for files that are mapped, where one fault gives several pages.
    growth
        Growth of its peak memory, with what it maps of others.
    """

    allocated: float
    stored: float
    pages: float
    growth: float

    @property
    def made(self) -> float:
        """Copies in its own memory, and in the store."""
        return self.allocated + self.stored


@dataclass
class Copies:
    """Copies by the two ends of a journey."""

    client: ProcessCopies
    worker: ProcessCopies


def install(client: Client) -> None:
    """Begin to count, in all processes of a cluster and in this one."""
    client.run_on_scheduler(_count_traffic)
    client.run(_count_puts)
    _count_puts()


def read(client: Client) -> Counts:
    """What has been counted so far."""
    puts = [_read_puts(), *client.run(_read_puts).values()]
    return Counts(
        traffic(client),
        sum(n for n, _ in puts),
        sum(nbytes for _, nbytes in puts),
    )


def traffic(client: Client) -> int:
    """Bytes that the scheduler has read and written so far."""
    counted: int = client.run_on_scheduler(_read_traffic)
    return counted


def count_copies(client: Client, nbytes: int, work: Callable[[], Any]) -> Copies:
    """Do some work once, and count the copies of its data of `nbytes`.

    There has to be a single worker, and the data has to be one block.
    """

    def copies(before: dict[str, int], after: dict[str, int]) -> ProcessCopies:
        grown = {name: (after[name] - before[name]) / nbytes for name in after}
        return ProcessCopies(
            grown["allocated"], grown["stored"], grown["pages"], grown["memory"]
        )

    before = [*client.run(_trace).values(), _trace()]
    result = work()
    after = [_traced(), *client.run(_traced).values()]
    del result
    worker, here = before
    return Copies(copies(here, after[0]), copies(worker, after[1]))


def _trace() -> dict[str, int]:
    """Begin to count this process's copies."""
    tracemalloc.start()
    pid = os.getpid()
    return {
        "allocated": 0,
        "stored": _stored,
        "pages": page_faults(pid) * page_size(),
        "memory": reset_peak(pid),
    }


def _traced() -> dict[str, int]:
    """What has been counted since then."""
    pid = os.getpid()
    _, allocated = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "allocated": allocated,
        "stored": _stored,
        "pages": page_faults(pid) * page_size(),
        "memory": peak(pid),
    }


def _first_time(what: str) -> bool:
    """Whether this process does not count that yet."""
    first = what not in _installed
    _installed.add(what)
    return first


def _count_traffic() -> None:
    if not _first_time("traffic"):
        return
    stream: Any = IOStream
    for name in ("read_from_fd", "write_to_fd"):
        setattr(stream, name, _counted(getattr(stream, name)))


def _counted(method: Callable[..., int | None]) -> Callable[..., int | None]:
    def counting(stream: Any, data: Any) -> int | None:
        global _traffic
        nbytes = method(stream, data)
        _traffic += nbytes or 0
        return nbytes

    return counting


def _count_puts() -> None:
    if not _first_time("puts"):
        return
    # Those that the others put into are counted, and not the others.
    kinds: list[Any] = [SegmentConnector, FileConnector]
    if importlib.util.find_spec("redis"):
        from proxystore.connectors.redis import RedisConnector as TheirsInRedis

        from daskps.stores.redis.connector import RedisConnector

        kinds += [RedisConnector, TheirsInRedis]
    for kind in kinds:
        if issubclass(kind, StoreConnector):
            kind.put_frames = _counting(
                kind.put_frames, lambda frames: sum(map(frame_nbytes, frames))
            )
        else:
            kind.put = _counting(kind.put, lambda obj: memoryview(obj).nbytes)


def _counting(method: Any, nbytes_of: Callable[[Any], int]) -> Any:
    def counting(self: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        _add_put(nbytes_of(data))
        return method(self, data, *args, **kwargs)

    return counting


def _add_put(nbytes: int) -> None:
    global _puts, _stored
    _puts += 1
    _stored += nbytes


def _read_puts() -> tuple[int, int]:
    return _puts, _stored


def _read_traffic() -> int:
    return _traffic
