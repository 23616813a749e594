"""Objects as files that readers map: the connector behind ``shm://`` and ``file://``.

Each object is one file, a *segment*. It is written under a temporary name and then renamed,
so nobody sees half of one. Readers map it privately (:mod:`daskps.stores.files.mapping`):
they copy nothing, may write, and keep what they mapped even after the segment is evicted.
Evicted segments in shared memory are written anew (:mod:`daskps.stores.files.warm`), so
readers lock what they map.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import threading
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from dask.utils import format_bytes

from daskps.exceptions import StoreFullError
from daskps.serialize.frames import Frame, contiguous_parts, frame_nbytes
from daskps.serialize.slabs import SLAB_NBYTES, in_threads, write_all
from daskps.stores import memory, pressure
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.files.directories import (
    CACHED,
    OwnedDirectory,
    check_private,
    sweep,
)
from daskps.stores.files.locks import is_at, lock_for_reading, try_lock
from daskps.stores.files.mapped_objects import MappedObjects
from daskps.stores.files.mapping import map_private
from daskps.stores.files.orphans import unlink_orphans
from daskps.stores.files.pieces import Pieces
from daskps.stores.files.places import HostPlaces
from daskps.stores.files.warm import FREE_PREFIX, WarmSegment, WarmSegments
from daskps.stores.holdings import Holdings, in_directories
from daskps.stores.keys import SegmentKey
from daskps.stores.memory import Room
from daskps.stores.patience import may_wait
from daskps.stores.remarks import Remark

# No memory, no file, or none for this user.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class SegmentConnector(StoreConnector[SegmentKey]):
    """A ProxyStore ``Connector`` over directories on this host.

    Parameters
    ----------
    directories
        Existing directories, private to this user. An object goes to the first one that
        has room.
    reserve
        Bytes to leave free in the first directory, if there is another.
    keep
        Bytes of evicted segments to keep in the first directory, to be written anew; at
        most an eighth of its file system. Others may keep more or less. None: nobody
        keeps any, since it is not in memory.
    owned
        The directories, if they are to be deleted with this connector. Connectors made
        from this one's :meth:`config` do not own them.
    missing
        The directory in memory in whose place the first one is, since it could not be
        written to.

    Notes
    -----
    Thread-safe, and safe across processes.
    """

    marks_creators = True
    has_heartbeat = True
    directories: list[str]
    reserve: int
    keep: int | None
    closed: threading.Event
    _owned: Sequence[OwnedDirectory]
    _warm: WarmSegments
    _warned: bool

    def __init__(
        self,
        directories: Sequence[str],
        reserve: int = 0,
        keep: int | None = None,
        owned: Sequence[OwnedDirectory] = (),
        missing: str | None = None,
    ):
        for path in directories:
            check_private(path)
        self.directories = list(directories)
        self.reserve = reserve
        self.closed = threading.Event()
        self._owned = owned
        self._missing = missing
        self.keep = keep
        self.maps_its_own = keep is not None
        self.shares_memory = bool(keep)
        self._in_memory = [memory.is_in_memory(path) for path in self.directories]
        self._warm = WarmSegments(self.directories[0], keep or 0)
        self._mapped = MappedObjects()
        self._warned = False

    def __repr__(self) -> str:
        return f"SegmentConnector({self.directories!r})"

    def close(self) -> None:
        """Delete the directories that this connector owns, with all objects.

        If it owns none: those whose owners have died.
        """
        self.closed.set()
        self._warm.unmap()
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
            "missing": self._missing,
        }

    def map_at_most(self, nbytes: int) -> None:
        """Limit the segments that this process keeps mapped, to write them anew."""
        self._warm.map_at_most(nbytes)

    def capacity(self) -> int:
        """Bytes that the first directory can hold at most."""
        return memory.total(self.directories[0])

    def room(self) -> Room:
        """What this process may still put into the first directory."""
        return memory.room(self.directories[0])

    def holdings(self) -> Holdings:
        """What is in the directories."""
        most = self._warm.at_most()
        return in_directories(self.directories, CACHED, FREE_PREFIX, most)

    def rest(self) -> None:
        """Keep no segments mapped, unless they are written soon."""
        self._warm.rest()

    def remark(self) -> Remark | None:
        """Whether there is no memory, or little."""
        parents = [os.path.dirname(directory) for directory in self.directories]
        places = HostPlaces(parents, self.reserve, self.keep, self._missing)
        return places.remark()

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> SegmentKey:
        """Store one object that is in several pieces, without joining them first.

        What is an object here already, mapped and not changed, gets one more name.

        Raises
        ------
        StoreFullError
            If no directory has room.
        OSError
            If the file system fails in another way.
        """
        nbytes = sum(map(frame_nbytes, frames))
        key = SegmentKey(f"{creator}.{secrets.token_urlsafe(16)}", nbytes, 0)
        linked = self._link(self._mapped.find(frames), key)
        if linked is not None:
            return linked
        for place in range(len(self.directories)):
            key = key._replace(place=place)
            if self._put_at(key, frames):
                return key
            self._warn_once(key)
        raise self._full(nbytes)

    def begin(self, nbytes: int, creator: str = "") -> Pieces:
        """Store one object that comes piece by piece.

        Raises
        ------
        StoreFullError
            If no directory has room.
        OSError
            If the file system fails in another way.
        """
        key = SegmentKey(f"{creator}.{secrets.token_urlsafe(16)}", nbytes, 0)
        for place in range(len(self.directories)):
            key = key._replace(place=place)
            if self._has_room(key):
                path = self._path(key)
                return Pieces(_create(path + ".part"), path, key)
            self._warn_once(key)
        raise self._full(nbytes)

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
            status = os.fstat(fd)
            if status.st_size != key.nbytes:
                return None
            # Whatever this process keeps: another one may write it anew.
            if self.keep is not None and not lock_for_reading(fd, status, path):
                return None
            if not key.nbytes:
                return memoryview(bytearray())
            mapping = map_private(fd, key.nbytes)
        finally:
            os.close(fd)
        self._mapped.add(key, mapping)
        return mapping

    def exists(self, key: SegmentKey) -> bool:
        """Whether the object is there, and whole."""
        try:
            return os.stat(self._path(key)).st_size == key.nbytes
        except FileNotFoundError:
            return False

    def evict(self, key: SegmentKey) -> None:
        """Delete the object. Not there: does nothing."""
        path = self._path(key)
        if key.place == 0:
            self._warm.evict(path, key.nbytes)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def evict_orphans(self, creator: str, keep: set[SegmentKey]) -> bool:
        """Delete what a process stored, or was storing, except what is needed."""
        names = {key.name for key in keep}
        return bool(unlink_orphans(self.directories, creator, names))

    def _full(self, nbytes: int) -> StoreFullError:
        room = self.room()
        return StoreFullError(
            f"No room for an object of {format_bytes(nbytes)} in "
            f"{' nor in '.join(self.directories)}: {room.limit} leaves "
            f"{format_bytes(room.free)}. Free some, compute in smaller "
            "parts, or use another store (daskps.proxy_graph(store=...))."
        )

    def _path(self, key: SegmentKey) -> str:
        return os.path.join(self.directories[key.place], key.name)

    def _link(self, known: SegmentKey | None, key: SegmentKey) -> SegmentKey | None:
        """Give an object one more name. Its memory is free when both are evicted."""
        if known is None:
            return None
        key = key._replace(place=known.place)
        try:
            os.link(self._path(known), self._path(key))
        except OSError:
            return None  # it was evicted, or the file system has no links: it is copied
        return key

    def _put_at(self, key: SegmentKey, frames: Sequence[Frame]) -> bool:
        """Write an object to its place; whether there was room."""
        path, whole = self._path(key), False
        try:
            segment = None
            if key.place == 0:
                segment = self._warm.take(key.nbytes, path + ".part")
            if segment is None:
                if self._in_memory[key.place]:
                    pressure.make_room(key.nbytes, may_wait())
                if not self._has_room(key):
                    return False
                segment = WarmSegment(_create(path + ".part"), None)
            _write(segment, path, frames)
            whole = True
        except OSError as e:
            if e.errno in _NO_ROOM or (e.errno == errno.EROFS and not self._last(key)):
                return False
            raise
        finally:
            if not whole:
                # Ctrl-C may come between any two of these steps, and nobody knows the
                # name. A read-only file system refuses also what is not there.
                for name in (path + ".part", path):
                    with contextlib.suppress(OSError):
                        os.unlink(name)
        return True

    def _last(self, key: SegmentKey) -> bool:
        return key.place == len(self.directories) - 1

    def _has_room(self, key: SegmentKey) -> bool:
        if self._last(key) and not self._in_memory[key.place]:
            return True  # nowhere else to go: let the file system decide
        if self._room(key) >= key.nbytes:
            return True
        self._warm.clear()
        return self._room(key) >= key.nbytes

    def _room(self, key: SegmentKey) -> int:
        reserve = self.reserve if key.place < len(self.directories) - 1 else 0
        return memory.room(self.directories[key.place], key.nbytes).free - reserve

    def _warn_once(self, key: SegmentKey) -> None:
        if self._warned or self._last(key):
            return
        self._warned = True
        room = memory.room(self.directories[key.place])
        warnings.warn(
            f"{self.directories[key.place]} has no room for an object of "
            f"{format_bytes(key.nbytes)} ({room.limit} leaves "
            f"{format_bytes(room.free)}): it goes to a file in "
            f"{self.directories[key.place + 1]}, which may be slower. Enlarge the "
            "former (docker run --shm-size) or raise that limit, or choose a store with "
            "daskps.proxy_graph(store=...).",
            stacklevel=2,
        )


def _create(path: str) -> int:
    """Make a file that is locked for as long as this process writes it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        fd = os.open(path, flags, 0o600)
        # Another process may have taken it, not locked yet, for a dead one's.
        if try_lock(fd, fcntl.LOCK_EX) and is_at(fd, path):
            return fd
        os.close(fd)


