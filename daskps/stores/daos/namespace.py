"""The objects of all clusters that use one namespace of a DAOS container.

They are in two dictionaries:

- ``namespace`` holds their bytes, in chunks of 1 MiB. DAOS's Python bindings keep the
  interpreter's lock during each transfer, so Dask's event loop gets its turn between two
  chunks. This is also the size up to which they read in one round trip (``value_size`` in
  ``pydaos``), and far from their limit of 2 GiB - 1 for one value.
- ``namespace.daskps`` is the index. It holds a small entry for each object, which says that
  the object is there, without reading it, and finds what a dead process left, without
  reading through all chunks.

DAOS deletes nothing by itself. So the index holds a lease for each cluster as well, which
the cluster's scheduler renews. The objects of a cluster whose lease has run out can be
deleted.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from toolz import partition_all

from daskps.serialize.frames import Frame, contiguous_parts
from daskps.stores.daos.dictionary import Dictionary

CHUNK_NBYTES = 1 << 20
# Keys that are read or deleted at once: 3000 small ones took 0.16 s on a real pool.
KEYS_AT_ONCE = 256
LEASE_KEY = "lease."
# Marks the objects of one cluster. Whatever else is in the index is not ours.
CLUSTER = re.compile(r"[0-9a-f]{16}")


class DaosKey(NamedTuple):
    """Names one object.

    Attributes
    ----------
    name
        The cluster's mark, who stored it, and 128 random bits.
    nbytes
        Exact size.
    """

    name: str
    nbytes: int

    def chunks(self) -> list[Chunk]:
        """Where its bytes are, in order."""
        return [
            Chunk(
                f"{self.name}.{start // CHUNK_NBYTES}",
                start,
                min(start + CHUNK_NBYTES, self.nbytes),
            )
            for start in range(0, self.nbytes, CHUNK_NBYTES)
        ]


class Chunk(NamedTuple):
    """A part of an object.

    Attributes
    ----------
    name
        Its key in the dictionary.
    start, stop
        Which bytes of the object it has.
    """

    name: str
    start: int
    stop: int


class Namespace:
    """Objects by key, and the leases of clusters.

    Parameters
    ----------
    pool, container
        Labels or UUIDs of what is there already.
    name
        The namespace; made if it is not there.

    Raises
    ------
    daskps.exceptions.StoreError
        From the constructor and from every method, if DAOS fails.

    Notes
    -----
    Thread-safe, and safe across processes.
    """

    def __init__(self, pool: str, container: str, name: str):
        self._data = Dictionary(pool, container, name)
        self._index = Dictionary(pool, container, f"{name}.daskps")

    def __repr__(self) -> str:
        return repr(self._data)

    def close(self) -> None:
        """Let go of DAOS. Again: does nothing."""
        self._data.close()
        self._index.close()

    def put(self, key: DaosKey, frames: Sequence[Frame]) -> None:
        """Store an object that is in several pieces."""
        entry = str(key.nbytes).encode()
        # First, so that what there is of it is found if this process dies.
        self._index.put(key.name, entry)
        for chunk, data in zip(key.chunks(), _split(frames), strict=True):
            self._data.put(chunk.name, data)
        # Again, since this process may have been taken for dead meanwhile.
        self._index.put(key.name, entry)

    def get(self, keys: Sequence[DaosKey]) -> list[memoryview | None]:
        """Read objects, small ones together.

        Returns
        -------
        list of memoryview or None
            For each key writable bytes, or None if the object is not there, or not whole.
        """
        objects: list[memoryview | None] = [
            np.empty(key.nbytes, np.uint8).data
            if key.nbytes or self.exists(key)
            else None
            for key in keys
        ]
        for some in _batches(keys):
            values = self._data.get_batch(chunk.name for _, chunk in some)
            for i, (name, start, stop) in some:
                value, data = values[name], objects[i]
                if value is None or len(value) != stop - start:
                    objects[i] = None
                elif data is not None:
                    data[start:stop] = value
        return objects

    def exists(self, key: DaosKey) -> bool:
        """Whether an object is there; it is not read."""
        return self._index.get(key.name) is not None

    def delete(self, keys: Iterable[DaosKey]) -> None:
        """Delete objects. Not there: does nothing."""
        for key in keys:
            for some in partition_all(KEYS_AT_ONCE, key.chunks()):
                self._data.delete(chunk.name for chunk in some)
            # Last: until then, what is left of it can be found.
            self._index.delete([key.name])

    def find(self, prefix: str) -> Iterator[DaosKey]:
        """The objects whose names begin like this."""
        names = [name for name in self._index.list_keys() if name.startswith(prefix)]
        for some in partition_all(KEYS_AT_ONCE, names):
            for name, nbytes in self._index.get_batch(some).items():
                if nbytes is not None:  # or it was deleted meanwhile
                    yield DaosKey(name, int(nbytes))

    # Clusters

    def renew(self, cluster: str, lease: float) -> None:
        """Say that a cluster lives, and will for so long (seconds) at least."""
        self._index.put(LEASE_KEY + cluster, str(time.time() + lease).encode())

    def dead_clusters(self) -> list[str]:
        """The clusters whose leases have run out."""
        names = [name.removeprefix(LEASE_KEY) for name in self._index.list_keys()]
        clusters = {name.partition(".")[0] for name in names}
        return sorted(c for c in clusters if CLUSTER.fullmatch(c) and self._is_dead(c))

    def delete_cluster(self, cluster: str) -> None:
        """Delete all objects of a cluster, and its lease."""
        self.delete(self.find(f"{cluster}."))
        self._index.delete([LEASE_KEY + cluster])

    def _is_dead(self, cluster: str) -> bool:
        # Asked for, since it may have been written after the keys were listed.
        until = self._index.get(LEASE_KEY + cluster)
        return until is None or float(until) < time.time()


def _split(frames: Sequence[Frame]) -> Iterator[bytes]:
    """The bytes of frames, one chunk after the other."""
    pieces: list[memoryview] = []
    room = CHUNK_NBYTES
    for part in itertools.chain.from_iterable(map(contiguous_parts, frames)):
        rest = part
        while rest.nbytes:
            pieces.append(rest[:room])
            rest = rest[room:]
            room -= pieces[-1].nbytes
            if not room:
                yield b"".join(pieces)
                pieces, room = [], CHUNK_NBYTES
    if pieces:
        yield b"".join(pieces)


def _batches(keys: Sequence[DaosKey]) -> Iterator[list[tuple[int, Chunk]]]:
    """What to read at once: no more bytes than in one chunk, and not too many keys.

    With each chunk comes the position of its key.
    """
    batch: list[tuple[int, Chunk]] = []
    nbytes = 0
    for i, key in enumerate(keys):
        for chunk in key.chunks():
            too_large = nbytes + chunk.stop - chunk.start > CHUNK_NBYTES
            if batch and (too_large or len(batch) == KEYS_AT_ONCE):
                yield batch
                batch, nbytes = [], 0
            batch.append((i, chunk))
            nbytes += chunk.stop - chunk.start
    if batch:
        yield batch
