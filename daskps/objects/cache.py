"""What a session keeps stored for its next graph. Runs on the client."""

from __future__ import annotations

import collections
import threading

from daskps.objects.catalog import StoredObject
from daskps.references.nodes import ObjectId


class Cache:
    """Keeps the handles that were used last, up to a number of bytes.

    Parameters
    ----------
    limit
        Bytes. A single object larger than this is not kept.

    Notes
    -----
    Thread-safe.
    """

    limit: int
    _lock: threading.Lock
    _objects: collections.OrderedDict[ObjectId, StoredObject]
    _nbytes: int

    def __init__(self, limit: int):
        self.limit = limit
        self._lock = threading.Lock()
        self._objects = collections.OrderedDict()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, stored: StoredObject) -> None:
        """Keep this handle, as the one used last."""
        dropped = []
        with self._lock:
            if stored.id not in self._objects:
                self._objects[stored.id] = stored
                self._nbytes += stored.nbytes
            self._objects.move_to_end(stored.id)
            while self._nbytes > self.limit:
                _, oldest = self._objects.popitem(last=False)
                self._nbytes -= oldest.nbytes
                dropped.append(oldest)
        # The last reference goes outside the lock: it calls the keeper.
        del dropped

    def clear(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            dropped, self._objects = self._objects, collections.OrderedDict()
            self._nbytes = 0
        del dropped
