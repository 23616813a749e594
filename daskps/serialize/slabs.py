"""Large blocks of memory, which are worked on a slab at a time, by several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")

SLAB = 4 << 20
# From this size on several threads work on one block: starting them takes some 0.1 ms.
PARALLEL = 32 << 20
THREADS = min(4, os.cpu_count() or 1)


def in_threads(
    work: Callable[[int, memoryview], _Result], block: memoryview
) -> list[_Result]:
    """Do some work on each slab of a block, in several threads if the block is large.

    Parameters
    ----------
    work
        Called with the offset of each slab, and the slab. Should not hold the
        interpreter's lock.
    block
        Bytes. Its last slab may be shorter than others.

    Returns
    -------
    list
        What `work` returned, in order.
    """
    offsets = range(0, block.nbytes, SLAB)
    slabs = (block[start : start + SLAB] for start in offsets)
    if block.nbytes < PARALLEL:
        return list(map(work, offsets, slabs))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, offsets, slabs))


def write_all(fd: int, data: memoryview) -> None:
    """Write all of some bytes to a file, where the last ones were written."""
    # In slabs, to be interrupted between them.
    while data.nbytes:
        data = data[os.write(fd, data[:SLAB]) :]
