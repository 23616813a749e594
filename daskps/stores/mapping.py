"""Map files into memory: readers copy nothing and may write; writers allocate nothing.

Why not :mod:`mmap`: before Python 3.13 every ``mmap.mmap`` keeps a duplicate of the file
descriptor, and a worker that holds a few thousand mapped blocks runs out of them.
"""

from __future__ import annotations

import ctypes
import os
import weakref

PROT_READ, PROT_WRITE = 0x1, 0x2
# Linux: MAP_NORESERVE, since a private writable mapping would otherwise count against
# the overcommit limit although its pages are almost never written.
MAP_SHARED, MAP_PRIVATE, MAP_NORESERVE = 0x01, 0x02, 0x4000
# Linux 5.14: maps all pages at once rather than one at each first use; refused before.
MADV_POPULATE_WRITE = 23

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_MAP_FAILED = ctypes.c_void_p(-1).value


def map_private(fd: int, nbytes: int) -> memoryview:
    """Map the first bytes of an open file, copy-on-write.

    Parameters
    ----------
    fd
        An open file of at least `nbytes` bytes; it may be closed afterwards.
    nbytes
        How much to map, more than zero.

    Returns
    -------
    memoryview
        Writable bytes. What is written stays in this mapping. Unmapped when the last
        view of it is gone.

    Raises
    ------
    OSError
        If the kernel refuses.
    """
    return memoryview(_map(fd, nbytes, MAP_PRIVATE | MAP_NORESERVE)).cast("B")


def map_shared(fd: int, nbytes: int) -> memoryview:
    """Map the first bytes of an open file, to write to the file.

    Parameters
    ----------
    fd
        A file, open for reading and writing, all of whose pages are allocated: on a full
        file system, writing to others ends in ``SIGBUS``.
    nbytes
        How much to map, more than zero.

    Returns
    -------
    memoryview
        As for :func:`map_private`.

    Raises
    ------
    OSError
        If the kernel refuses.
    """
    array = _map(fd, nbytes, MAP_SHARED)
    _libc.madvise(ctypes.addressof(array), nbytes, MADV_POPULATE_WRITE)
    return memoryview(array).cast("B")


def _map(fd: int, nbytes: int, flags: int) -> ctypes.Array:
    address = _libc.mmap(None, nbytes, PROT_READ | PROT_WRITE, flags, fd, 0)
    if address == _MAP_FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    array = (ctypes.c_ubyte * nbytes).from_address(address)
    unmap = weakref.finalize(array, _libc.munmap, address, nbytes)
    # At exit arrays may still be in use, and the kernel unmaps anyway.
    unmap.atexit = False
    return array
