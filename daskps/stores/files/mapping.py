"""Map files into memory: readers copy nothing and may write; writers allocate nothing.

Why not :mod:`mmap`: before Python 3.13 every ``mmap.mmap`` keeps a duplicate of the file
descriptor, and a worker that holds a few thousand mapped blocks runs out of them. Nor does
it take an address, which has to be a multiple of a huge page's size where a segment consists
of such (:mod:`daskps.stores.files.huge_pages`): otherwise the kernel maps 4 KiB at a time.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import weakref
from mmap import PAGESIZE

PROT_NONE, PROT_READ, PROT_WRITE = 0x0, 0x1, 0x2
# Linux: MAP_NORESERVE, since a private writable mapping would otherwise count against
# the overcommit limit although its pages are almost never written.
MAP_SHARED, MAP_PRIVATE, MAP_NORESERVE = 0x01, 0x02, 0x4000
MAP_FIXED, MAP_ANONYMOUS = 0x10, 0x20
# Linux 5.14: maps all pages at once rather than one at each first use; refused before.
MADV_POPULATE_WRITE = 23

# The upper byte of what /proc/PID/pagemap says of a page: bit 7, it is in memory; 6, it was
# swapped; 5, it is a file's, or shared. What was copied for this process has not the last.
_NOT_COPIED = bytes(byte for byte in range(256) if byte & 0x20 or not byte & 0xC0)


def _huge_page() -> int:
    """Bytes of a huge page; 0 if the kernel has none."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


HUGE_PAGE = _huge_page()

#: Private mappings of this process: bytes, by address.
_private: dict[int, int] = {}
#: Those in which it writes to files.
_shared: dict[int, int] = {}

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
    advise(ctypes.addressof(array), nbytes, MADV_POPULATE_WRITE)
    return memoryview(array).cast("B")


def in_huge_pages(nbytes: int) -> int:
    """Bytes of huge pages that hold so many bytes; 0 if that wastes more than an eighth."""
    whole = -(-nbytes // HUGE_PAGE) * HUGE_PAGE if HUGE_PAGE else 0
    return whole if whole - nbytes <= nbytes // 8 else 0


def address_of(mapping: memoryview) -> int:
    """Where a mapping begins."""
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(mapping))


def maps_anything() -> bool:
    """Whether this process has mapped anything."""
    return bool(_private or _shared)


def is_unwritten(address: int, nbytes: int) -> bool:
    """Whether memory is mapped privately, and all of it still the file's.

    Also False where the kernel does not say.
    """
    if not any(
        start <= address and address + nbytes <= start + size
        for start, size in list(_private.items())
    ):
        return False
    return _kernel_tells() and _is_files(address, nbytes)


def _is_files(address: int, nbytes: int) -> bool:
    first, last = address // PAGESIZE, (address + nbytes - 1) // PAGESIZE
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            entries = os.pread(file.fileno(), 8 * (last - first + 1), 8 * first)
    except OSError:
        return False
    upper = entries[7::8] if sys.byteorder == "little" else entries[::8]
    return len(upper) == last - first + 1 and not upper.translate(None, _NOT_COPIED)


@functools.cache
def _kernel_tells() -> bool:
    """Whether the kernel knows what was written to. Sandboxes have kernels of their own."""
    try:
        fd = os.memfd_create("daskps", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, 3 * PAGESIZE)
            mapping = map_private(fd, 3 * PAGESIZE)
        finally:
            os.close(fd)
    except OSError:
        return False
    address = address_of(mapping)
    _ = mapping[0]  # read, and mapped
    before = _is_files(address, 3 * PAGESIZE)
    mapping[2 * PAGESIZE] = 1
    return before and not _is_files(address, 3 * PAGESIZE)


def advise(address: int, nbytes: int, advice: int) -> bool:
    """Tell the kernel something about mapped memory; whether it did as it was told."""
    done: int = _libc.madvise(address, nbytes, advice)
    return done == 0


def _map(fd: int, nbytes: int, flags: int) -> ctypes.Array[ctypes.c_ubyte]:
    protection = PROT_READ | PROT_WRITE
    huge = in_huge_pages(nbytes)
    if huge:
        address = _map_aligned(fd, huge, protection, flags)
    else:
        address = _mmap(None, nbytes, protection, flags, fd)
    array = (ctypes.c_ubyte * nbytes).from_address(address)
    (_private if flags & MAP_PRIVATE else _shared)[address] = nbytes
    unmap = weakref.finalize(array, _unmap, address, huge or nbytes)
    # At exit arrays may still be in use, and the kernel unmaps anyway.
    unmap.atexit = False
    return array


def _unmap(address: int, nbytes: int) -> None:
    # First: another thread may be given the same address at once.
    _private.pop(address, None)
    _shared.pop(address, None)
    _libc.munmap(address, nbytes)


def _map_aligned(fd: int, nbytes: int, protection: int, flags: int) -> int:
    """Map whole huge pages at a multiple of their size, in a place reserved first."""
    room = nbytes + HUGE_PAGE
    nothing = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    start = _mmap(None, room, PROT_NONE, nothing, -1)
    address = start + -start % HUGE_PAGE
    try:
        _mmap(address, nbytes, protection, flags | MAP_FIXED, fd)
    except OSError:
        _libc.munmap(start, room)
        raise
    before, after = address - start, start + HUGE_PAGE - address
    if before:
        _libc.munmap(start, before)
    if after:
        _libc.munmap(address + nbytes, after)
    return address


def _mmap(
    address: int | None, nbytes: int, protection: int, flags: int, fd: int
) -> int:
    mapped = _libc.mmap(address, nbytes, protection, flags, fd, 0)
    if mapped == _MAP_FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(mapped)
