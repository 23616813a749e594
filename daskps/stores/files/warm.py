"""Evicted segments, kept to be written anew: their memory is warm.

In shared memory most of the time of a put goes into allocating pages. An evicted segment
therefore stays, under another name, until somebody writes an object of about its size. Who
has written a segment before keeps it mapped, and writes through that mapping, which takes
less than half as long as ``write()``.

That is safe only when nobody reads the segment any more. A reader takes a shared ``flock``
before it maps; the lock belongs to the open file, which the mapping keeps open after its
descriptor is closed, so the kernel releases the lock with the last mapping, even after
``kill -9``. A writer needs the exclusive lock, and the segment's name: whoever renames it
has it.

Uses the standard library alone: the server of a ``peer://`` store imports it.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import threading
import time
from itertools import chain
from typing import NamedTuple

from daskps.stores.files.huge_pages import collapse
from daskps.stores.files.locks import try_lock
from daskps.stores.files.mapping import map_shared

# Evicted segments. Names of objects have a dot too, but not this beginning.
FREE = "free."
# Smaller ones are not worth keeping.
KEEP_AT_LEAST = 1 << 18
KEEP_AT_MOST = 1024
# So many are tried that turn out to be read still, or taken.
ATTEMPTS = 16
# For how long (seconds) a directory is not read again, unless it proves to have changed.
LISTED_FOR = 0.01


class WarmSegment(NamedTuple):
    """A segment to be written anew, locked.

    Attributes
    ----------
    fd
        The file, open, of at least the size that was asked for.
    mapping
        The file's bytes, if they can be written through a mapping.
    """

    fd: int
    mapping: memoryview | None


class _Mapping:
    """A segment that this process has mapped to write it.

    Attributes
    ----------
    bytes
        What is mapped.
    huge
        How many of its first bytes are huge pages.
    """

    __slots__ = "bytes", "huge"

    def __init__(self, fd: int, nbytes: int):
        self.bytes = map_shared(fd, nbytes)
        self.huge = 0


class _Free(NamedTuple):
    """An evicted segment."""

    name: str
    inode: int

    @property
    def nbytes(self) -> int:
        """Its size."""
        return int(self.name.split(".")[1])


class WarmSegments:
    """The evicted segments of one directory.

    Parameters
    ----------
    directory
        Where the segments are.
    keep
        Bytes to keep. Never more than an eighth of the file system: others use it too.

    Attributes
    ----------
    map_at_most
        Bytes of segments that this process keeps mapped: as much as is kept, unless it
        is told to map less.

    Notes
    -----
    Thread-safe, and safe across processes.
    """

    directory: str
    keep: int
    map_at_most: int
    _lock: threading.Lock
    #: By size: what this process has mapped, and others.
    _listed: dict[int, tuple[list[_Free], list[_Free]]]
    _n_listed: int
    _listed_nbytes: int
    _listed_until: float
    #: By inode, which a mapping keeps the segment's own; the one used last at the end.
    #: Several processes may have mapped a segment: they write it in turn.
    _mapped: collections.OrderedDict[int, _Mapping]
    _mapped_nbytes: int

    def __init__(self, directory: str, keep: int):
        self.directory = directory
        room = os.statvfs(directory)
        self.keep = min(keep, room.f_blocks * room.f_frsize // 8)
        self.map_at_most = self.keep
        self._lock = threading.Lock()
        self._listed = {}
        self._n_listed = self._listed_nbytes = 0
        self._listed_until = 0.0
        self._mapped = collections.OrderedDict()
        self._mapped_nbytes = 0

    def evict(self, path: str, nbytes: int) -> None:
        """Keep an evicted segment, or delete it. Not there: does nothing.

        Parameters
        ----------
        path
            The object, which loses its name.
        nbytes
            Its size.
        """
        with contextlib.suppress(FileNotFoundError):
            if not self.keep:
                # No reader holds a lock, so the file must not be cut short.
                os.unlink(path)
            elif not self._add(path, nbytes):
                _delete(path)

    def _add(self, path: str, nbytes: int) -> bool:
        if not KEEP_AT_LEAST <= nbytes <= self.keep:
            return False
        with self._lock:
            self._list()
            token = path.rpartition(".")[2]
            free = _Free(f"{FREE}{nbytes}.{token}", os.stat(path).st_ino)
            too_many = self._make_room(nbytes)
            if too_many is None:
                return False
            os.rename(path, os.path.join(self.directory, free.name))
            self._add_to_list(free)
        for dropped in too_many:
            _delete(os.path.join(self.directory, dropped.name))
        return True

    def _make_room(self, nbytes: int) -> list[_Free] | None:
        """What to keep no longer for a segment that is evicted now.

        None if there is no room for it. Segments of its own size stay: whoever writes the
        next one has mapped them. Those of other sizes are of work that was done before.
        """
        n, kept = self._n_listed + 1, self._listed_nbytes + nbytes
        if n <= KEEP_AT_MOST and kept <= self.keep:
            return []
        sizes = (segments for size, segments in self._listed.items() if size != nbytes)
        others = list(chain(*chain.from_iterable(sizes)))
        dropped = []
        while n > KEEP_AT_MOST or kept > self.keep:
            if not others:
                return None
            dropped.append(others.pop())
            n, kept = n - 1, kept - dropped[-1].nbytes
        self._listed_until = 0.0
        return dropped

    def take(self, nbytes: int, path: str) -> WarmSegment | None:
        """An evicted segment of about this size that nobody reads, under another name.

        Parameters
        ----------
        nbytes
            What is to be written.
        path
            The segment's new name, until it is whole.
        """
        if not self.keep or nbytes < KEEP_AT_LEAST:
            return None
        for _ in range(ATTEMPTS):
            fits = self._one_that_fits(nbytes)
            if fits is None:
                return None
            free = os.path.join(self.directory, fits.name)
            try:
                fd = os.open(free, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                self._forget_list()  # somebody else was faster
                continue
            if _claim(fd, free, path):
                try:
                    return WarmSegment(fd, self._mapping(fd, nbytes))
                except BaseException:  # Ctrl-C: to make huge pages may take a while
                    os.unlink(path)
                    os.close(fd)
                    raise
            os.close(fd)
        return None

    def clear(self) -> None:
        """Delete what is kept: there is no room."""
        with self._lock:
            self._listed_until = 0.0
            self._list()
            for free in chain(*chain.from_iterable(self._listed.values())):
                _delete(os.path.join(self.directory, free.name))
            self._listed.clear()
            self._mapped.clear()
            self._mapped_nbytes = 0

    def _forget_list(self) -> None:
        with self._lock:
            self._listed = {}
            self._listed_until = 0.0

    def _list(self) -> None:
        now = time.monotonic()
        if now < self._listed_until:
            return
        self._listed = {}
        self._n_listed = self._listed_nbytes = 0
        deleted = set(self._mapped)
        with os.scandir(self.directory) as entries:
            for entry in entries:
                inode = entry.inode()
                deleted.discard(inode)
                if entry.name.startswith(FREE):
                    self._add_to_list(_Free(entry.name, inode))
        for inode in deleted:
            self._mapped_nbytes -= self._mapped.pop(inode).bytes.nbytes
        self._listed_until = now + LISTED_FOR

    def _add_to_list(self, free: _Free) -> None:
        nbytes = free.nbytes
        mapped, others = self._listed.setdefault(nbytes, ([], []))
        (mapped if free.inode in self._mapped else others).append(free)
        self._n_listed += 1
        self._listed_nbytes += nbytes

    def _one_that_fits(self, nbytes: int) -> _Free | None:
        """A segment to try: of the smallest, one that is mapped here.

        Not given again until the directory is read anew.
        """
        with self._lock:
            size = self._size_that_fits(nbytes)
            if size is None:
                self._list()
                size = self._size_that_fits(nbytes)
            if size is None:
                return None
            mapped, others = self._listed[size]
            self._n_listed -= 1
            self._listed_nbytes -= size
            return (mapped or others).pop()

    def _size_that_fits(self, nbytes: int) -> int | None:
        fits = (
            n
            for n, segments in self._listed.items()
            if nbytes <= n <= 2 * nbytes and any(segments)
        )
        return min(fits, default=None)

    def _mapping(self, fd: int, nbytes: int) -> memoryview | None:
        """The bytes of the segment, which is cut to size, mapped now if they were not.

        Its pages are all there, since it was an object of at least this size.
        """
        status = os.fstat(fd)
        inode, cut = status.st_ino, status.st_size != nbytes
        # Even to the same size, it would split a huge page that reaches beyond the end.
        if cut:
            os.ftruncate(fd, nbytes)
        with self._lock:
            mapping = self._mapped.get(inode)
        if mapping is None:
            if nbytes > self.map_at_most:
                return None
            try:
                mapping = _Mapping(fd, nbytes)
            except OSError:
                return None  # too many mappings, say
        if cut:
            mapping.huge = 0
        # Nobody reads it now.
        mapping.huge = collapse(mapping.bytes[:nbytes], mapping.huge)
        with self._lock:
            if inode not in self._mapped:
                self._mapped[inode] = mapping
                self._mapped_nbytes += mapping.bytes.nbytes
            self._mapped.move_to_end(inode)
            while self._mapped_nbytes > self.map_at_most:
                self._mapped_nbytes -= self._mapped.popitem(last=False)[1].bytes.nbytes
        return mapping.bytes


def _claim(fd: int, free: str, path: str) -> bool:
    """Take an evicted segment for writing, unless somebody maps it or was faster."""
    if not try_lock(fd, fcntl.LOCK_EX):
        return False
    # The name is never given again, so it is still this file's if it is there.
    with contextlib.suppress(FileNotFoundError):
        os.rename(free, path)
        return True
    # It is an object by now, which others are about to read.
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _delete(path: str) -> None:
    """Delete a segment, and free its memory although a writer may keep it mapped."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.unlink(path)
            # What somebody reads stays until he has done so.
            if try_lock(fd, fcntl.LOCK_EX):
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)
