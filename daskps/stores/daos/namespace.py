"""The objects of all clusters that use one namespace of a DAOS container.

They are in two dictionaries:

- ``namespace.daskps`` is the index. It holds an entry for each object: the bytes of a small
  one, so that to store it takes one round trip, or a mark. The name and the size of the
  object are the entry's key, so that what a dead process left is found by listing keys.
- ``namespace`` holds the bytes of larger ones, in chunks of 1 MiB. DAOS's Python bindings
  keep the interpreter's lock during each transfer, so Dask's event loop gets its turn
  between two chunks. This is also the size up to which they read in one round trip
  (``value_size`` in ``pydaos``), and far from their limit of 2 GiB - 1 for one value.

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
# An object of at most so many bytes is in the index. To ask whether it is there reads it,
# which takes about as long as two round trips.
SMALL_NBYTES = 128 << 10
# Keys that are read or deleted at once: 3000 small ones took 0.16 s on a real pool.
KEYS_AT_ONCE = 256
LEASE_KEY = "lease."
# Marks the objects of one cluster.
CLUSTER = re.compile(r"[0-9a-f]{16}")
# Cluster, who stored the object, random bits; and the size. Whatever else is in the index is
# not ours.
ENTRY = re.compile(rf"({CLUSTER.pattern}\.\w*\.[\w-]+)\.(\d+)", re.ASCII)
# Before the bytes of a small object, of which there may be none: DAOS has no empty values.
SMALL = b"="
# In the place of the bytes of a large one.
LARGE = b"+"


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

    @classmethod
    def of_entry(cls, entry: str) -> DaosKey | None:
        """The object to which a key of the index belongs; None if it is not ours."""
        match = ENTRY.fullmatch(entry)
        return None if match is None else cls(match[1], int(match[2]))

    @property
    def entry(self) -> str:
        """Its key in the index."""
        return f"{self.name}.{self.nbytes}"

    @property
    def is_small(self) -> bool:
        """Whether its bytes are in the index."""
        return self.nbytes <= SMALL_NBYTES

    def chunks(self) -> list[Chunk]:
        """Where its bytes are, in order, if it is not small."""
        if self.is_small:
            return []
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
        if key.is_small:
            self._index.put(key.entry, b"".join([SMALL, *_parts(frames)]))
            return
        # First, so that what there is of it is found if this process dies.
        self._index.put(key.entry, LARGE)
        for chunk, data in zip(key.chunks(), _split(frames), strict=True):
            self._data.put(chunk.name, data)
        # Again, since this process may have been taken for dead meanwhile.
        self._index.put(key.entry, LARGE)

    def get(self, keys: Sequence[DaosKey]) -> list[memoryview | None]:
        """Read objects, small ones together.

        Returns
        -------
        list of memoryview or None
            For each key writable bytes, or None if the object is not there, or not whole.
        """
        small = self._get_small([key for key in keys if key.is_small])
        return [next(small) if key.is_small else self._get_large(key) for key in keys]

    def _get_small(self, keys: Sequence[DaosKey]) -> Iterator[memoryview | None]:
        for some in _batches(keys):
            values = self._index.get_batch(key.entry for key in some)
            for key in some:
                value = values[key.entry]
                if value is None or len(value) != len(SMALL) + key.nbytes:
                    yield None
                else:
                    data = np.empty(key.nbytes, np.uint8).data
                    data[:] = memoryview(value)[len(SMALL) :]
                    yield data

    def _get_large(self, key: DaosKey) -> memoryview | None:
        data = np.empty(key.nbytes, np.uint8).data
        # One by one: several at once would take as long, and keep the interpreter's lock.
        for name, start, stop in key.chunks():
            value = self._data.get(name)
            if value is None or len(value) != stop - start:
                return None
            data[start:stop] = value
        return data

    def exists(self, key: DaosKey) -> bool:
        """Whether an object is there; it is not read, unless it is small."""
        return self._index.get(key.entry) is not None

    def delete(self, keys: Iterable[DaosKey]) -> None:
        """Delete objects. Not there: does nothing."""
        for some in partition_all(KEYS_AT_ONCE, keys):
            chunks = (chunk.name for key in some for chunk in key.chunks())
            for names in partition_all(KEYS_AT_ONCE, chunks):
                self._data.delete(names)
            # Last: until then, what is left of them can be found.
            self._index.delete(key.entry for key in some)

    def find(self, prefix: str) -> Iterator[DaosKey]:
        """The objects whose names begin like this."""
        for entry in self._index.list_keys():
            key = DaosKey.of_entry(entry)
            if key is not None and key.name.startswith(prefix):
                yield key

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


def _parts(frames: Sequence[Frame]) -> Iterator[memoryview]:
    return itertools.chain.from_iterable(map(contiguous_parts, frames))


def _split(frames: Sequence[Frame]) -> Iterator[bytes]:
    """The bytes of frames, one chunk after the other."""
    pieces: list[memoryview] = []
    room = CHUNK_NBYTES
    for part in _parts(frames):
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


def _batches(keys: Sequence[DaosKey]) -> Iterator[list[DaosKey]]:
    """Which to read at once: no more bytes than in one chunk, and not too many keys."""
    batch: list[DaosKey] = []
    nbytes = 0
    for key in keys:
        too_large = nbytes + key.nbytes > CHUNK_NBYTES
        if batch and (too_large or len(batch) == KEYS_AT_ONCE):
            yield batch
            batch, nbytes = [], 0
        batch.append(key)
        nbytes += key.nbytes
    if batch:
        yield batch
