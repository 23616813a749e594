"""How workers and nannies watch memory, and where a worker spills to.

Checked with dask and distributed 2025.4.0 and 2026.8.0. What is used:

``distributed.Worker.monitor.get_process_memory()``
    What a worker holds, for its memory manager (spilling, pausing) and for what it tells
    the scheduler. Dask has it as a method so that it can be replaced.
``distributed.Nanny.periodic_callbacks["memory_monitor"].callback``
    Terminates the worker if its resident set is above a share of its limit.
``distributed.Nanny.memory_manager.memory_limit``, ``memory_terminate_fraction``,
``distributed.Nanny.process.process.pid``
    What it goes by, and the worker's process.
``distributed.Worker.nanny``, the nanny's operation ``plugin_add(plugin=, name=)``
    Where a worker's nanny is, and how it is given a plugin.
``distributed.spill.SpillBuffer._slow_uncached``
    A ``zict.Func`` that writes what ``dump(value)`` gives to the mapping ``d``, adds up the
    sizes of its items, and gives ``load`` what it reads there.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import distributed
from distributed.diagnostics.plugin import NannyPlugin
from distributed.protocol import pickle
from distributed.spill import SpillBuffer


def measure_with(worker: distributed.Worker, measure: Callable[[], int | None]) -> None:
    """Have a worker go by another measure of its memory. Again: does nothing.

    Parameters
    ----------
    measure
        Gives bytes, or None: as Dask measures. Called on the worker's event loop.
    """
    plain = worker.monitor.get_process_memory
    if not isinstance(plain, _Measuring):
        worker.monitor.get_process_memory = _Measuring(plain, measure)


class _Measuring:
    """What a worker calls for its memory."""

    def __init__(self, plain: Callable[[], int], measure: Callable[[], int | None]):
        self._plain, self._measure = plain, measure

    def __call__(self) -> int:
        measured = self._measure()
        return self._plain() if measured is None else measured


def terminate_only_if(
    nanny: distributed.Nanny, over: Callable[[int, float], bool]
) -> None:
    """Have a nanny ask before it terminates its worker for memory. Again: does nothing.

    Parameters
    ----------
    over
        Given the process and the bytes that it may have, says whether it has more. Then
        the nanny looks itself.
    """
    watching = nanny.periodic_callbacks.get("memory_monitor")
    if watching is None or isinstance(watching.callback, _Asking):
        return  # None: there is no limit
    watching.callback = _Asking(nanny, watching.callback, over)


class _Asking:
    """What a nanny calls to watch its worker."""

    def __init__(
        self,
        nanny: distributed.Nanny,
        plain: Callable[[], None],
        over: Callable[[int, float], bool],
    ):
        self._nanny, self._plain, self._over = nanny, plain, over

    def __call__(self) -> None:
        process = getattr(self._nanny.process, "process", None)
        manager = self._nanny.memory_manager
        pid = getattr(process, "pid", None)
        at_most = manager.memory_limit * manager.memory_terminate_fraction
        if pid is None or self._over(pid, at_most):
            self._plain()


async def add_to_nanny(
    worker: distributed.Worker, plugin: NannyPlugin, name: str
) -> dict[str, Any] | None:
    """Give the nanny of a worker a plugin; its answer, or None if there is no nanny.

    Raises
    ------
    OSError
        If it cannot be reached.
    Exception
        If it cannot unpickle the plugin.
    """
    if worker.nanny is None:
        return None
    reply: dict[str, Any] = await worker.rpc(worker.nanny).plugin_add(
        plugin=pickle.dumps(plugin), name=name
    )
    return reply


class Kept(abc.ABC):
    """A value that a worker keeps instead of spilling it."""

    @abc.abstractmethod
    def load(self) -> Any:
        """The value."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Bytes, for Dask's statistics."""

    @abc.abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """What is counted as spilled, as bytes."""


def keep_instead_of_spilling(
    worker: distributed.Worker, keep: Callable[[Any], Kept | None]
) -> None:
    """Have a worker keep some of the values that it would spill. Again: does nothing.

    Parameters
    ----------
    keep
        Given a value, what to keep of it; None: it is spilled.
    """
    data = worker.data
    if not isinstance(data, SpillBuffer):
        return  # it spills nothing, or in a way of its own
    slow = data._slow_uncached
    if isinstance(slow.d, _KeptOrSpilled):
        return
    slow.dump = functools.partial(_dump, slow.dump, keep)
    slow.load = functools.partial(_load, slow.load)
    slow.d = _KeptOrSpilled(slow.d)


def _dump(
    plain: Callable[[Any], Any], keep: Callable[[Any], Kept | None], value: Any
) -> Any:
    kept = keep(value)
    return plain(value) if kept is None else kept


def _load(plain: Callable[[Any], Any], spilled: Any) -> Any:
    return spilled.load() if isinstance(spilled, Kept) else plain(spilled)


class _KeptOrSpilled(MutableMapping[Any, Any]):
    """The files of spilled values, and those that are kept."""

    def __init__(self, files: MutableMapping[Any, Any]):
        self._files = files
        self._kept: dict[Any, Kept] = {}

    def __getitem__(self, key: Any) -> Any:
        kept = self._kept.get(key)
        return self._files[key] if kept is None else kept

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, Kept):
            self._kept[key] = value
        else:
            self._files[key] = value

    def __delitem__(self, key: Any) -> None:
        if self._kept.pop(key, None) is None:
            del self._files[key]

    def __contains__(self, key: Any) -> bool:
        return key in self._kept or key in self._files

    def __iter__(self) -> Iterator[Any]:
        yield from self._files
        yield from self._kept

    def __len__(self) -> int:
        return len(self._files) + len(self._kept)

    def close(self) -> None:
        """Delete the files, as Dask's worker does when it ends."""
        self._kept.clear()
        close = getattr(self._files, "close", None)
        if close is not None:
            close()
