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

import contextlib
import fcntl
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from daskps.stores import memory, pressure
from daskps.stores.files.locks import try_lock
from daskps.stores.files.mapped import MappedSegments

# Names of objects have a dot too, but not this beginning.
FREE_PREFIX = "free."
# Smaller segments are not worth keeping.
SEGMENT_NBYTES_AT_LEAST = 1 << 18
SEGMENTS_AT_MOST = 1024
# So many are tried that turn out to be read still, or taken.
TAKE_ATTEMPTS = 16
# For how long a directory is not read again, unless it proves to have changed.
LISTING_SECONDS = 0.01
# A segment that was evicted so long ago (seconds) is of work that was done before. So is a
# mapping that was not written for as long; earlier, if the process has said that it rests.
UNUSED_SECONDS = 30.0
RESTING_SECONDS = 3.0
# Seconds between looking for such segments: the directory has to be read.
LOOK_SECONDS = 2.0


class WarmSegment(NamedTuple):
    """A segment to be written anew, locked, and its bytes if it is mapped."""

    fd: int
    mapping: memoryview | None


class _Free(NamedTuple):
    """An evicted segment."""

    path: str
    nbytes: int


class _SameSize(NamedTuple):
    """Evicted segments of one size: those that this process has mapped, and others."""

    mapped: list[_Free]
    others: list[_Free]


class _Listing:
    """The evicted segments of a directory, as it was read; valid until a monotonic time."""

    def __init__(self, until: float = 0.0):
        self.until = until
        self.count = self.nbytes = 0
        self._by_size = defaultdict[int, _SameSize](lambda: _SameSize([], []))

    def add(self, free: _Free, mapped: bool) -> None:
        same = self._by_size[free.nbytes]
        (same.mapped if mapped else same.others).append(free)
        self.count += 1
        self.nbytes += free.nbytes

    def pop(self, nbytes: int) -> _Free | None:
        """Of the smallest of about this size, one that is mapped here if there is one."""
        sizes = [n for n in self._by_size if nbytes <= n <= 2 * nbytes]
        size = min((n for n in sizes if any(self._by_size[n])), default=None)
        if size is None:
            return None
        self.count -= 1
        self.nbytes -= size
        same = self._by_size[size]
        return (same.mapped or same.others).pop()

    def all_but(self, nbytes: int) -> Iterator[_Free]:
        """Those of other sizes; of one size, those that are mapped here at last."""
        for size, same in reversed(self._by_size.items()):
            if size != nbytes:
                yield from reversed(same.mapped + same.others)


