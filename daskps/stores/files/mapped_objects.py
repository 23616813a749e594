"""Objects that this process has mapped, to recognise them among what it stores.

A task may pass on what it was given, and so do ``persist`` and ``scatter``. To store that
again would take the memory again. A mapping is private: what was written to it is no
longer the object's. Of each page of it the kernel says whether it was copied for this
process.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from daskps.serialize.frames import Frame, frame_address
from daskps.stores.files.mapping import address_of, is_unwritten
from daskps.stores.keys import SegmentKey

# What is smaller is copied as fast.
NBYTES_AT_LEAST = 1 << 18


class MappedObjects:
    """What is mapped now. Thread-safe."""

    #: By address.
    _objects: dict[int, tuple[weakref.ref[Any], SegmentKey]]

    def __init__(self) -> None:
        self._objects = {}

    def add(self, key: SegmentKey, mapping: memoryview) -> None:
        """Note an object that was mapped, until it is unmapped."""
        address = address_of(mapping)

        def forget(dead: weakref.ref[Any]) -> None:
            known, _ = self._objects.get(address, (None, None))
            if known is dead:  # and not what was mapped there since
                self._objects.pop(address, None)

        self._objects[address] = weakref.ref(mapping.obj, forget), key

    def find(self, frames: Sequence[Frame]) -> SegmentKey | None:
        """The object whose bytes these are; None if there is none, or it is not certain."""
        if not self._objects or len(frames) != 1:
            return None
        found = _memory(frames[0])
        if found is None:
            return None
        address, nbytes = found
        known, key = self._objects.get(address, (None, None))
        # Held, so that it stays mapped while it is looked at.
        array = None if known is None else known()
        if array is None or key is None or key.nbytes != nbytes:
            return None
        return key if is_unwritten(address, nbytes) else None


def _memory(frame: Frame) -> tuple[int, int] | None:
    """Address and size of a frame, if it is large and its bytes are in order."""
    if isinstance(frame, np.ndarray):
        contiguous = frame.flags.c_contiguous
    else:
        frame = memoryview(frame)
        contiguous = frame.c_contiguous
    if not contiguous or frame.nbytes < NBYTES_AT_LEAST:
        return None
    return frame_address(frame), frame.nbytes
