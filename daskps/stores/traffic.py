"""What a process has put into a store and read from it, as numbers. Runs everywhere.

Each open store has a :class:`Traffic`, which only counts up. Processes tell the scheduler
what was added (:mod:`daskps.stores.reports`), and each task and request tells Dask's own
``context_meter``, so that Dask's fine performance metrics have it.
"""

from __future__ import annotations

import contextlib
import operator
import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from distributed.metrics import context_meter


class Counts(NamedTuple):
    """What was done with a store.

    Attributes
    ----------
    puts, put_bytes, put_seconds
        Objects that were stored.
    found, found_bytes
        Objects that were not, since they were there already.
    reads, read_bytes, read_seconds
        Objects that were read or mapped.
    wait_seconds
        For how long readers waited for a store that did not answer, or was not open yet.
    evictions
        Objects that were deleted.
    off_scheduler
        Bytes that would have gone through the scheduler, and went by reference.
    """

    puts: int = 0
    put_bytes: int = 0
    put_seconds: float = 0.0
    found: int = 0
    found_bytes: int = 0
    reads: int = 0
    read_bytes: int = 0
    read_seconds: float = 0.0
    wait_seconds: float = 0.0
    evictions: int = 0
    off_scheduler: int = 0

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts._make(map(operator.add, self, other))

    def minus(self, other: Counts) -> Counts:
        """What was added since."""
        return Counts._make(map(operator.sub, self, other))

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Counts:
        """Those among what is said of a store, by name."""
        return cls._make(row[name] for name in cls._fields)


NOTHING = Counts()


def total(counts: Iterable[Counts]) -> Counts:
    """All together."""
    return Counts(*map(sum, zip(*counts, strict=True)))


class Traffic:
    """Counts what a process does with one store.

    Notes
    -----
    Thread-safe. To add needs no lock, which a forked process could find locked for ever: it
    is one step for the interpreter, which changes threads at calls and jumps. Only who
    reports takes one, so that nothing is told twice.
    """

    __slots__ = ("_lock", "_told", *Counts._fields)

    puts: int
    put_bytes: int
    put_seconds: float
    found: int
    found_bytes: int
    reads: int
    read_bytes: int
    read_seconds: float
    wait_seconds: float
    evictions: int
    off_scheduler: int

    def __init__(self) -> None:
        for name, zero in NOTHING._asdict().items():
            setattr(self, name, zero)
        self._told = NOTHING
        self._lock = threading.Lock()

    def was_put(self, nbytes: int, seconds: float) -> None:
        """An object was stored."""
        self.puts += 1
        self.put_bytes += nbytes
        self.put_seconds += seconds
        _meter("daskps-put", seconds=seconds, bytes=nbytes, count=1)

    def was_found(self, nbytes: int) -> None:
        """An object was there already."""
        self.found += 1
        self.found_bytes += nbytes

    def was_read(self, nbytes: int, seconds: float) -> None:
        """An object was read or mapped."""
        self.reads += 1
        self.read_bytes += nbytes
        self.read_seconds += seconds
        _meter("daskps-read", seconds=seconds, bytes=nbytes, count=1)

    def has_waited(self, seconds: float) -> None:
        """A reader has waited in vain, or for the store to be opened."""
        self.wait_seconds += seconds
        _meter("daskps-wait", seconds=seconds)

    def was_evicted(self) -> None:
        """An object was deleted."""
        self.evictions += 1

    def went_by_reference(self, nbytes: int) -> None:
        """So much did not go through the scheduler."""
        self.off_scheduler += nbytes

    @property
    def counts(self) -> Counts:
        """All that was done."""
        return Counts(*(getattr(self, name) for name in Counts._fields))

    def take(self) -> Counts | None:
        """What was done since this was called last, by anybody; None: nothing."""
        with self._lock:
            now = self.counts
            if now == self._told:
                return None
            new, self._told = now.minus(self._told), now
        return new


def _meter(activity: str, **values: float) -> None:
    """Tell Dask, by unit, what the task or the answer that runs here has done."""
    # RuntimeError: the worker's event loop, which is to be told, is closed.
    with contextlib.suppress(RuntimeError):
        for unit, value in values.items():
            context_meter.digest_metric(activity, value, unit)
