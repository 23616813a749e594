"""Large blocks of memory, which are worked on a slab at a time, by several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from daskps import progress

SLAB_NBYTES = 4 << 20
# Several threads work on no smaller block: starting them takes some 0.1 ms.
PARALLEL_NBYTES_AT_LEAST = 32 << 20
THREADS = min(4, os.cpu_count() or 1)


def in_threads(work: Callable[[int, memoryview], None], block: memoryview) -> None:
    """Do some work on each slab of a block, in several threads if the block is large.

    Parameters
    ----------
    work
        Called with the offset of each slab, and the slab. Should not hold the
        interpreter's lock.
    block
        Bytes. Its last slab may be shorter than others.
    """
    offsets = range(0, block.nbytes, SLAB_NBYTES)
    slabs = (block[start : start + SLAB_NBYTES] for start in offsets)
    if block.nbytes < PARALLEL_NBYTES_AT_LEAST:
        for offset, slab in zip(offsets, slabs, strict=True):
            work(offset, slab)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, offsets, slabs):
            pass  # raises what the work has raised


def write_all(fd: int, data: memoryview) -> None:
    """Write all of some bytes to a file, where the last ones were written."""
    # In slabs, to be interrupted between them.
    while data.nbytes:
        n = os.write(fd, data[:SLAB_NBYTES])
        progress.moved(n)
        data = data[n:]
