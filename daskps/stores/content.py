"""What identifies the content of an object: a hash, computed while it is written.

The bytes of a large object are read from memory once: each piece is hashed, and written
while it is still in the processor's cache. The hash is XXH3, which runs at memory speed
(https://xxhash.com), over slabs of fixed size, and then over the hashes of the slabs, so
that several threads can work on one object. It does not withstand somebody who constructs a
collision; nobody but the user himself could profit from one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import xxhash

from daskps.stores.frames import Frame, contiguous_parts, frame_nbytes

#: Writes bytes at an offset.
Write: TypeAlias = Callable[[int, memoryview], object]

SLAB = 4 << 20
# Pieces of this size are hashed and written one by one: small enough for a processor's
# cache, and large enough for a copy that goes past it, which saves reading what is written
# over (a quarter of the time here). Both steps give other threads their turn.
STEP = 1 << 20
# From this size on several threads write one object: starting them takes some 0.1 ms.
PARALLEL = 32 << 20
THREADS = min(4, os.cpu_count() or 1)

# A fingerprint looks at so many places of so many bytes.
SPOTS = 64
SPOT = 64


def content_hash(frames: Sequence[Frame]) -> bytes:
    """128 bits that depend on every byte of the frames, not on how they are divided."""
    return write_hashed(frames, lambda offset, data: None)


def write_hashed(
    frames: Iterable[Frame], write: Write, *, parallel: bool = True
) -> bytes:
    """Write frames, one after the other, and hash them on the way.

    Parameters
    ----------
    frames
        What to write.
    write
        Called with the offset of each piece, and the piece.
    parallel
        Whether `write` may be called by several threads, with pieces in any order.

    Returns
    -------
    bytes
        As :func:`content_hash`.
    """
    hasher = _Hasher()
    offset = 0
    for frame in frames:
        for part in contiguous_parts(frame):
            if parallel and part.nbytes >= PARALLEL:
                _in_threads(hasher, part, offset, write)
            else:
                _in_steps(hasher, part, offset, write)
            offset += part.nbytes
    return hasher.digest()


def _in_steps(hasher: _Hasher, part: memoryview, offset: int, write: Write) -> None:
    for start in range(0, part.nbytes, STEP):
        step = part[start : start + STEP]
        hasher.update(step)
        write(offset + start, step)


def _in_threads(hasher: _Hasher, part: memoryview, offset: int, write: Write) -> None:
    """Write one large part: its whole slabs in threads, what is before and after here."""
    head = min(hasher.missing(), part.nbytes)
    tail = part.nbytes - (part.nbytes - head) % SLAB
    _in_steps(hasher, part[:head], offset, write)

    def one(start: int) -> bytes:
        slab = _Hasher()
        _in_steps(slab, part[start : start + SLAB], offset + start, write)
        return slab.digests[0]

    with ThreadPoolExecutor(THREADS) as pool:
        hasher.digests += pool.map(one, range(head, tail, SLAB))
    _in_steps(hasher, part[tail:], offset + tail, write)


class _Hasher:
    """Hashes slabs, then their hashes."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self._slab = xxhash.xxh3_128()
        self._filled = 0

    def missing(self) -> int:
        """Bytes until the slab that has begun is full; 0 if none has."""
        return -self._filled % SLAB

    def update(self, data: memoryview) -> None:
        while data.nbytes:
            piece = data[: SLAB - self._filled]
            self._slab.update(piece)
            self._filled += piece.nbytes
            data = data[piece.nbytes :]
            if self._filled == SLAB:
                self._end_slab()

    def _end_slab(self) -> None:
        self.digests.append(self._slab.digest())
        self._slab.reset()
        self._filled = 0

    def digest(self) -> bytes:
        # The last slab counts even if it is empty, and its size with it.
        size = len(self.digests) * SLAB + self._filled
        whole = xxhash.xxh3_128(b"".join(self.digests) + self._slab.digest())
        whole.update(size.to_bytes(8, "little"))
        return whole.digest()


def fingerprint(frames: Sequence[Frame]) -> bytes | None:
    """Differs only if the content differs; found by looking at a little of it.

    Equal fingerprints say nothing. None if there is no such, for frames of unusual kinds.
    """
    digest = xxhash.xxh3_64(sum(map(frame_nbytes, frames)).to_bytes(8, "little"))
    for frame in frames[:: max(1, len(frames) // SPOTS)]:
        nbytes = frame_nbytes(frame)
        step = max(SPOT, nbytes // SPOTS // SPOT * SPOT)
        if isinstance(frame, np.ndarray) and not frame.flags.c_contiguous:
            if SPOT % max(1, frame.itemsize):
                return None
            items, stride = SPOT // frame.itemsize, step // frame.itemsize
            for i in range(0, frame.size, stride):
                digest.update(frame.flat[i : i + items].tobytes())
            continue
        for part in contiguous_parts(frame):
            rest = nbytes % step
            steps = np.frombuffer(part, np.uint8)[: nbytes - rest].reshape(-1, step)
            digest.update(steps[:, :SPOT].tobytes())
            digest.update(part[nbytes - rest :][:SPOT])
    return digest.digest()
