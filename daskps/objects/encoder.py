"""Put one value into a store, and say where it went. Runs on the client."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from daskps.exceptions import StoreError
from daskps.objects.cache import Cache, GraphTurn
from daskps.objects.catalog import Catalog, StoredObject
from daskps.objects.pickles import Pickles
from daskps.references.nodes import StoredBytes, StoredValue
from daskps.references.proxies import is_proxy, stored_by
from daskps.safety_net import fell_back
from daskps.serialize.frames import (
    Frame,
    contiguous_parts,
    frame_address,
    frame_nbytes,
)
from daskps.serialize.values import Serialized, serialize

# Parts of one object begin at multiples of this: a cache line, and enough for any dtype.
ALIGNMENT_NBYTES = 64
# Small values are packed into objects of about this size: large enough that the cost of an
# object is shared by many values, small enough that it goes soon after its tasks.
PACK_NBYTES = 8 << 20
# What is left of a large value beside its large buffers: as much as this (bytes) is an
# object as well, less stays in the graph, where it is read at once.
REST_NBYTES_AT_LEAST = 1 << 14
# Writing is the kernel's work, and waiting for memory: a few threads are enough.
THREADS = min(4, os.cpu_count() or 1)
# Packing a smaller value would save nothing: its reference is about as long.
PACKED_NBYTES_AT_LEAST = 1 << 10


class Encoder:
    """Stores the large values of one graph.

    A value that occurs many times in the graph is stored once, without looking at its
    content: a graph is one moment. So is a large array that occurs within several values.

    Parameters
    ----------
    catalog, cache
        Where to, and what keeps it for the next graph.
    threshold
        Bytes; what is smaller stays in the graph.
    pack_from
        Bytes from which on values below the threshold are packed together; None: they
        are not.
    inline_on_error
        Whether a value that cannot be stored stays in the graph, with one warning.
    Attributes
    ----------
    stored
        Handles of all objects that the graph uses.
    serialize
        In which form values are stored: at first that of graphs.
    pickles
        What is serialised already, in that form.
    kept_nbytes
        Bytes of values that are smaller than they seemed, and stay in the graph.
    refused
        Why a value could not be stored, and stays in the graph; empty if all could.

    Notes
    -----
    Thread-safe. Two threads that store the same content at the same time may store it
    twice.
    """

    threshold: int
    pack_from: int | None
    stored: list[StoredObject]
    serialize: Callable[[Any], Serialized]
    pickles: Pickles
    kept_nbytes: int
    refused: str
    _catalog: Catalog
    _cache: Cache
    _turn: GraphTurn
    _values: dict[int, tuple[Any, StoredValue | None]]
    _buffers: dict[tuple[int, int], tuple[Frame, StoredObject]]
    _packing: list[_Part]
    _packing_nbytes: int

    def __init__(
        self,
        catalog: Catalog,
        cache: Cache,
        threshold: int,
        pack_from: int | None = None,
        inline_on_error: bool = True,
    ):
        self.serialize = serialize
        self._inline_on_error = inline_on_error
        self.pickles = Pickles()
        self.kept_nbytes = 0
        self.refused = ""
        self._warned = False
        self.threshold = threshold
        self.pack_from = pack_from
        self.stored = []
        self._catalog = catalog
        self._cache = cache
        self._turn = cache.turn()
        self._values = {}
        self._buffers = {}
        self._packing = []
        self._packing_nbytes = 0
        self._lock = threading.Lock()

    @property
    def at_least(self) -> int:
        """Bytes from which on a value is worth a look."""
        return self.threshold if self.pack_from is None else self.pack_from

    def encode(self, value: Any) -> StoredValue | None:
        """Store a value; None if it is to stay in the graph.

        The result is complete only after :meth:`finish`.

        Raises
        ------
        daskps.exceptions.StoreError
            If the value cannot be stored, and is not to be sent inside the graph.
        """
        known = self._values.get(id(value))
        if known is None:
            try:
                stored = self._encode(value)
            except StoreError as e:
                if not self._inline_on_error:
                    raise
                self._warn_once(e)
                stored = None
            except Exception as e:
                fell_back(e, "store", value)
                self.refused = f"{type(e).__name__}: {e}"
                stored = None
            # The value is kept, so that its id stays its own.
            known = self._values[id(value)] = value, stored
        return known[1]

    def encode_all(self, values: list[Any]) -> None:
        """Store several values at once, from several threads."""

        def encode(value: Any) -> None:
            # Not what it gives: if another value fails, its error would keep it stored.
            self.encode(value)

        if len(values) > 1:
            with ThreadPoolExecutor(min(len(values), THREADS)) as pool:
                list(pool.map(encode, values))

    def finish(self) -> None:
        """Store what is still waiting to be packed, and announce all objects."""
        self._flush()
        self._catalog.hold(self.stored)
        self._cache.was_stored(self._turn)

    def abandon(self) -> None:
        """Hold nothing any more: the graph will not be sent.

        The error that says why keeps its frames, and so this object, for as long as
        somebody looks at it.
        """
        self.stored.clear()
        self._values.clear()
        self._buffers.clear()
        self._packing.clear()
        self.pickles = Pickles()

    def _warn_once(self, error: StoreError) -> None:
        self.refused = str(error)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"A large value could not be stored, and is sent inside the graph, "
                f"through the scheduler: {error}",
                stacklevel=2,
            )

    def _encode_proxy(self, value: Any) -> StoredValue:
        """A proxy made by hand stays one; only Dask is not to look at it."""
        handle = stored_by(value)
        refers_to = () if handle is None else (handle.id,)
        stored = StoredValue(serialize(value).stream, [], [], refers_to)
        if handle is not None:
            stored.owners.append(handle)
            self.stored.append(handle)
        return stored

    def _encode(self, value: Any) -> StoredValue | None:
        if is_proxy(value):
            return self._encode_proxy(value)
        try:
            serialized = self.pickles.get(value) or self.serialize(value)
        except Exception:
            # Dask pickles the graph next, and its error is the one that users know.
            return None
        if serialized.nbytes < self.at_least:
            with self._lock:
                self.kept_nbytes += serialized.nbytes
            return None
        return self.place(serialized)

    def place(self, serialized: Serialized) -> StoredValue:
        """Store a value that is serialised already; complete after :meth:`finish`.

        Raises
        ------
        daskps.exceptions.StoreError
            As for :meth:`encode`.
        """
        result = StoredValue(serialized.stream, [], serialized.writable)
        rest = [_Part(result, None, serialized.stream)]
        for i, buffer in enumerate(serialized.buffers):
            if frame_nbytes(buffer) >= self.threshold:
                stored = self._put_buffer(buffer)
                result.buffers.append(StoredBytes(stored.id, 0, stored.nbytes))
                result.owners.append(stored)
            else:
                result.buffers.append(b"")
                rest.append(_Part(result, i, buffer))
        self._place(rest, alone=serialized.nbytes >= self.threshold)
        return result

    def _place(self, rest: list[_Part], alone: bool) -> None:
        """Decide where the parts go that are no objects of their own.

        Parameters
        ----------
        rest
            The stream, and smaller buffers.
        alone
            Whether the value is large, and so leaves the graph for good.
        """
        nbytes = sum(frame_nbytes(part.frame) for part in rest)
        if alone and nbytes >= min(self.threshold, REST_NBYTES_AT_LEAST):
            self._put_together(rest)
        elif self.pack_from is not None:
            with self._lock:
                self._packing += rest
                self._packing_nbytes += nbytes
                full = self._packing_nbytes >= PACK_NBYTES
            if full:
                self._flush()
        else:
            for part in rest:
                part.assign(b"".join(contiguous_parts(part.frame)))

    def _put_buffer(self, buffer: Frame) -> StoredObject:
        if isinstance(buffer, np.ndarray):
            return self._put([buffer])  # strided: place and size do not identify it
        place = frame_address(buffer), frame_nbytes(buffer)
        if place not in self._buffers:
            # The buffer is kept, so that its address stays its own.
            self._buffers[place] = buffer, self._put([buffer])
        return self._buffers[place][1]

    def _put_together(self, parts: list[_Part]) -> None:
        frames: list[Frame] = []
        offsets = []
        end = 0
        for part in parts:
            frames.append(bytes(-end % ALIGNMENT_NBYTES))
            offsets.append(end + len(frames[-1]))
            frames.append(part.frame)
            end = offsets[-1] + frame_nbytes(part.frame)
        try:
            stored = self._put(frames)
        except StoreError as e:
            if not self._inline_on_error:
                raise
            self._warn_once(e)
            for part in parts:
                part.assign(b"".join(contiguous_parts(part.frame)))
            return
        for part, offset in zip(parts, offsets, strict=True):
            part.assign(StoredBytes(stored.id, offset, frame_nbytes(part.frame)))
            part.value.owners.append(stored)

    def _put(self, frames: list[Frame]) -> StoredObject:
        stored = self._catalog.put(frames)
        self._cache.add(stored, self._turn)
        self.stored.append(stored)
        return stored

    def _flush(self) -> None:
        with self._lock:
            parts, self._packing, self._packing_nbytes = self._packing, [], 0
        if parts:
            self._put_together(parts)


class _Part(NamedTuple):
    """The stream (`which` is None) or a buffer of a value, not yet placed."""

    value: StoredValue
    which: int | None
    frame: Frame

    def assign(self, part: bytes | StoredBytes) -> None:
        if self.which is None:
            self.value.stream = part
        else:
            self.value.buffers[self.which] = part
