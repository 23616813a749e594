"""Memory that is only kept to save time, and goes when it is needed or not used.

What a process keeps so is a :class:`Spare`: evicted segments that are still warm, copies of
other hosts' objects, objects for graphs that could follow. While there is any, a thread
looks how much memory is left: the kernel asks nobody before it kills. It also lets go of
what was not used for a while. Who is about to store something asks for room before.

Uses the standard library alone: the server of a ``peer://`` store imports it.
"""

from __future__ import annotations

import abc
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import ClassVar

from daskps.stores import memory

logger = logging.getLogger(__name__)

# Seconds between looking; the second one while memory is scarce.
LOOK_SECONDS = 0.5
LOOK_OFTEN_SECONDS = 0.05
# Memory is scarce when less than this share of a limit is free, but no more than so much:
# then nothing new is kept, and what is stored makes what is kept go.
SCARCE_SHARE = 1 / 4
SCARCE_NBYTES_AT_MOST = 2 << 30
# With half of that, what is kept goes whoever takes the rest.
URGENT_SHARE = 1 / 2
# What was let go is deleted by another process. For how long (seconds) to wait for that.
WAIT_SECONDS = 0.3
POLL_SECONDS = 0.005


class Spare(abc.ABC):
    """Memory that is kept to save time.

    Attributes
    ----------
    order
        Those with a smaller one go first.
    """

    order: ClassVar[int] = 0

    @abc.abstractmethod
    def spare_nbytes(self) -> int:
        """Bytes that are kept now, about."""

    @abc.abstractmethod
    def give_back(self, nbytes: int) -> int:
        """Let go of at least so much, or of all; how many bytes it was."""

    def let_go_of_unused(self) -> None:  # noqa: B027 - most have nothing to do
        """Let go of what was not used for a while."""


_lock = threading.Lock()
_spares: weakref.WeakSet[Spare] = weakref.WeakSet()
_thread: threading.Thread | None = None


def watch(spare: Spare) -> None:
    """Have this looked after for as long as it keeps something. Not kept alive."""
    global _thread
    with _lock:
        _spares.add(spare)
        if _thread is None:
            _thread = threading.Thread(target=_run, name="daskps-memory", daemon=True)
            _thread.start()


def _watched() -> list[Spare]:
    with _lock:
        return list(_spares)


def scarce() -> int:
    """Bytes of memory that are to stay free, where something is kept to save time."""
    limit = memory.available().total
    return min(SCARCE_NBYTES_AT_MOST, int(limit * SCARCE_SHARE))


def may_keep(kept: int) -> int:
    """Bytes that may be kept to save time, of which so many are: a part of what is free."""
    found = memory.available()
    return max(0, found.free + kept - scarce()) // 2


def make_room(nbytes: int, may_wait: bool = True) -> None:
    """Have what is kept go, if otherwise memory were scarce.

    Parameters
    ----------
    nbytes
        How much is about to be taken.
    may_wait
        Whether this thread may sleep until other processes have deleted what was let go.
    """
    wanted, free = nbytes + scarce(), memory.available(nbytes).free
    given = _give_back(wanted - free) if free < wanted else 0
    if not given or not may_wait:
        return
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        # Others may take some of it meanwhile.
        if memory.available(memory.ALL).free >= min(wanted, free + given // 2):
            return
        time.sleep(POLL_SECONDS)


def _give_back(short: int) -> int:
    """Have so much go of what this process keeps; how much it is."""
    given = 0
    for spare in sorted(_watched(), key=lambda spare: spare.order):
        if given >= short:
            break
        given += _call(spare.give_back, short - given) or 0
    if given:
        logger.info("Gave back %d bytes: %s is scarce", given, memory.available().limit)
    return given


def _call(function: Callable[..., int | None], *args: int) -> int | None:
    try:
        return function(*args)
    except FileNotFoundError:
        return None  # the store is closed
    except Exception:
        logger.exception("Could not let go of memory that is kept")
        return None


def _run() -> None:
    while True:
        time.sleep(LOOK_SECONDS if _look() else LOOK_OFTEN_SECONDS)
        if _ends():
            return


def _look() -> bool:
    """Let go of what is to go; whether there is much left."""
    for spare in _watched():
        _call(spare.let_go_of_unused)
    free, wanted = memory.available(memory.ALL).free, scarce()
    urgent = int(wanted * URGENT_SHARE)
    if free < urgent:
        _give_back(urgent - free)
    return free > wanted


def _ends() -> bool:
    global _thread
    with _lock:
        # Whoever keeps something more says so afterwards.
        if any(_call(spare.spare_nbytes) for spare in list(_spares)):
            return False
        _spares.clear()
        _thread = None
        return True


def _forked() -> None:
    global _lock, _thread
    _lock, _thread = threading.Lock(), None  # a forked process does not have the thread


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forked)
