"""Segments that one process keeps mapped, to write them again. Standard library alone."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from daskps.stores.files.huge_pages import collapse
from daskps.stores.files.mapping import map_shared


@dataclass(slots=True)
class _Mapping:
    """A segment that is mapped, and how many of its first bytes are huge pages."""

    bytes: memoryview
    huge: int = 0


class MappedSegments:
    """Mappings of the segments that this process has written last: so many bytes at most.

    Attributes
    ----------
    nbytes
        Bytes that are mapped.
    used
        When one was written last (``time.monotonic``).

    Notes
    -----
    Thread-safe. Several processes may have mapped a segment: they write it in turn.
    """

    def __init__(self, at_most: int):
        self.at_most = at_most
        self._lock = threading.Lock()
        #: By inode, which a mapping keeps the segment's own; the one used last at the end.
        self._mappings: OrderedDict[int, _Mapping] = OrderedDict()
        self.nbytes = 0
        self.used = time.monotonic()

    def __contains__(self, inode: int) -> bool:
        return inode in self._mappings

    def of(self, fd: int, nbytes: int) -> memoryview | None:
        """The bytes of a segment, which is cut to size, mapped now if they were not.

        Nobody else reads or writes it. Its pages are all there, since it was an object of
        at least this size. What is mapped may be larger.
        """
        status = os.fstat(fd)
        cut = status.st_size != nbytes
        # Even to the same size, it would split a huge page that reaches beyond the end.
        if cut:
            os.ftruncate(fd, nbytes)
        mapping = self._mappings.get(status.st_ino)
        if mapping is None:
            if nbytes > self.at_most:
                return None
            try:
                mapping = _Mapping(map_shared(fd, nbytes))
            except OSError:
                return None  # too many mappings, say
        if cut:
            mapping.huge = 0
        mapping.huge = collapse(mapping.bytes[:nbytes], mapping.huge)
        self._add(status.st_ino, mapping)
        return mapping.bytes

    def drop_all_but(self, inodes: Collection[int]) -> None:
        """Keep no mapping of other segments than these."""
        with self._lock:
            for inode in self._mappings.keys() - inodes:
                self._drop(inode)

    def _add(self, inode: int, mapping: _Mapping) -> None:
        with self._lock:
            self._drop(inode)
            self._mappings[inode] = mapping
            self.nbytes += mapping.bytes.nbytes
            self.used = time.monotonic()
            while self.nbytes > self.at_most:
                self._drop(next(iter(self._mappings)))

    def _drop(self, inode: int) -> None:
        mapping = self._mappings.pop(inode, None)
        self.nbytes -= mapping.bytes.nbytes if mapping else 0
