"""What names an object in the stores whose connectors cannot be imported everywhere.

Graphs have keys in them, and whoever gets a graph has to unpickle it, also a worker that
could not open the store: to Dask, what cannot be unpickled is a broken connection, and the
worker ends. So keys are apart from connectors, which need Linux, or another package.
"""

from __future__ import annotations

from typing import NamedTuple

import xxhash
from dask.utils import format_bytes


def creator_name(process: str) -> str:
    """What marks the objects of a process, given its id."""
    return xxhash.xxh64_hexdigest(process.encode())


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


class PeerKey(NamedTuple):
    """Names one object.

    Attributes
    ----------
    name
        Of its segment: who stored it, and 128 random bits.
    nbytes
        Exact size.
    place
        Index of the directory on the host that stored it.
    host, port
        Of that host's server.
    """

    name: str
    nbytes: int
    place: int
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, int]:
        """Where it can be read."""
        return self.host, self.port

    @property
    def segment(self) -> SegmentKey:
        """Its name on the host that stored it."""
        return SegmentKey(self.name, self.nbytes, self.place)


class RedisKey(NamedTuple):
    """Names one object.

    Attributes
    ----------
    name
        Who stored it, and 128 random bits.
    nbytes
        Exact size.
    """

    name: str
    nbytes: int

    def __repr__(self) -> str:
        return f"{self.name} ({format_bytes(self.nbytes)})"