def _write(segment: WarmSegment, path: str, frames: Sequence[Frame]) -> None:
    """Write an object, and give it its name."""
    try:
        if segment.mapping is None:
            _write_from_start(segment.fd, frames, os.path.dirname(path))
        else:
            _copy(segment.mapping, frames)
        os.rename(path + ".part", path)
    finally:
        # Not only by closing: a process forked meanwhile has the descriptor, too.
        fcntl.flock(segment.fd, fcntl.LOCK_UN)
        os.close(segment.fd)


def _copy(mapping: memoryview, frames: Sequence[Frame]) -> None:
    to = np.frombuffer(mapping, np.uint8)
    for frame in frames:
        for part in contiguous_parts(frame):
            in_threads(partial(_copy_slab, to), part)
            to = to[part.nbytes :]


def _copy_slab(to: np.ndarray, offset: int, slab: memoryview) -> None:
    # NumPy copies without holding the interpreter's lock.
    to[offset : offset + slab.nbytes] = np.frombuffer(slab, np.uint8)


def _write_from_start(fd: int, frames: Sequence[Frame], directory: str) -> None:
    # The file was opened for this. write(), not a mapping: on a full tmpfs a mapping ends
    # in SIGBUS. In one thread: the kernel lets one at a time write.
    in_memory = memory.is_in_memory(directory)
    for frame in frames:
        for part in contiguous_parts(frame):
            for start in range(0, part.nbytes, SLAB_NBYTES):
                slab = part[start : start + SLAB_NBYTES]
                # Others take memory meanwhile, and at a group's limit the kernel kills.
                if in_memory and memory.available(slab.nbytes).free < slab.nbytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                write_all(fd, slab)