class WarmSegments(pressure.Spare):
    """The evicted segments of one directory, which processes share.

    Parameters
    ----------
    directory
        Where the segments are.
    keep
        Bytes to keep. Never more than an eighth of what the directory can hold, and of
        what is free than a part: others use it too.

    Notes
    -----
    Thread-safe, and safe across processes.
    """

    def __init__(self, directory: str, keep: int):
        self.directory = directory
        self.keep = min(keep, memory.total(directory) // 8)
        self._lock = threading.Lock()
        self._listing = _Listing()
        self._mapped = MappedSegments(self.keep)
        self._resting = False
        self._kept = 0
        self._looked = 0.0

    def map_at_most(self, nbytes: int) -> None:
        """Limit what this process keeps mapped, which is as much as is kept otherwise."""
        self._mapped.at_most = min(self._mapped.at_most, nbytes)

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
            if not self.keep or os.stat(path).st_nlink > 1:
                # No reader holds a lock, or it is an object under another name as well:
                # the file must not be cut short.
                os.unlink(path)
            elif self._add(path, nbytes):
                pressure.watch(self)
            else:
                _delete(path)

    def _add(self, path: str, nbytes: int) -> bool:
        """Keep an evicted segment, if there is room for it."""
        if not SEGMENT_NBYTES_AT_LEAST <= nbytes <= self.keep:
            return False
        name = f"{FREE_PREFIX}{nbytes}.{path.rpartition('.')[2]}"
        free = _Free(os.path.join(self.directory, name), nbytes)
        with self._lock:
            listing = self._list()
            mapped = os.stat(path).st_ino in self._mapped
            dropped = self._too_many(listing, nbytes)
            if dropped is None:
                return False
            os.rename(path, free.path)
            if dropped:
                listing = self._listing = _Listing()
            listing.add(free, mapped)
            self._kept = listing.nbytes
        for other in dropped:
            _delete(other.path)
        return True

    def _too_many(self, listing: _Listing, nbytes: int) -> list[_Free] | None:
        """What to keep no longer for a segment that is evicted now.

        None if there is no room for it. Segments of its own size stay: whoever writes the
        next one has mapped them. Those of other sizes are of work that was done before.
        """
        count, kept = listing.count + 1, listing.nbytes + nbytes
        # The segment is not free yet, whether it will be kept or not.
        most = self.at_most(kept)
        others = listing.all_but(nbytes)
        dropped = []
        while count > SEGMENTS_AT_MOST or kept > most:
            other = next(others, None)
            if other is None:
                return None
            dropped.append(other)
            count, kept = count - 1, kept - other.nbytes
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
        if not self.keep or nbytes < SEGMENT_NBYTES_AT_LEAST:
            return None
        for _ in range(TAKE_ATTEMPTS):
            # Not given again until the directory is read anew.
            with self._lock:
                free = self._listing.pop(nbytes) or self._list().pop(nbytes)
            if free is None:
                return None
            fd = self._claim(free, path)
            if fd is None:
                continue
            try:
                mapping = self._mapped.of(fd, nbytes)
            except BaseException:  # Ctrl-C: to make huge pages may take a while
                os.unlink(path)
                os.close(fd)
                raise
            self._resting = False
            if mapping is not None:
                pressure.watch(self)
            return WarmSegment(fd, mapping)
        return None

    def _claim(self, free: _Free, path: str) -> int | None:
        """Open a segment for writing, unless somebody maps it or was faster."""
        try:
            fd = os.open(free.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            with self._lock:
                self._listing = _Listing()
            return None
        if try_lock(fd, fcntl.LOCK_EX):
            if os.fstat(fd).st_nlink > 1:
                # It got another name at the moment when it was evicted.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(free.path)
                os.close(fd)
                return None
            # The name is never given again, so it is still this file's if it is there.
            with contextlib.suppress(FileNotFoundError):
                os.rename(free.path, path)
                return fd
            # It is an object by now, which others are about to read.
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
        return None

    def clear(self) -> None:
        """Delete what is kept: there is no room."""
        with self._lock:
            self._listing = _Listing()
            for free in self._list().all_but(0):
                _delete(free.path)
            self._listing = _Listing()
            self._mapped.drop_all_but(())

    def at_most(self, kept: int | None = None) -> int:
        """Bytes to keep now.

        Parameters
        ----------
        kept
            Bytes that are kept. Default: what is.
        """
        if not self.keep:
            return 0
        if kept is None:
            with self._lock:
                kept = self._list().nbytes
        return min(self.keep, pressure.may_keep(kept))

    def unmap(self) -> None:
        """Keep nothing mapped."""
        self._mapped.drop_all_but(())

    # What pressure.Spare has

    def spare_nbytes(self) -> int:
        """Bytes that are kept, or mapped by this process."""
        return max(self._kept, self._mapped.nbytes)

    def give_back(self, nbytes: int) -> int:
        """Delete segments, whoever has evicted them."""
        given = 0
        with self._lock:
            self._listing = _Listing()
            for free in self._list().all_but(0):
                if given >= nbytes:
                    break
                _delete(free.path)
                given += free.nbytes
            self._listing = _Listing()
            self._kept = self._list().nbytes
        return given

    def rest(self) -> None:
        """This process may write nothing for a while: keep nothing mapped for that."""
        self._resting = True

    def let_go_of_unused(self) -> None:
        """Unmap and delete what was not written anew for a while."""
        now = time.monotonic()
        seconds = RESTING_SECONDS if self._resting else UNUSED_SECONDS
        if now > self._mapped.used + seconds:
            self._mapped.drop_all_but(())
        if now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        if not os.path.isdir(self.directory):
            self.unmap()  # the store is closed
            self._kept = 0
            return
        old = time.time() - UNUSED_SECONDS
        with self._lock:
            self._listing = _Listing()
            for free in self._list().all_but(0):
                with contextlib.suppress(FileNotFoundError):
                    # To be renamed is a change.
                    if os.stat(free.path).st_ctime < old:
                        _delete(free.path)
            self._listing = _Listing()
            self._kept = self._list().nbytes

    def _list(self) -> _Listing:
        """What is there, or was a moment ago."""
        now = time.monotonic()
        if now < self._listing.until:
            return self._listing
        listing, inodes = _Listing(now + LISTING_SECONDS), set()
        with os.scandir(self.directory) as entries:
            for entry in entries:
                name, inode = entry.name, entry.inode()
                inodes.add(inode)
                if name.startswith(FREE_PREFIX):
                    free = _Free(entry.path, int(name.split(".")[1]))
                    listing.add(free, inode in self._mapped)
        self._mapped.drop_all_but(inodes)
        self._listing = listing
        return listing


def _delete(path: str) -> None:
    """Delete a segment, and free its memory although a writer may keep it mapped."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.unlink(path)
            # What somebody reads stays until he has done so, and what has another name.
            if try_lock(fd, fcntl.LOCK_EX) and not os.fstat(fd).st_nlink:
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)
