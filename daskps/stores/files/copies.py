"""Objects of other hosts, brought to this host once for all of its processes.

A copy is a file in directories that the host's processes share. The first reader makes it,
under a lock that the kernel releases if that reader dies; others wait for it and map it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

from daskps.stores import memory, pressure
from daskps.stores.files.directories import CACHED
from daskps.stores.files.locks import is_at, try_lock
from daskps.stores.files.mapping import map_private
from daskps.stores.files.orphans import unlink_unless_written

# How long a reader waits for another one whose copy does not grow, besides the time for its
# bytes: some read all of an object before they write it. It may be stopped, or have forked a
# process that keeps its lock.
WRITER_WAIT_SECONDS = 10.0
SLOWEST_BYTES_PER_SECOND = 10e6
POLL_SECONDS = 0.003


class HostCache(pressure.Spare):
    """Copies of objects, those used last, up to a number of bytes.

    Parameters
    ----------
    directories
        Private directories of this host, shared by its processes. A copy goes to the first
        one that has room.
    limit
        Bytes to keep; None: a quarter of what the first directory can hold. Larger objects
        are brought, but not kept.
    reserve
        Bytes to leave free in the first directory.

    Notes
    -----
    Thread-safe, and safe across processes. The limit may be exceeded for a moment by what
    several readers bring at once. What is mapped stays mapped when its copy is deleted.
    """

    order: ClassVar[int] = 1

    def __init__(
        self, directories: Sequence[str], limit: int | None = None, reserve: int = 0
    ):
        self._directories = list(directories)
        if limit is None:
            limit = memory.total(self._directories[0]) // 4
        self._limit = limit
        self._reserve = reserve

    def get(
        self, name: str, nbytes: int, fetch: Callable[[int], bool]
    ) -> memoryview | None:
        """Map an object, which is brought if it is not here.

        Parameters
        ----------
        name
            Names the object among all others: no ``/``.
        nbytes
            Exact size.
        fetch
            Given a descriptor, writes the object's bytes to it; False if there is no such
            object. What it raises is raised here.

        Returns
        -------
        memoryview
            Writable; what is written is not seen by anyone else. None: no such object.
        """
        found = self._map(name, nbytes)
        if found is not None:
            return found
        for directory in self._directories:
            last = directory == self._directories[-1]
            has_room = self._trim(directory, nbytes, self._limit - nbytes)
            if not has_room and not last:
                continue
            try:
                return self._bring(directory, name, nbytes, fetch)
            except OSError as e:
                if last or e.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
        raise AssertionError("there is no directory")

    def evict(self, name: str) -> None:
        """Delete the copy of an object. Not there: does nothing."""
        for directory in self._directories:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_path(directory, name))

    def spare_nbytes(self) -> int:
        """Bytes of copies in memory."""
        return sum(copy.nbytes for copy in self._in_memory())

    def give_back(self, nbytes: int) -> int:
        """Delete copies in memory, those used longest ago first."""
        given = 0
        for copy in sorted(self._in_memory()):
            if given >= nbytes:
                break
            if unlink_unless_written(copy.path):
                given += copy.nbytes
        return given

    def _in_memory(self) -> list[_Copy]:
        directories = filter(memory.is_in_memory, self._directories)
        return [copy for directory in directories for copy in _copies(directory)]

    def give_way(self, nbytes: int) -> None:
        """Delete copies, if something else needs their room in the first directory."""
        self._trim(self._directories[0], nbytes, self._limit)

    def _trim(self, directory: str, nbytes: int, limit: int) -> bool:
        """Delete the copies used longest ago, and say whether there is room."""
        copies = _copies(directory)
        kept = sum(copy.nbytes for copy in copies)
        reserve = self._reserve if directory == self._directories[0] else 0
        free = memory.room(directory, nbytes).free - reserve
        if memory.is_in_memory(directory):
            limit = min(limit, pressure.may_keep(kept))
        for copy in copies:
            if kept <= limit and free >= nbytes:
                break
            if unlink_unless_written(copy.path):
                kept -= copy.nbytes
                free += copy.nbytes
        return free >= nbytes

    def _map(self, name: str, nbytes: int) -> memoryview | None:
        for directory in self._directories:
            path = _path(directory, name)
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if os.fstat(fd).st_size != nbytes:
                        continue  # something else has cut it short
                    os.utime(fd)  # it was used now
                    return _mapped(fd, nbytes)
                finally:
                    os.close(fd)
        return None

    def _bring(
        self, directory: str, name: str, nbytes: int, fetch: Callable[[int], bool]
    ) -> memoryview | None:
        path = _path(directory, name)
        with _written_by_one(path, nbytes) as (fd, part):
            found = self._map(name, nbytes)
            if found is not None:
                return found  # somebody else was faster
            os.ftruncate(fd, 0)  # what one that died has written
            if not fetch(fd):
                return None
            if nbytes <= self._limit and part == f"{path}.part":
                os.rename(part, path)
                if memory.is_in_memory(directory):
                    pressure.watch(self)
            return _mapped(fd, nbytes)


class _Copy(NamedTuple):
    """A file of the cache; sorts by when it was used last."""

    used: float
    nbytes: int
    path: str


def _copies(directory: str) -> list[_Copy]:
    copies = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(CACHED):
                with contextlib.suppress(FileNotFoundError):
                    info = entry.stat(follow_symlinks=False)
                    copies.append(_Copy(info.st_mtime, info.st_size, entry.path))
    return sorted(copies)


def _path(directory: str, name: str) -> str:
    return os.path.join(directory, CACHED + name)


def _mapped(fd: int, nbytes: int) -> memoryview:
    return map_private(fd, nbytes) if nbytes else memoryview(bytearray())


@contextlib.contextmanager
def _written_by_one(path: str, nbytes: int) -> Iterator[tuple[int, str]]:
    """A file to be written, which nobody else writes, and its name.

    It is deleted unless it was given another name.
    """
    fd, part = _open_locked(path, nbytes)
    try:
        yield fd, part
    finally:
        with contextlib.suppress(FileNotFoundError):
            if is_at(fd, part):
                os.unlink(part)
        # Not only by closing: mappings keep the file open, and so may a forked process.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _open_locked(path: str, nbytes: int) -> tuple[int, str]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    part = f"{path}.part"
    written, deadline = -1, 0.0
    while True:
        fd = os.open(part, flags, 0o600)
        if try_lock(fd, fcntl.LOCK_EX):
            if is_at(fd, part):
                return fd, part
        elif os.fstat(fd).st_size != written:
            written = os.fstat(fd).st_size
            deadline = (
                time.monotonic()
                + WRITER_WAIT_SECONDS
                + nbytes / SLOWEST_BYTES_PER_SECOND
            )
        elif time.monotonic() > deadline:
            part = f"{path}.{secrets.token_urlsafe(8)}.part"
        os.close(fd)
        time.sleep(POLL_SECONDS)
