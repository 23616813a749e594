"""An object that comes in pieces, and is a segment when it is whole."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from daskps.serialize.slabs import write_all

if TYPE_CHECKING:
    from daskps.stores.keys import SegmentKey


class Pieces:
    """Writes one segment; see :meth:`SegmentConnector.begin`. Not thread-safe.

    Parameters
    ----------
    fd
        Of a new file, which this takes over.
    path
        Of the segment; the file has ``.part`` after it.
    key
        Of the segment.

    Attributes
    ----------
    written
        How many bytes have come.
    """

    written: int

    def __init__(self, fd: int, path: str, key: SegmentKey):
        self._fd = fd
        self._path = path
        self._key = key
        self.written = 0

    def write(self, data: memoryview) -> None:
        """Take the next piece.

        Raises
        ------
        OSError
            If there is no room.
        """
        write_all(self._fd, data)
        self.written += data.nbytes

    def finish(self) -> SegmentKey:
        """Make it an object.

        Raises
        ------
        ValueError
            If it is not whole.
        """
        if self.written != self._key.nbytes:
            raise ValueError(f"{self.written} of {self._key.nbytes} bytes have come")
        os.rename(self._path + ".part", self._path)
        os.close(self._fd)
        return self._key

    def abandon(self) -> None:
        """Delete what has come."""
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path + ".part")
