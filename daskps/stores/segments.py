"""Objects as files that readers map: the connector behind ``shm://`` and ``file://``.

Each object is one file, a *segment*. It is written under a temporary name and then renamed,
so nobody sees half of one. Readers map it privately (:mod:`daskps.stores.mapping`): they
copy nothing, may write, and keep what they mapped even after the segment is evicted.

In shared memory most of the time of a put goes into allocating pages. Evicted segments are
therefore kept, up to a limit, and written anew. That is safe only when nobody maps one any
more. A reader takes a shared ``flock`` before it maps; the lock belongs to the open file,
which the mapping keeps open after its descriptor is closed, so the kernel releases the lock
with the last mapping, even after ``kill -9``. A writer needs the exclusive lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from dask.utils import format_bytes

from daskps.exceptions import StoreFullError
from daskps.stores.directory import OwnedDirectory, check_private, sweep
from daskps.stores.mapping import map_private

Frame: TypeAlias = "bytes | bytearray | memoryview | np.ndarray"

# Evicted segments that are kept. Names of objects have a dot too, but not this beginning.
FREE = "free."
# Smaller ones are not worth keeping, nor are so many that looking for one takes long.
KEEP_AT_LEAST = 1 << 20
KEEP_AT_MOST = 128
# A writer that came too late for an evicted segment holds the lock of what became of it
# for a moment. For how long (seconds) a reader tries to lock an object that is there.
LOCK_PATIENCE = 5.0

# Large enough that the cost of a call does not matter, small enough that a slab of a
# non-contiguous array stays in the processor's cache between its two copies.
SLAB = 1 << 20


class SegmentKey(NamedTuple):
    """Names one segment.

    Attributes
    ----------
    name
        File name: who stored it, and 128 random bits.
    nbytes
        Exact size; a file of another size is not the object.
    place
        Index into the connector's directories.
    """

    name: str
    nbytes: int
    place: int


class SegmentConnector:
    """A ProxyStore ``Connector`` over directories on this host.

    Parameters
    ----------
    directories
        Existing directories, private to this user. An object goes to the first one that
        has room.
    reserve
        Bytes to leave free in the first directory, if there is another.
    keep
        Bytes of evicted segments to keep in the first directory, to be written anew.
    owned
        The directories, if they are to be deleted with this connector. Connectors made
        from this one's :meth:`config` do not own them.

    Notes
    -----
    Thread-safe, and safe across processes.
    """

    directories: list[str]
    reserve: int
    keep: int
    closed: threading.Event
    _owned: Sequence[OwnedDirectory]
    _warned: bool

    def __init__(
        self,
        directories: Sequence[str],
        reserve: int = 0,
        keep: int = 0,
        owned: Sequence[OwnedDirectory] = (),
    ):
        for path in directories:
            check_private(path)
        self.directories = list(directories)
        self.reserve = reserve
        self.keep = keep
        self.closed = threading.Event()
        self._owned = owned
        self._warned = False

    def __repr__(self) -> str:
        return f"SegmentConnector({self.directories!r})"

    def close(self) -> None:
        """Delete the directories that this connector owns, with all objects.

        If it owns none: those whose owners have died.
        """
        self.closed.set()
        for directory in self._owned:
            directory.remove()
        for path in self.directories if not self._owned else ():
            sweep(os.path.dirname(path))

    def heartbeat(self) -> None:
        """Say that the owner is alive, to other hosts that share its directories."""
        for directory in self._owned:
            directory.touch()

    def config(self) -> dict[str, Any]:
        """Arguments that make an equal connector on this host."""
        return {
            "directories": self.directories,
            "reserve": self.reserve,
            "keep": self.keep,
        }

    def capacity(self) -> int:
        """Bytes that the first directory's file system can hold at most."""
        room = os.statvfs(self.directories[0])
        return room.f_blocks * room.f_frsize

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SegmentConnector:
        """Make a connector from what :meth:`config` returned."""
        return cls(**config)

    def put(self, obj: bytes | bytearray | memoryview) -> SegmentKey:
        """Store the bytes of one object."""
        return self.put_frames([obj])

    def put_batch(
        self, objs: Sequence[bytes | bytearray | memoryview]
    ) -> list[SegmentKey]:
        """Store several objects."""
        return [self.put(obj) for obj in objs]

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> SegmentKey:
        """Store one object that is in several pieces, without joining them first.

        Parameters
        ----------
        frames
            Buffers, and arrays that need not be contiguous, in order.
        creator
            Who stores it, for :meth:`evict_orphans`: letters and digits.

        Raises
        ------
        StoreFullError
            If no directory has room.
        OSError
            If the file system fails in another way.
        """
        nbytes = sum(map(frame_nbytes, frames))
        key = SegmentKey(f"{creator}.{secrets.token_urlsafe(16)}", nbytes, 0)
        for place in range(len(self.directories)):
            key = key._replace(place=place)
            if self._put_at(key, frames):
                return key
            self._warn_once(key)
        raise StoreFullError(
            f"No room for an object of {format_bytes(nbytes)} in "
            f"{' nor in '.join(self.directories)}. Free some, compute in smaller "
            "parts, or use another store (daskps.proxy_graph(store=...))."
        )

    def get(self, key: SegmentKey) -> memoryview | None:
        """Map an object; None if it is not there, or not whole.

        Returns
        -------
        memoryview
            Writable; what is written is not seen by anyone else.
        """
        path = self._path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(fd).st_size != key.nbytes:
                return None
            if self.keep and not _lock_for_reading(fd, path):
                return None
            return map_private(fd, key.nbytes) if key.nbytes else memoryview(b"")
        finally:
            os.close(fd)

    def get_batch(self, keys: Sequence[SegmentKey]) -> list[memoryview | None]:
        """Map several objects."""
        return [self.get(key) for key in keys]

    def exists(self, key: SegmentKey) -> bool:
        """Whether the object is there, and whole."""
        try:
            return os.stat(self._path(key)).st_size == key.nbytes
        except FileNotFoundError:
            return False

    def evict(self, key: SegmentKey) -> None:
        """Delete the object. Not there: does nothing."""
        with contextlib.suppress(FileNotFoundError):
            if key.place == 0 and KEEP_AT_LEAST <= key.nbytes <= self._can_keep():
                free = f"{FREE}{key.nbytes}.{secrets.token_urlsafe(8)}"
                os.rename(self._path(key), os.path.join(self.directories[0], free))
            else:
                os.unlink(self._path(key))

    def evict_orphans(self, creator: str, keep: set[SegmentKey]) -> None:
        """Delete what a process stored, or was storing, except what is needed.

        What somebody is writing at this moment stays: it has lost its connection, and
        may be alive.

        Parameters
        ----------
        creator
            As given to :meth:`put_frames`.
        keep
            What somebody needs.
        """
        names = {key.name for key in keep}
        for directory in self.directories:
            with os.scandir(directory) as entries:
                for entry in entries:
                    mine = entry.name.startswith(f"{creator}.")
                    if mine and entry.name not in names:
                        _unlink_unless_written(entry.path)

    def _path(self, key: SegmentKey) -> str:
        return os.path.join(self.directories[key.place], key.name)

    def _put_at(self, key: SegmentKey, frames: Sequence[Frame]) -> bool:
        """Write an object to its place, if there is room."""
        path = self._path(key)
        fd = self._reuse(key, path + ".part") if key.place == 0 else None
        if fd is None:
            if not self._has_room(key):
                return False
            fd = _create(path + ".part")
        return _write(fd, path, frames)

    def _has_room(self, key: SegmentKey) -> bool:
        if key.place == len(self.directories) - 1:
            return True  # nowhere else to go: let the file system decide
        if self._room(key.place) >= key.nbytes:
            return True
        for entry in self._free():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)
        return self._room(key.place) >= key.nbytes

    def _room(self, place: int) -> int:
        room = os.statvfs(self.directories[place])
        return room.f_bavail * room.f_frsize - self.reserve

    # Evicted segments

    def _free(self) -> list[os.DirEntry[str]]:
        if not self.keep:
            return []
        with os.scandir(self.directories[0]) as entries:
            return [entry for entry in entries if entry.name.startswith(FREE)]

    def _can_keep(self) -> int:
        if not self.keep:
            return 0
        free = self._free()
        if len(free) >= KEEP_AT_MOST:
            return 0
        return self.keep - sum(_free_nbytes(entry.name) for entry in free)

    def _reuse(self, key: SegmentKey, path: str) -> int | None:
        """Open an evicted segment that nobody maps, under another name."""
        if key.nbytes < KEEP_AT_LEAST:
            return None
        fits = (key.nbytes, 2 * key.nbytes)
        free = [e for e in self._free() if fits[0] <= _free_nbytes(e.name) <= fits[1]]
        for entry in sorted(free, key=lambda entry: _free_nbytes(entry.name)):
            try:
                fd = os.open(entry.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # somebody else was faster
            if _claim(fd, entry.path, path):
                os.ftruncate(fd, key.nbytes)
                return fd
            os.close(fd)
        return None

    def _warn_once(self, key: SegmentKey) -> None:
        if self._warned or key.place == len(self.directories) - 1:
            return
        self._warned = True
        warnings.warn(
            f"{self.directories[key.place]} has no room for an object of "
            f"{format_bytes(key.nbytes)}: it goes to a file in "
            f"{self.directories[key.place + 1]}, which may be slower. Enlarge the "
            "former (docker run --shm-size), or choose a store with "
            "daskps.proxy_graph(store=...).",
            stacklevel=2,
        )


def _create(path: str) -> int:
    """Make a file that is locked for as long as this process writes it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        fd = os.open(path, flags, 0o600)
        # Another process may have taken it, not locked yet, for a dead one's.
        if _try_lock(fd, fcntl.LOCK_EX) and _is_at(fd, path):
            return fd
        os.close(fd)


def _unlink_unless_written(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # Readers' locks do not matter: they keep what they have mapped.
            if not path.endswith(".part") or _try_lock(fd, fcntl.LOCK_EX):
                os.unlink(path)
        finally:
            os.close(fd)


def _write(fd: int, path: str, frames: Sequence[Frame]) -> bool:
    """Write an object, and give it its name; False if there is no room."""
    try:
        # write(), not a mapping: on a full tmpfs a mapping ends in SIGBUS.
        for frame in frames:
            for part in contiguous_parts(frame):
                _write_all(fd, part)
        os.rename(path + ".part", path)
    except BaseException as e:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ".part")
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            return False
        raise
    finally:
        # Not only by closing: a process forked meanwhile has the descriptor, too.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
    return True


def _claim(fd: int, free: str, path: str) -> bool:
    """Take an evicted segment for writing, unless somebody maps it or was faster."""
    if not _try_lock(fd, fcntl.LOCK_EX):
        return False
    with contextlib.suppress(FileNotFoundError):
        os.rename(free, path)
        return True
    # It is an object by now, which others are about to read.
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _lock_for_reading(fd: int, path: str) -> bool:
    """Keep writers away from an open segment; False if it is evicted already."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        locked = _try_lock(fd, fcntl.LOCK_SH)
        if not _is_at(fd, path):
            return False  # evicted, and perhaps written anew, since it was opened
        if locked or time.monotonic() > deadline:
            return locked
        time.sleep(0.001)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    """Whether the file that is open is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _free_nbytes(name: str) -> int:
    return int(name.split(".")[1])


def frame_nbytes(frame: Frame) -> int:
    """Bytes in a frame."""
    return frame.nbytes if isinstance(frame, (memoryview, np.ndarray)) else len(frame)


def contiguous_parts(frame: Frame) -> Iterator[memoryview]:
    """The bytes of a frame, in C order, in one part or in slabs.

    A non-contiguous array comes in slabs that are copied one by one, so that it is never
    held twice.
    """
    if not isinstance(frame, np.ndarray):
        yield memoryview(frame).cast("B")
    elif frame.nbytes == 0:
        return
    elif frame.flags.c_contiguous:
        yield frame.reshape(-1).view(np.uint8).data
    else:
        rows = max(1, SLAB // max(1, frame.nbytes // frame.shape[0]))
        for start in range(0, frame.shape[0], rows):
            slab = frame[start : start + rows]
            if len(slab) == 1 and slab.nbytes > SLAB and slab.ndim > 1:
                yield from contiguous_parts(slab[0])
            else:
                yield from contiguous_parts(np.ascontiguousarray(slab))


def _write_all(fd: int, data: memoryview) -> None:
    # Linux writes at most 2 GiB - 4 KiB at a time.
    while data.nbytes:
        data = data[os.write(fd, data) :]
