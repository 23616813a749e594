"""What identifies the content of an object: a hash of it, or a glance at it.

The hash is XXH3, which runs at memory speed (https://xxhash.com), over slabs of fixed size,
and then over the hashes of the slabs, so that several threads can work on one object. It
does not withstand somebody who constructs a collision; nobody but the user himself could
profit from one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash

from daskps.serialize.frames import Frame, contiguous_parts, frame_nbytes
from daskps.serialize.slabs import SLAB, in_threads

# A fingerprint looks at so many places of so many bytes.
SPOTS = 64
SPOT = 64


def content_hash(frames: Sequence[Frame]) -> bytes:
    """128 bits that depend on every byte of the frames, not on how they are divided."""
    hasher = _Hasher()
    for frame in frames:
        for part in contiguous_parts(frame):
            hasher.update(part)
    return hasher.digest()


class _Hasher:
    """Hashes slabs, then their hashes."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._slab = xxhash.xxh3_128()
        self._filled = 0

    def update(self, data: memoryview) -> None:
        if self._filled:
            data = self._fill(data)
        # Now a slab begins with it, or nothing is left.
        whole = data.nbytes - data.nbytes % SLAB
        self._digests += in_threads(_hash_slab, data[:whole])
        self._fill(data[whole:])

    def _fill(self, data: memoryview) -> memoryview:
        """Add to the slab that has begun; what does not fit is returned."""
        fits = data[: SLAB - self._filled]
        self._slab.update(fits)
        self._filled += fits.nbytes
        if self._filled == SLAB:
            self._digests.append(self._slab.digest())
            self._slab.reset()
            self._filled = 0
        return data[fits.nbytes :]

    def digest(self) -> bytes:
        # The last slab counts even if it is empty, and its size with it.
        size = len(self._digests) * SLAB + self._filled
        whole = xxhash.xxh3_128(b"".join(self._digests) + self._slab.digest())
        whole.update(size.to_bytes(8, "little"))
        return whole.digest()


def _hash_slab(offset: int, slab: memoryview) -> bytes:
    # Of xxhash's functions, only this one lets other threads run.
    hasher = xxhash.xxh3_128()
    hasher.update(slab)
    return hasher.digest()


def fingerprint(frames: Sequence[Frame]) -> bytes:
    """Of content that is divided in one way, differs only if the content differs.

    Found by looking at a little of it. Equal fingerprints say nothing.
    """
    digest = xxhash.xxh3_64(sum(map(frame_nbytes, frames)).to_bytes(8, "little"))
    # Odd: where values are packed, every other frame is padding.
    for frame in frames[:: len(frames) // SPOTS | 1]:
        nbytes = frame_nbytes(frame)
        step = max(SPOT, nbytes // SPOTS // SPOT * SPOT)
        if isinstance(frame, np.ndarray) and not frame.flags.c_contiguous:
            for place in range(0, nbytes, step):
                digest.update(_strided_spot(frame, place))
            continue
        for part in contiguous_parts(frame):
            rest = nbytes % step
            steps = np.frombuffer(part, np.uint8)[: nbytes - rest].reshape(-1, step)
            digest.update(steps[:, :SPOT].tobytes())
            digest.update(part[nbytes - rest :][:SPOT])
    return digest.digest()


def _strided_spot(array: np.ndarray, place: int) -> bytes:
    """The bytes that would be at a place if the array were contiguous."""
    first, skip = divmod(place, array.itemsize)
    last = -(-(place + SPOT) // array.itemsize)
    return array.flat[first:last].tobytes()[skip : skip + SPOT]
